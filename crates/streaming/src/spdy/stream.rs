//! One stream of a connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::frame::{Frame, REFUSED_STREAM};
use super::headers::Headers;
use super::table::{Entry, Out, Shared, Table};
use crate::pipe::{self, Framing, Inbound, Outbound};

/// One stream, both halves.
pub struct Stream {
    id: u32,
    headers: Headers,
    reader: StreamReader,
    writer: StreamWriter,
    shared: Arc<Shared>,
}

/// What the peer sends on a stream.
pub struct StreamReader(Inbound);

/// What we send on a stream; shutting down or dropping it ends our half.
pub struct StreamWriter(Outbound<StreamFraming>);

struct StreamFraming {
    stream: u32,
    reset: Arc<AtomicBool>,
}

impl Framing for StreamFraming {
    type Frame = Out;

    fn data(&self, bytes: Bytes) -> Out {
        Out::Frame(Frame::Data {
            stream: self.stream,
            bytes,
            fin: false,
        })
    }

    fn end(&self) -> Option<Out> {
        Some(Out::End(self.stream))
    }

    fn refused(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

impl Stream {
    pub(super) fn new(
        id: u32,
        headers: Headers,
        peer_half_open: bool,
        reply: Option<oneshot::Sender<()>>,
        shared: &Arc<Shared>,
        table: &mut Table,
    ) -> Stream {
        let (inlet, inbound) = pipe::inbound();
        let reset = Arc::new(AtomicBool::new(false));
        let entry = Entry {
            inlet: peer_half_open.then_some(inlet),
            own_half_open: true,
            reset: Arc::clone(&reset),
            reply,
        };
        table.streams.insert(id, entry);
        Stream {
            id,
            headers,
            reader: StreamReader(inbound),
            writer: StreamWriter(Outbound::new(
                StreamFraming { stream: id, reset },
                shared.outbox.clone(),
            )),
            shared: Arc::clone(shared),
        }
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Takes a stream that the peer has opened.
    pub async fn reply(&self) {
        let reply = Frame::SynReply {
            stream: self.id,
            headers: Headers::default(),
            fin: false,
        };
        self.shared.outbox.send(Out::Frame(reply)).await;
    }

    /// Refuses it.
    pub fn refuse(self) {
        self.shared.outbox.send_now(Out::Reset {
            stream: self.id,
            status: REFUSED_STREAM,
        });
    }

    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
