//! The server's half of the opening handshake.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use ring::digest;

use crate::body::{self, Body};
use crate::upgrade;

/// RFC 6455, section 1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The 101 for it, or what is wrong with the request. `protocol` is empty where the client named none.
pub(crate) fn switch(headers: &HeaderMap, protocol: &str) -> Result<Response<Body>, &'static str> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version.as_bytes() != b"13") {
        return Err("the WebSocket version must be 13");
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or("a WebSocket request needs Sec-WebSocket-Key")?;
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    upgrade::ask(headers, upgrade::WEBSOCKET);
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key(key.as_bytes()));
    if !protocol.is_empty() {
        let protocol = HeaderValue::from_str(protocol).map_err(|_| "the WebSocket protocol is not a token")?;
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

fn accept_key(key: &[u8]) -> HeaderValue {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(ACCEPT_SUFFIX);
    HeaderValue::from_str(&STANDARD.encode(hash.finish())).expect("base64 is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
