//! Why a data directory can't be opened, by what can be done about it.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// End the other process, or take another directory.
    #[error("the data directory {dir} is in use{}", pid.map_or(String::new(), |pid| format!(" by process {pid}")))]
    InUse { dir: PathBuf, pid: Option<u32> },
    /// Use the version of the program that wrote it, or a newer one; before the first release older formats are not read.
    #[error("{file} has format version {found}, this program knows version {known}")]
    OtherFormat { file: PathBuf, found: u32, known: u32 },
    /// What was durable is damaged: restore a backup. Nothing was changed on the disk.
    #[error("{file} is damaged at byte {offset}: {what}")]
    Corrupt { file: PathBuf, offset: u64, what: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

impl OpenError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { path, source }
    }
}
