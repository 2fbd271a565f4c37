//! Keyspaces on disk (D5): hundreds in one process, each with its own revisions, compaction and quota, over one log
//! and its group commit. No answer is given and no watch told before what it says is durable.
//!
//! What is read comes from the index in memory ([`keyspace::index`]); the disk has a log of commits ([`segment`]) and,
//! so that the log stays short, a snapshot a keyspace ([`snapshot`]). Large values lie apart from it ([`value_file`]), and
//! leave the memory when they are cold ([`memory`]). This room reaches the disk, the clock and
//! randomness only through [`world`], and knows nothing of Kubernetes and of the network.
//!
//! Start reading at [`Store`] in `store.rs`, then `committer.rs`: the one writer.

mod apart;
mod checkpoint;
mod codec;
mod committer;
mod engine;
mod error;
mod keyspace_on_disk;
mod log;
mod memory;
mod record;
mod recovery;
mod segment;
mod snapshot;
mod store;
mod value_file;
mod values;

pub use error::OpenError;
pub use segment::FORMAT_VERSION;
pub use store::{Commits, Store, StoreOptions, ValueOptions};
