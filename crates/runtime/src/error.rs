//! What can go wrong, by what the caller can do about it.

use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller named something that is not here (any more).
    #[error("{what} {id:?} is not known")]
    NotFound { what: &'static str, id: String },
    /// The request can never succeed as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The thing is not in the state that the call needs; another call may bring it there.
    #[error("{0}")]
    Precondition(String),
    /// Somebody else holds the name.
    #[error("{0}")]
    Exists(String),
    /// This runtime can't do it, and says so rather than do something else.
    #[error("{0}")]
    Unsupported(String),
    /// A named limit was reached.
    #[error("{0}")]
    Exhausted(String),
    #[error("{0}")]
    Timeout(String),
    /// The registry's answer was no.
    #[error("{0}")]
    Registry(String),
    #[error("{0}")]
    Unauthorized(String),
    /// The supervisor of a sandbox could not do it; the text is its own.
    #[error("{0}")]
    Supervisor(String),
    #[error("{doing}: {source}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub fn not_found(what: &'static str, id: impl Into<String>) -> Error {
        Error::NotFound { what, id: id.into() }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
}

/// Says what was being done when a system call failed.
pub trait Doing<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::Io {
            doing: what().into(),
            source: source.into(),
        })
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> tonic::Status {
        let message = error.to_string();
        match error {
            Error::NotFound { .. } => tonic::Status::not_found(message),
            Error::Invalid(_) => tonic::Status::invalid_argument(message),
            Error::Precondition(_) => tonic::Status::failed_precondition(message),
            Error::Exists(_) => tonic::Status::already_exists(message),
            Error::Unsupported(_) => tonic::Status::unimplemented(message),
            Error::Exhausted(_) => tonic::Status::resource_exhausted(message),
            Error::Timeout(_) => tonic::Status::deadline_exceeded(message),
            Error::Unauthorized(_) => tonic::Status::unauthenticated(message),
            Error::Registry(_) => tonic::Status::unavailable(message),
            Error::Supervisor(_) => tonic::Status::unknown(message),
            Error::Io { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => {
                tonic::Status::resource_exhausted(message)
            }
            Error::Io { .. } => tonic::Status::internal(message),
        }
    }
}
