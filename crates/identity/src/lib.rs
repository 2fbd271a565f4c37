//! Who is who: certificate authorities and the certificates they issue, service-account tokens, TLS set-up, and the
//! kubeconfig files that carry credentials to people. Uses `world` alone; never knows what a plane is, where keys are
//! kept, or what a user may do.
//!
//! All keys are P-256, tokens are ES256 (D8). Key generation and signatures draw from the operating system, as
//! `ring` allows nothing else; serial numbers, token ids and time come from the `world`.
//!
//! Start reading at [`Ca`] (issuing), [`ClientCa`] (judging a client's chain), [`TokenKey`] (tokens), [`tls`],
//! [`kubeconfig`].

mod ca;
mod client_ca;
mod der;
pub mod kubeconfig;
mod new_key;
mod pem;
pub mod tls;
mod token;

pub use ca::{Ca, Certified, SubjectName, fingerprint};
pub use client_ca::{ClientCa, Subject};
pub use token::{Claims, Expected, KubernetesClaims, ObjectRef, TokenError, TokenKey, TokenPublicKey, jwks};

/// What can go wrong with certificates, keys and kubeconfig files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a key can't be made: {0}")]
    Key(String),
    #[error("a certificate can't be made: {0}")]
    Issue(String),
    /// The PEM or DER that was handed in is not what it should be.
    #[error("{what} can't be read: {reason}")]
    Unreadable { what: &'static str, reason: String },
    /// The chain is not good for this authority at this time.
    #[error("the client certificate was refused: {0}")]
    Untrusted(String),
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{path}: {source}", path = path.display())]
    File {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is being changed by somebody else ({path}.lock exists)", path = path.display())]
    Locked { path: std::path::PathBuf },
}

impl Error {
    pub(crate) fn unreadable(what: &'static str, reason: impl std::fmt::Display) -> Error {
        Error::Unreadable {
            what,
            reason: reason.to_string(),
        }
    }
}
