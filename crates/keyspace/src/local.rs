//! A keyspace that is in this process as a whole: what serves it to others asks more of it than the verbs.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Keyspace, Options, Result, Revision, Txn, Txned, view::View};

/// What lies below a keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Storage {
    /// Bytes that are taken on the disk.
    pub size_bytes: u64,
    /// What of them is needed; the rest goes by itself, or with [`Local::defragment`].
    pub in_use_bytes: u64,
    /// Commits so far.
    pub commits: u64,
}

#[async_trait]
pub trait Local: Keyspace {
    fn view(&self) -> &Arc<View>;

    /// A transaction that has passed [`crate::check::txn_within`] already, with limits of the caller's choice.
    async fn checked_txn(&self, txn: Txn, options: Options) -> Result<Txned>;

    /// As [`Keyspace::compact`], and what was given up is freed after the answer.
    async fn begin_compaction(&self, revision: Revision) -> Result<()> {
        self.compact(revision, Options::default()).await
    }

    fn storage(&self) -> Storage;

    /// Gives back what is not in use.
    async fn defragment(&self) -> Result<()>;

    /// Why writes are refused, if they are for good.
    fn health(&self) -> Result<()>;
}
