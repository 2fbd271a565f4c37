//! The core, driven through the service in memory: no sockets, no TLS, the caller's identity given.

mod admission;
mod apply;
mod definitions;
mod deletion;
mod evictions;
mod harness;
mod lists;
mod objects;
mod planes;
mod pods;
mod projections;
mod protobuf;
mod quotas;
mod services;
mod template;
mod watches;
