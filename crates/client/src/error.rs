//! What can go wrong with a request, by what the caller can do about it.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::{BoxError, ConfigError, SourceId};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered, and refused. Whether a retry helps depends on the refusal.
    #[error("{0}")]
    Api(Box<Refusal>),
    /// The request did not reach the server, or its answer did not arrive whole. A retry may help.
    #[error("the server could not be reached: {source}")]
    Transport {
        #[source]
        source: BoxError,
    },
    /// The server did not answer in time. The request may have been carried out.
    #[error("the server did not answer within {} s", .after.as_secs())]
    Timeout { after: Duration },
    /// The server answered with something that is not what was asked for. A retry does not help.
    #[error("the server's answer could not be read as {what}: {source}")]
    Decode {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// The answer (or one frame of a watch) is above what is read into memory.
    #[error("the server's answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    /// The request could not be formed: a name or selector that does not fit a URL.
    #[error("the request could not be formed: {0}")]
    Request(#[from] http::Error),
    /// The source was taken away; its planes are reached no more.
    #[error("source {0} is not among the sources")]
    UnknownSource(SourceId),
    /// A kubeconfig (or the in-cluster configuration) cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A `metav1.Status` of failure, as received.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Refusal {
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, ...; empty where the server gave none.
    pub reason: String,
    pub message: String,
    pub retry_after: Option<Duration>,
    /// `details.causes[].reason`, for refusals that differ only there (`NamespaceTerminating`).
    pub causes: Vec<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() {
            write!(f, "the server answered {} {}", self.code, self.reason)
        } else {
            f.write_str(&self.message)
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    code: u16,
    reason: String,
    message: String,
    details: Details,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: Option<u64>,
    causes: Vec<Cause>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cause {
    reason: String,
}

impl Refusal {
    /// Reads a `Status` body; a body that is none becomes the message, cut to a readable length.
    pub(crate) fn read(status: StatusCode, body: &[u8]) -> Refusal {
        const MESSAGE_CHARS_MAX: usize = 512;
        match serde_json::from_slice::<Wire>(body) {
            Ok(wire) if wire.code != 0 || !wire.message.is_empty() || !wire.reason.is_empty() => Refusal {
                code: if wire.code == 0 { status.as_u16() } else { wire.code },
                reason: wire.reason,
                message: wire.message,
                retry_after: wire.details.retry_after_seconds.map(Duration::from_secs),
                causes: wire.details.causes.into_iter().map(|cause| cause.reason).collect(),
            },
            _ => Refusal {
                code: status.as_u16(),
                reason: status.canonical_reason().unwrap_or("").to_owned(),
                message: String::from_utf8_lossy(body).chars().take(MESSAGE_CHARS_MAX).collect(),
                ..Refusal::default()
            },
        }
    }
}

impl Error {
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Api(refusal) => Some(refusal),
            _ => None,
        }
    }

    fn has_code(&self, code: u16) -> bool {
        self.refusal().is_some_and(|refusal| refusal.code == code)
    }

    pub fn is_not_found(&self) -> bool {
        self.has_code(404)
    }

    /// A precondition (uid, resourceVersion, a JSON patch's `test`) did not hold.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409) && !self.is_already_exists()
    }

    pub fn is_already_exists(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.reason == "AlreadyExists")
    }

    /// The revision asked for was compacted: list anew.
    pub fn is_gone(&self) -> bool {
        self.has_code(410)
    }

    pub fn is_invalid(&self) -> bool {
        self.has_code(422)
    }

    pub fn is_forbidden(&self) -> bool {
        self.has_code(403)
    }

    pub fn is_too_many_requests(&self) -> bool {
        self.has_code(429)
    }

    /// Nothing can be made in this namespace any more.
    pub fn is_namespace_terminating(&self) -> bool {
        self.refusal()
            .is_some_and(|refusal| refusal.causes.iter().any(|cause| cause == "NamespaceTerminating"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_other_bodies_become_the_message() {
        let body = br#"{"kind":"Status","status":"Failure","message":"pods \"a\" already exists","reason":"AlreadyExists","code":409}"#;

        let error = Error::Api(Box::new(Refusal::read(StatusCode::CONFLICT, body)));
        let plain = Refusal::read(StatusCode::BAD_GATEWAY, b"upstream is away");

        assert!(error.is_already_exists() && !error.is_conflict());
        assert_eq!(error.to_string(), "pods \"a\" already exists");
        assert_eq!((plain.code, plain.message.as_str()), (502, "upstream is away"));
    }
}
