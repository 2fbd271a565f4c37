//! Both sides of etcd's v3 API. A real etcd, 3.4 or later, as a keyspace, whose keys lie under a prefix that nobody above
//! sees; and a keyspace of ours as an etcd ([`server`]), which etcd's clients can't tell from a real one.
//!
//! This room knows etcd's wire and its errors, and nothing of what is stored. Whoever reads much reads through
//! [`keyspace::followed::Followed`], which holds a view of the keyspace fed by one watch.
//!
//! Start reading at [`server`], and for the client side at [`EtcdKeyspace`] in `keyspace_in_etcd.rs`; `translate.rs` has the words of both sides next to each
//! other, `progress.rs` says how a watch learns that nothing happened.

pub mod bolt;
mod connect;
mod errors;
mod keyspace_in_etcd;
pub mod load;
mod progress;
pub mod server;
mod snapshot;
mod translate;
mod watch;
pub mod wire;

pub use connect::{ConnectError, EtcdOptions};
pub use keyspace_in_etcd::EtcdKeyspace;
pub use progress::ProgressBy;
pub use snapshot::{BrokenOff, SnapshotError, SnapshotPieces, snapshot};
