//! A real etcd, 3.4 or later, as a keyspace, over its gRPC API. Keys lie under a prefix that nobody above sees.
//!
//! This room knows etcd's wire and its errors, and nothing of what is stored. Whoever reads much reads through
//! [`keyspace::followed::Followed`], which holds a view of the keyspace fed by one watch.
//!
//! Start reading at [`EtcdKeyspace`] in `keyspace_in_etcd.rs`; `translate.rs` has the words of both sides next to each
//! other, `progress.rs` says how a watch learns that nothing happened.

mod connect;
mod errors;
mod keyspace_in_etcd;
mod progress;
mod translate;
mod watch;

pub use connect::{ConnectError, EtcdOptions};
pub use keyspace_in_etcd::EtcdKeyspace;
pub use progress::ProgressBy;
