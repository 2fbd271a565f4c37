//! The verbs of a keyspace (D4): exactly etcd's shape, over any store.
//!
//! A keyspace is a revisioned map of keys with one revision counter, one compaction and one quota. This room has the
//! verbs and their types, the in-memory index that every embedded store reads from ([`index`]), the in-memory keyspace
//! ([`memory`]) and the conformance suite ([`suite`]) that every implementation passes. It knows no
//! disk, no network and nothing of Kubernetes.
//!
//! Start reading at [`verbs`].

pub mod check;
pub mod expiry;
pub mod followed;
mod hub;
pub mod index;
pub mod local;
pub mod memory;
pub mod suite;
pub mod values;
pub mod verbs;
pub mod view;
mod watcher;

pub use followed::Followed;
pub use hub::WATCHERS_MAX;
pub use local::{Local, Storage};
pub use memory::MemoryKeyspace;
pub use verbs::*;
pub use watcher::{Delivered, QUEUE_BYTES_MAX, QUEUE_COMMITS_MAX, Watching};
