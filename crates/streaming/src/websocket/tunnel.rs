//! One pipe of bytes inside binary WebSocket messages, whose borders mean nothing. Kubernetes carries SPDY in it
//! (`SPDY/3.1+portforward.k8s.io`), because proxies let WebSocket pass and SPDY not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::frame::{Event, FrameReader, Message, NORMAL_CLOSURE};
use super::writer::{Out, write_messages};
use crate::pipe::{self, CHUNK_BYTES, Framing, Inbound, Inlet, Outbound, Outbox};
use crate::wire::Wire;

pub(crate) struct Tunnel {
    inbound: Inbound,
    outbound: Outbound<TunnelFraming>,
    _wire: Wire,
}

struct TunnelFraming;

impl Framing for TunnelFraming {
    type Frame = Out;

    fn data(&self, bytes: Bytes) -> Out {
        Out::Message(Message::Binary { channel: None, bytes })
    }

    fn end(&self) -> Option<Out> {
        Some(Out::Message(Message::Close(NORMAL_CLOSURE)))
    }

    fn refused(&self) -> bool {
        false
    }
}

impl Tunnel {
    pub(crate) fn start<T>(io: T) -> Tunnel
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (outbox, outgoing) = pipe::outbox();
        let (inlet, inbound) = pipe::inbound();
        let gone = CancellationToken::new();
        let frames = FrameReader::new(BufReader::with_capacity(CHUNK_BYTES, read));
        let reader = tokio::spawn(read_bytes(frames, inlet, outbox.clone(), gone.clone()));
        let writer = tokio::spawn(write_messages(write, outgoing, None, gone.clone()));
        Tunnel {
            inbound,
            outbound: Outbound::new(TunnelFraming, outbox),
            _wire: Wire::new(reader, writer, gone),
        }
    }
}

async fn read_bytes<R>(mut frames: FrameReader<R>, inlet: Inlet, outbox: Outbox<Out>, gone: CancellationToken)
where
    R: AsyncRead + Unpin,
{
    let _gone = gone.drop_guard();
    loop {
        match frames.next().await {
            Ok(Some(Event::Piece { bytes, .. })) => inlet.data(bytes).await,
            Ok(Some(Event::Ping(bytes))) => {
                outbox.send(Out::Message(Message::Pong(bytes))).await;
            }
            Ok(Some(Event::Pong)) => {}
            Ok(Some(Event::Close)) => {
                outbox.send_now(Out::Message(Message::Close(NORMAL_CLOSURE)));
                return inlet.end().await;
            }
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "a tunnel broke"),
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inbound).poll_read(cx, out)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.outbound).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.outbound).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.outbound).poll_shutdown(cx)
    }
}
