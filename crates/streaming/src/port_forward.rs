//! The far end of port-forward: pairs of a byte pipe and a place for its error, each for one port.
//!
//! Three forms: SPDY with two streams for each connection; the same SPDY inside a WebSocket tunnel (kubectl since
//! 1.30); and plain WebSocket channels with one connection for each port (kube-rs).

mod spdy_pairs;
mod web_socket_channels;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::handover::{self, Spoken, Transport};
use crate::refusal::{Refusal, SessionError};
use crate::spdy::{self, Role};
use crate::websocket::tunnel::Tunnel;

const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
const V4: &str = "v4.channel.k8s.io";

const SPOKEN: Spoken = Spoken {
    spdy: &[PORT_FORWARD],
    web_socket: &[TUNNELLED, V4],
    unnamed: "",
};

/// Ports that one plain WebSocket request may name: a channel's number is a byte, a port takes two, and 255 is spoken
/// for.
pub const PORTS_MAX: usize = 127;

/// A port-forward whose connections are open or to come. Dropping it breaks them all; [`Forwards::close`] ends it in
/// order.
pub struct Forwards(Kind);

enum Kind {
    Spdy(spdy_pairs::Pairs),
    WebSocket(web_socket_channels::Ports),
}

/// One forwarded connection. It reads and writes as the client's end of it; shutting down or dropping it ends our half.
pub struct Forward {
    pub port: u16,
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    error: Box<dyn AsyncWrite + Send + Unpin>,
}

/// What becomes [`Forwards`] once the client has its answer.
pub type Pending = BoxFuture<'static, Result<Forwards, SessionError>>;

/// Grants the upgrade. Send the response, and await the other on a task of your own. `ports` are those that the request
/// names (see [`ports_from_query`]); over SPDY they come with each connection instead.
pub fn accept<B>(request: &mut Request<B>, ports: &[u16]) -> Result<(Response<Body>, Pending), Refusal> {
    let granted = handover::grant(request, &SPOKEN)?;
    let (transport, protocol, connection) = (granted.transport, granted.protocol, granted.connection);
    let channels = transport == Transport::WebSocket && protocol != TUNNELLED;
    if channels && ports.is_empty() {
        return Err(Refusal::Malformed("the query names no port"));
    }
    if channels && ports.len() > PORTS_MAX {
        return Err(Refusal::TooManyPorts(ports.len(), PORTS_MAX));
    }
    let ports = ports.to_vec();
    let forwards = async move {
        let io = TokioIo::new(connection.await?);
        Ok(Forwards(match transport {
            Transport::Spdy => Kind::Spdy(spdy_pairs::Pairs::new(spdy::Session::new(io, Role::Server))),
            Transport::WebSocket if protocol == TUNNELLED => {
                let session = spdy::Session::new(Tunnel::start(io), Role::Server);
                Kind::Spdy(spdy_pairs::Pairs::new(session))
            }
            Transport::WebSocket => Kind::WebSocket(web_socket_channels::Ports::open(io, &ports).await),
        }))
    };
    Ok((granted.response, Box::pin(forwards)))
}

/// The ports of a query string: `ports=80&ports=443` or `ports=80,443` to an API server, `port=80` to a kubelet. What
/// is no port is left out.
pub fn ports_from_query(query: &str) -> Vec<u16> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| matches!(*name, "port" | "ports"))
        .flat_map(|(_, value)| value.split(',').flat_map(|part| part.split("%2C")))
        .filter_map(|port| port.parse().ok())
        .filter(|port| *port != 0)
        .collect()
}

impl Forwards {
    /// The next connection; none once the client has left.
    pub async fn next(&mut self) -> Option<Forward> {
        match &mut self.0 {
            Kind::Spdy(pairs) => pairs.next().await,
            Kind::WebSocket(ports) => ports.next().await,
        }
    }

    /// Cancelled once the client is gone.
    pub fn gone(&self) -> CancellationToken {
        match &self.0 {
            Kind::Spdy(pairs) => pairs.gone(),
            Kind::WebSocket(ports) => ports.gone(),
        }
    }

    /// Closes after all that was written.
    pub async fn close(self) {
        match self.0 {
            Kind::Spdy(pairs) => pairs.close().await,
            Kind::WebSocket(ports) => ports.close().await,
        }
    }
}

impl Forward {
    /// Ends it with a text for the user.
    pub async fn fail(mut self, text: &str) {
        let _ = self.error.write_all(text.as_bytes()).await;
        let _ = self.error.shutdown().await;
        let _ = self.writer.shutdown().await;
    }
}

impl AsyncRead for Forward {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, out)
    }
}

impl AsyncWrite for Forward {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_all_their_spellings() {
        assert_eq!(ports_from_query("ports=80&ports=443"), [80, 443]);
        assert_eq!(ports_from_query("ports=80,443&x=1"), [80, 443]);
        assert_eq!(ports_from_query("port=80&port=0&port=70000&port=a"), [80]);
        assert_eq!(ports_from_query(""), [0u16; 0]);
    }
}
