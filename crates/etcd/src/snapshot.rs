//! All of an etcd as a file, piece by piece.

use crate::connect::{ConnectError, Connected, EtcdOptions, connect};

pub struct SnapshotPieces {
    stream: etcd_client::SnapshotStreaming,
}

/// The connection broke, or the server did; what has come is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot broke off: {0}")]
pub struct BrokenOff(#[from] etcd_client::Error);

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    BrokenOff(#[from] BrokenOff),
}

/// Asks for a snapshot; the file ends in the SHA-256 of what is before.
pub async fn snapshot(options: &EtcdOptions) -> Result<SnapshotPieces, SnapshotError> {
    let Connected { client, .. } = connect(options).await?;
    let stream = client.maintenance_client().snapshot().await.map_err(BrokenOff)?;
    Ok(SnapshotPieces { stream })
}

impl SnapshotPieces {
    /// `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, BrokenOff> {
        let piece = self.stream.message().await?;
        Ok(piece.map(|piece| piece.blob().to_vec()))
    }
}
