//! Why an upgrade is not granted.

use http::{Response, StatusCode};

use crate::body::Body;
use crate::{status, upgrade};

/// A request that cannot become streams. [`Refusal::into_response`] is the answer to give.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A plain request. kubectl shows this message when something between drops the upgrade.
    #[error("unable to upgrade: the request asks for no upgrade to SPDY/3.1 or WebSocket")]
    NoUpgrade,
    /// HTTP/2, or a server that does not offer upgrades.
    #[error("unable to upgrade: this connection cannot be upgraded; HTTP/1.1 is needed")]
    NotUpgradable,
    /// None of the protocols that the client offers is spoken here.
    #[error("unable to upgrade: none of the client's protocols {offered:?} is supported; supported are {supported:?}")]
    Protocol {
        offered: Vec<String>,
        supported: &'static [&'static str],
    },
    #[error("unable to upgrade: {0}")]
    Malformed(&'static str),
    #[error("{0} ports are more than the {1} that one request may forward")]
    TooManyPorts(usize, usize),
}

impl Refusal {
    pub fn into_response(self) -> Response<Body> {
        let message = self.to_string();
        let Refusal::Protocol { supported, .. } = &self else {
            return status::bad_request(&message);
        };
        // 403 and the list is how a client learns of it (apimachinery httpstream `Handshake`).
        let mut response = status::failure(StatusCode::FORBIDDEN, "Forbidden", &message);
        for protocol in *supported {
            response.headers_mut().append(
                upgrade::ACCEPTED_STREAM_PROTOCOLS,
                http::HeaderValue::from_static(protocol),
            );
        }
        response
    }
}

/// A granted upgrade that did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the connection was not handed over: {0}")]
    HandOver(#[from] hyper::Error),
    /// The client left, or did not open its streams in time.
    #[error("the client did not open its streams")]
    NoStreams,
}
