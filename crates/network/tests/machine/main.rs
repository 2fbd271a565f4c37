//! The kernel itself, in network namespaces that end with their threads. Needs root, `nft` and `ip`.

#![allow(clippy::disallowed_methods, reason = "measures the real machine")]

mod door;
mod namespaces;
mod services;
mod walls;
