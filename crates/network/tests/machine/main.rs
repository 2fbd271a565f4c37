//! The kernel itself, in network namespaces that end with their threads. Needs root, `nft` and `ip`.

mod door;
mod namespaces;
mod services;
