//! The two ends of a stream inside a multiplexed connection: chunks in with back-pressure, frames out through the
//! connection's one writer. Both framings are built of these.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSemaphore;

/// Payloads pass in pieces of at most this size, however large the peer's frame or our writer's buffer is.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;

/// What one stream holds that its reader has not taken: 8 chunks, 128 KiB. Then the connection is not read on, as
/// SPDY/3.1 without flow control (which is what Kubernetes speaks) knows no other way to say "wait".
const INBOUND_CHUNKS: usize = 8;

/// Frames waiting for the connection's writer, over all its streams: 16 chunks, 256 KiB.
pub(crate) const OUTBOX_FRAMES: usize = 16;

enum Chunk {
    Data(Bytes),
    End,
}

/// What the connection's reader puts a stream's bytes into.
#[derive(Clone)]
pub(crate) struct Inlet {
    chunks: mpsc::Sender<Chunk>,
}

/// The stream's bytes, as its owner reads them. Ends with an error if the connection broke before the peer ended the
/// stream.
pub struct Inbound {
    chunks: mpsc::Receiver<Chunk>,
    rest: Bytes,
    ended: bool,
}

pub(crate) fn inbound() -> (Inlet, Inbound) {
    let (sender, receiver) = mpsc::channel(INBOUND_CHUNKS);
    let inbound = Inbound {
        chunks: receiver,
        rest: Bytes::new(),
        ended: false,
    };
    (Inlet { chunks: sender }, inbound)
}

impl Inlet {
    /// Waits until there is room. Bytes that nobody will read any more are dropped: the peer learns of it by the
    /// stream's end, as it does from a kubelet.
    pub(crate) async fn data(&self, bytes: Bytes) {
        if !bytes.is_empty() {
            let _ = self.chunks.send(Chunk::Data(bytes)).await;
        }
    }

    pub(crate) async fn end(&self) {
        let _ = self.chunks.send(Chunk::End).await;
    }
}

impl AsyncRead for Inbound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.chunks.poll_recv(cx)) {
                Some(Chunk::Data(bytes)) => self.rest = bytes,
                Some(Chunk::End) => self.ended = true,
                None => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        "the connection broke before the stream's end",
                    )));
                }
            }
        }
        let taken = self.rest.len().min(out.remaining());
        out.put_slice(&self.rest[..taken]);
        self.rest.advance(taken);
        Poll::Ready(Ok(()))
    }
}

/// The queue in front of a connection's one writer.
pub(crate) struct Outbox<F> {
    frames: mpsc::UnboundedSender<(F, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
}

impl<F> Clone for Outbox<F> {
    fn clone(&self) -> Self {
        Outbox {
            frames: self.frames.clone(),
            room: Arc::clone(&self.room),
        }
    }
}

/// The writer's end. Its drop fails all who wait for room.
pub(crate) struct Outgoing<F> {
    frames: mpsc::UnboundedReceiver<(F, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
}

pub(crate) fn outbox<F>() -> (Outbox<F>, Outgoing<F>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(OUTBOX_FRAMES));
    let outgoing = Outgoing {
        frames: receiver,
        room: Arc::clone(&room),
    };
    (Outbox { frames: sender, room }, outgoing)
}

impl<F> Outbox<F> {
    /// Waits for room. False once the connection cannot be written any more.
    pub(crate) async fn send(&self, frame: F) -> bool {
        match Arc::clone(&self.room).acquire_owned().await {
            Ok(permit) => self.frames.send((frame, Some(permit))).is_ok(),
            Err(_) => false,
        }
    }

    /// Without waiting, for frames of which each stream can cause one or two only (its end, its reset), so that their
    /// number is bounded by that of streams.
    pub(crate) fn send_now(&self, frame: F) {
        let _ = self.frames.send((frame, None));
    }
}

impl<F> Outgoing<F> {
    pub(crate) async fn next(&mut self) -> Option<F> {
        // The permit is given back here: the frame that is being written is one more than the bound.
        self.frames.recv().await.map(|(frame, _permit)| frame)
    }

    /// A frame that is already there.
    pub(crate) fn ready(&mut self) -> Option<F> {
        self.frames.try_recv().ok().map(|(frame, _permit)| frame)
    }
}

impl<F> Drop for Outgoing<F> {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// How a stream's bytes become its connection's frames.
pub(crate) trait Framing: Send + Unpin + 'static {
    type Frame: Send + 'static;

    fn data(&self, bytes: Bytes) -> Self::Frame;

    /// What tells the peer that no more will come, if the protocol has a word for it.
    fn end(&self) -> Option<Self::Frame>;

    /// Whether the peer has said that it wants no more.
    fn refused(&self) -> bool;
}

/// A stream's bytes, as its owner writes them. Shutting down or dropping it ends the stream.
pub(crate) struct Outbound<K: Framing> {
    framing: K,
    outbox: Outbox<K::Frame>,
    room: PollSemaphore,
    ended: bool,
}

impl<K: Framing> Outbound<K> {
    pub(crate) fn new(framing: K, outbox: Outbox<K::Frame>) -> Outbound<K> {
        let room = PollSemaphore::new(Arc::clone(&outbox.room));
        Outbound {
            framing,
            outbox,
            room,
            ended: false,
        }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true)
            && let Some(frame) = self.framing.end()
        {
            self.outbox.send_now(frame);
        }
    }
}

impl<K: Framing> AsyncWrite for Outbound<K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended || self.framing.refused() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(permit) = ready!(self.room.poll_acquire(cx)) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let taken = bytes.len().min(CHUNK_BYTES);
        let frame = self.framing.data(Bytes::copy_from_slice(&bytes[..taken]));
        if self.outbox.frames.send((frame, Some(permit))).is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Ready(Ok(taken))
    }

    /// The writer flushes whenever its queue is empty, so there is nothing to push.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl<K: Framing> Drop for Outbound<K> {
    fn drop(&mut self) {
        self.end();
    }
}
