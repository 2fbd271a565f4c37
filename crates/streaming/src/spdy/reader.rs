//! The one task that reads a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{FIN, Frame, Head, PROTOCOL_ERROR, REFUSED_STREAM, SpdyError};
use super::headers::{Headers, Unpacker};
use super::session::Role;
use super::stream::Stream;
use super::table::{Out, STREAMS_MAX, Shared};
use crate::pipe::CHUNK_BYTES;

pub(super) struct Reader<T> {
    pub(super) io: BufReader<ReadHalf<T>>,
    pub(super) unpacker: Unpacker,
    pub(super) shared: Arc<Shared>,
    pub(super) accept: mpsc::Sender<Stream>,
    pub(super) role: Role,
}

impl<T: AsyncRead + Send + 'static> Reader<T> {
    pub(super) async fn run(mut self, gone: CancellationToken) {
        let _cut = Cut {
            shared: Arc::clone(&self.shared),
            gone,
        };
        if let Err(error) = self.read_frames().await {
            tracing::debug!(%error, "a SPDY connection broke");
        }
    }

    async fn read_frames(&mut self) -> Result<(), SpdyError> {
        loop {
            let mut head = [0; 8];
            match self.io.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            match Head::parse(head)? {
                Head::Data { stream: 0, .. } => return Err(SpdyError::Frame("stream 0")),
                Head::Data { stream, flags, length } => self.data(stream, flags, length).await?,
                Head::Control { kind, flags, length } => {
                    let mut payload = vec![0; length as usize];
                    self.io.read_exact(&mut payload).await?;
                    let frame = Frame::parse(kind, flags, &payload, &mut self.unpacker)?;
                    self.control(frame).await;
                }
            }
        }
    }

    /// Passes a payload on in pieces. Without a stream to take it it is dropped: the stream may just have ended.
    async fn data(&mut self, stream: u32, flags: u8, length: u32) -> Result<(), SpdyError> {
        let inlet = self
            .shared
            .table()
            .streams
            .get(&stream)
            .and_then(|entry| entry.inlet.clone());
        let mut left = length as usize;
        while left > 0 {
            let mut piece = BytesMut::zeroed(left.min(CHUNK_BYTES));
            let read = self.io.read(&mut piece).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            left -= read;
            piece.truncate(read);
            if let Some(inlet) = &inlet {
                inlet.data(piece.freeze()).await;
            }
        }
        if flags & FIN != 0 {
            self.peer_ended(stream).await;
        }
        Ok(())
    }

    async fn control(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { stream, headers, fin } => self.opened(stream, headers, fin).await,
            Frame::SynReply { stream, fin, .. } => {
                if let Some(entry) = self.shared.table().streams.get_mut(&stream)
                    && let Some(reply) = entry.reply.take()
                {
                    let _ = reply.send(());
                }
                if fin {
                    self.peer_ended(stream).await;
                }
            }
            Frame::Headers { stream, fin: true, .. } => self.peer_ended(stream).await,
            Frame::Reset { stream, .. } => {
                let entry = self.shared.table().streams.remove(&stream);
                if let Some(entry) = entry {
                    entry.reset.store(true, Ordering::Relaxed);
                    // As spdystream does: what was sent before stands, and then the stream is over.
                    if let Some(inlet) = entry.inlet {
                        inlet.end().await;
                    }
                }
            }
            // Pings with ids of our own parity would answer pings of ours, and we send none.
            Frame::Ping(id) => {
                let peers = if self.role == Role::Server { 1 } else { 0 };
                if id % 2 == peers {
                    self.shared.outbox.send(Out::Frame(Frame::Ping(id))).await;
                }
            }
            Frame::GoAway { .. } => self.shared.table().closed = true,
            Frame::Headers { .. } | Frame::Data { .. } | Frame::Ignored => {}
        }
    }

    async fn opened(&mut self, id: u32, headers: Headers, fin: bool) {
        let peers = if self.role == Role::Server { 1 } else { 0 };
        let opened = {
            let mut table = self.shared.table();
            if id % 2 != peers || id <= table.last_peer {
                Err(PROTOCOL_ERROR)
            } else if table.closed || table.streams.len() >= STREAMS_MAX {
                table.last_peer = id;
                Err(REFUSED_STREAM)
            } else {
                table.last_peer = id;
                Ok(Stream::new(id, headers, true, None, &self.shared, &mut table))
            }
        };
        match opened {
            Ok(stream) => {
                if fin {
                    self.peer_ended(id).await;
                }
                if let Err(refused) = self.accept.try_send(stream) {
                    refused.into_inner().refuse();
                }
            }
            // With a permit: a peer that opens without end waits for its refusals.
            Err(status) => {
                let reset = Frame::Reset { stream: id, status };
                self.shared.outbox.send(Out::Frame(reset)).await;
            }
        }
    }

    async fn peer_ended(&mut self, stream: u32) {
        let inlet = {
            let mut table = self.shared.table();
            let inlet = table.streams.get_mut(&stream).and_then(|entry| entry.inlet.take());
            table.settle(stream);
            inlet
        };
        if let Some(inlet) = inlet {
            inlet.end().await;
        }
    }
}

/// Tells all streams that nothing will come any more, also when the reader is aborted.
struct Cut {
    shared: Arc<Shared>,
    gone: CancellationToken,
}

impl Drop for Cut {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.closed = true;
        // Readers of streams that were not ended learn of the break by their inlet's drop, openers by their reply's.
        for entry in table.streams.values_mut() {
            entry.inlet = None;
            entry.reply = None;
        }
        drop(table);
        self.gone.cancel();
    }
}
