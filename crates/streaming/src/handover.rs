//! From a request to an upgraded connection in a protocol that both sides speak.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;

use crate::body::{self, Body};
use crate::refusal::Refusal;
use crate::upgrade;
use crate::websocket::handshake;

/// The framing that a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Spdy,
    WebSocket,
}

/// Protocols spoken by a kind of stream, per transport.
pub(crate) struct Spoken {
    pub spdy: &'static [&'static str],
    pub web_socket: &'static [&'static str],
    /// What a client speaks that names none.
    pub unnamed: &'static str,
}

pub(crate) struct Granted {
    pub transport: Transport,
    pub protocol: &'static str,
    pub response: Response<Body>,
    pub connection: OnUpgrade,
}

/// Chooses the protocol and takes the connection out of the request.
pub(crate) fn grant<B>(request: &mut Request<B>, spoken: &Spoken) -> Result<Granted, Refusal> {
    let asked = upgrade::asked(request.headers()).ok_or(Refusal::NoUpgrade)?;
    let transport = if asked.eq_ignore_ascii_case(upgrade::SPDY) {
        Transport::Spdy
    } else if asked.eq_ignore_ascii_case(upgrade::WEBSOCKET) {
        Transport::WebSocket
    } else {
        return Err(Refusal::NoUpgrade);
    };
    if request.version() > Version::HTTP_11 || request.extensions().get::<OnUpgrade>().is_none() {
        return Err(Refusal::NotUpgradable);
    }
    let headers = request.headers();
    let (protocol, response) = match transport {
        Transport::Spdy => {
            let choice = choose(headers, &upgrade::STREAM_PROTOCOL, spoken.spdy)?;
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            upgrade::ask(response.headers_mut(), upgrade::SPDY);
            if let Some(protocol) = choice {
                response
                    .headers_mut()
                    .insert(upgrade::STREAM_PROTOCOL, HeaderValue::from_static(protocol));
            }
            (choice, response)
        }
        Transport::WebSocket => {
            let choice = choose(headers, &header::SEC_WEBSOCKET_PROTOCOL, spoken.web_socket)?;
            let response = handshake::switch(headers, choice.unwrap_or_default()).map_err(Refusal::Malformed)?;
            (choice, response)
        }
    };
    Ok(Granted {
        transport,
        protocol: protocol.unwrap_or(spoken.unnamed),
        response,
        connection: hyper::upgrade::on(request),
    })
}

/// The first of the client's protocols that is spoken; none if it names none.
fn choose(
    headers: &HeaderMap,
    name: &http::HeaderName,
    supported: &'static [&'static str],
) -> Result<Option<&'static str>, Refusal> {
    let offered: Vec<String> = upgrade::listed(headers, name).map(str::to_owned).collect();
    if offered.is_empty() {
        return Ok(None);
    }
    let choice = offered
        .iter()
        .find_map(|offer| supported.iter().find(|have| *have == offer));
    match choice {
        Some(protocol) => Ok(Some(protocol)),
        None => Err(Refusal::Protocol { offered, supported }),
    }
}
