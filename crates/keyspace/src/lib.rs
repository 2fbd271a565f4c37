//! The verbs of a keyspace (D4): exactly etcd's shape, over any store.
//!
//! A keyspace is a revisioned map of keys with one revision counter, one compaction and one quota. This room has the
//! verbs and their types, the in-memory index that every embedded store reads from ([`index`]), the in-memory keyspace
//! ([`memory`]) and the conformance suite ([`suite`], feature `suite`) that every implementation passes. It knows no
//! disk, no network and nothing of Kubernetes.
//!
//! Start reading at [`verbs`].

pub mod verbs;

pub use verbs::*;
