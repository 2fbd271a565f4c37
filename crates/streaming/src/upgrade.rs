//! What upgrade a request asks for, and the headers that ask and answer.

use http::{HeaderMap, HeaderName, HeaderValue, header};

pub(crate) const SPDY: &str = "SPDY/3.1";
pub(crate) const WEBSOCKET: &str = "websocket";
pub(crate) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
pub(crate) const ACCEPTED_STREAM_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The protocol that `Connection: Upgrade` and `Upgrade: <protocol>` ask for, if they do.
pub fn asked(headers: &HeaderMap) -> Option<String> {
    let wants = listed(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if !wants {
        return None;
    }
    listed(headers, &header::UPGRADE).next().map(str::to_owned)
}

/// Sets the two headers that ask for, or grant, an upgrade.
pub(crate) fn ask(headers: &mut HeaderMap, protocol: &str) {
    if let Ok(value) = HeaderValue::from_str(protocol) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, value);
    }
}

/// The members of a comma-separated header, over all its lines.
pub(crate) fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}
