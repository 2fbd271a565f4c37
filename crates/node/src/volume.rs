//! The directories that a Pod's containers mount: what is in them (`payload`, pure), how they are written so that
//! a reader never sees half an update (`writer`), and their places and mounts on this machine (`directory`).

pub mod directory;
pub mod payload;
pub mod subpath;
pub mod writer;

use std::path::PathBuf;

use crate::pod::references::storage::StorageError;

/// Why a volume can't be made now. Shown to people in a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(transparent)]
    Payload(#[from] payload::PayloadError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("path {0:?} of the volume does not exist")]
    NoPath(PathBuf),
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPathType { path: PathBuf, wanted: &'static str },
    #[error("subPath {sub_path:?} of volume {volume:?}: {source}")]
    SubPath {
        volume: String,
        sub_path: String,
        source: std::io::Error,
    },
    #[error("volume {0:?} is of a kind that this node does not serve")]
    Unsupported(String),
    #[error("no volume named {0:?}")]
    Unknown(String),
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl VolumeError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> VolumeError {
        let path = path.into();
        move |source| VolumeError::Io { what, path, source }
    }
}
