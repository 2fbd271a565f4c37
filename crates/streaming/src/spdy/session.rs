//! One connection's streams: a reader and a writer task around a table.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frame::{FIN, Frame, Head, PROTOCOL_ERROR, REFUSED_STREAM, SpdyError};
use super::headers::{Headers, Packer, Unpacker};
use crate::pipe::{self, CHUNK_BYTES, Framing, Inbound, Inlet, Outbound, Outbox, Outgoing};
use crate::wire::Wire;

/// Streams open at a time on one connection: five are an exec, two a forwarded connection, so that one port-forward
/// serves 128 connections at once. With [`crate::pipe`]'s bound they hold 32 MiB at worst.
const STREAMS_MAX: usize = 256;

/// Streams the peer has opened and [`Session::accept`] has not taken; further ones are refused.
const ACCEPT_QUEUE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// A connection. Dropping it breaks all its streams; [`Session::close`] lets them end.
pub struct Session {
    accepted: mpsc::Receiver<Stream>,
    shared: Arc<Shared>,
    wire: Wire,
}

struct Shared {
    outbox: Outbox<Out>,
    table: Mutex<Table>,
}

struct Table {
    streams: HashMap<u32, Entry>,
    next_own: u32,
    last_peer: u32,
    /// No stream can be opened any more.
    closed: bool,
}

struct Entry {
    /// None once the peer has ended its half.
    inlet: Option<Inlet>,
    own_half_open: bool,
    reset: Arc<AtomicBool>,
    reply: Option<oneshot::Sender<()>>,
}

enum Out {
    Frame(Frame),
    /// Our half of the stream has ended; its entry may go.
    End(u32),
    Reset {
        stream: u32,
        status: u32,
    },
    Close,
}

impl Session {
    pub fn new<T>(io: T, role: Role) -> Session
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (outbox, outgoing) = pipe::outbox();
        let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
        let shared = Arc::new(Shared {
            outbox,
            table: Mutex::new(Table {
                streams: HashMap::new(),
                next_own: if role == Role::Client { 1 } else { 2 },
                last_peer: 0,
                closed: false,
            }),
        });
        let gone = CancellationToken::new();
        let reader = Reader {
            io: BufReader::with_capacity(CHUNK_BYTES, read),
            unpacker: Unpacker::new(),
            shared: Arc::clone(&shared),
            accept,
            role,
        };
        let reader = tokio::spawn(reader.run(gone.clone()));
        let writer = tokio::spawn(write_frames(write, outgoing, Arc::clone(&shared), gone.clone()));
        Session {
            accepted,
            shared,
            wire: Wire::new(reader, writer, gone),
        }
    }

    /// The next stream that the peer opens; none once the connection is gone. Answer it with [`Stream::reply`] or
    /// [`Stream::refuse`].
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// Opens a stream and waits until the peer has taken it.
    pub async fn open(&self, headers: Headers) -> Result<Stream, SpdyError> {
        let (replied, reply) = oneshot::channel();
        let stream = {
            let mut table = self.shared.table();
            if table.closed || table.streams.len() >= STREAMS_MAX {
                return Err(SpdyError::Closed);
            }
            let id = table.next_own;
            table.next_own += 2;
            Stream::new(id, headers.clone(), true, Some(replied), &self.shared, &mut table)
        };
        let frame = Frame::SynStream {
            stream: stream.id,
            headers,
            fin: false,
        };
        if !self.shared.outbox.send(Out::Frame(frame)).await {
            return Err(SpdyError::Closed);
        }
        reply.await.map_err(|_| SpdyError::Refused)?;
        Ok(stream)
    }

    /// Cancelled once the connection is gone.
    pub fn gone(&self) -> CancellationToken {
        self.wire.gone()
    }

    /// Says good-bye after all that was written, and waits a little for the peer to hang up. Streams not ended yet are
    /// cut.
    pub async fn close(self) {
        self.shared.table().closed = true;
        self.shared.outbox.send_now(Out::Close);
        drop(self.accepted);
        self.wire.drain().await;
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds the table")
    }
}

impl Table {
    /// Forgets a stream that both sides have ended.
    fn settle(&mut self, stream: u32) {
        if let Some(entry) = self.streams.get(&stream)
            && entry.inlet.is_none()
            && !entry.own_half_open
        {
            self.streams.remove(&stream);
        }
    }
}

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
    fn new(
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

struct Reader<T> {
    io: BufReader<ReadHalf<T>>,
    unpacker: Unpacker,
    shared: Arc<Shared>,
    accept: mpsc::Sender<Stream>,
    role: Role,
}

impl<T: AsyncRead + Send + 'static> Reader<T> {
    async fn run(mut self, gone: CancellationToken) {
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

async fn write_frames<T>(
    mut io: WriteHalf<T>,
    mut outgoing: Outgoing<Out>,
    shared: Arc<Shared>,
    gone: CancellationToken,
) where
    T: AsyncWrite + Send + 'static,
{
    let result = write_until_closed(&mut io, &mut outgoing, &shared).await;
    if let Err(error) = result {
        tracing::debug!(%error, "a SPDY connection could not be written");
        gone.cancel();
    }
    let _ = io.shutdown().await;
}

async fn write_until_closed<T>(io: &mut WriteHalf<T>, outgoing: &mut Outgoing<Out>, shared: &Shared) -> io::Result<()>
where
    T: AsyncWrite,
{
    let mut packer = Packer::new();
    let mut bytes = BytesMut::with_capacity(CHUNK_BYTES + 64);
    while let Some(out) = outgoing.next().await {
        let mut next = Some(out);
        while let Some(out) = next {
            let (frame, last) = framed(out, shared);
            frame.encode(&mut packer, &mut bytes);
            io.write_all(&bytes).await?;
            bytes.clear();
            if last {
                return io.flush().await;
            }
            next = outgoing.ready();
        }
        io.flush().await?;
    }
    Ok(())
}

/// The frame for it, and whether it is the connection's last. The table changes when the frame is on its way, so that a
/// peer that doesn't read cannot open and abandon streams faster than it is told of their end.
fn framed(out: Out, shared: &Shared) -> (Frame, bool) {
    match out {
        Out::Frame(frame) => (frame, false),
        Out::End(stream) => {
            let mut table = shared.table();
            let Some(entry) = table.streams.get_mut(&stream) else {
                // Reset by either side before.
                return (Frame::Ignored, false);
            };
            entry.own_half_open = false;
            table.settle(stream);
            let fin = Frame::Data {
                stream,
                bytes: Bytes::new(),
                fin: true,
            };
            (fin, false)
        }
        Out::Reset { stream, status } => {
            shared.table().streams.remove(&stream);
            (Frame::Reset { stream, status }, false)
        }
        Out::Close => {
            let last_stream = shared.table().last_peer;
            (Frame::GoAway { last_stream }, true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Session, Session) {
        let (a, b) = tokio::io::duplex(4096);
        (Session::new(a, Role::Client), Session::new(b, Role::Server))
    }

    async fn open(client: &Session, server: &mut Session, kind: &str) -> (Stream, Stream) {
        let accept = async {
            let stream = server.accept().await.unwrap();
            stream.reply().await;
            stream
        };
        let (opened, accepted) = tokio::join!(client.open(Headers::from([("streamtype", kind)])), accept);
        (opened.unwrap(), accepted)
    }

    #[tokio::test]
    async fn large_writes_pass_both_ways_at_once_and_end() {
        let (client, mut server) = pair();
        let (there, here) = open(&client, &mut server, "data").await;
        assert_eq!(here.headers().get("streamtype"), Some("data"));
        let (mut there_read, mut there_write) = there.split();
        let (mut here_read, mut here_write) = here.split();
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n * 31 % 251) as u8).collect();

        let echo = async {
            tokio::io::copy(&mut here_read, &mut here_write).await.unwrap();
            here_write.shutdown().await.unwrap();
        };
        let send = async {
            there_write.write_all(&sent).await.unwrap();
            there_write.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), (), received) = tokio::join!(echo, send, there_read.read_to_end(&mut got));

        assert_eq!(received.unwrap(), sent.len());
        assert!(got == sent);
        assert!(client.shared.table().streams.is_empty());
        assert!(server.shared.table().streams.is_empty());
    }

    #[tokio::test]
    async fn a_refused_stream_is_an_error_to_its_opener() {
        let (client, mut server) = pair();
        let refuse = async { server.accept().await.unwrap().refuse() };

        let (opened, ()) = tokio::join!(client.open(Headers::default()), refuse);

        assert!(matches!(opened, Err(SpdyError::Refused)));
        assert!(server.shared.table().streams.is_empty());
    }

    #[tokio::test]
    async fn a_broken_connection_is_an_error_to_readers_and_no_end() {
        let (client, mut server) = pair();
        let (_there, here) = open(&client, &mut server, "stdin").await;
        let gone = server.gone();

        drop(client);

        let (mut read, _write) = here.split();
        let error = read.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        gone.cancelled().await;
        assert!(server.accept().await.is_none());
    }

    #[tokio::test]
    async fn closing_delivers_what_was_written() {
        let (client, mut server) = pair();
        let (there, here) = open(&client, &mut server, "error").await;
        let (mut there_read, _there_write) = there.split();
        let (_, mut here_write) = here.split();

        here_write.write_all(&[7; 100_000]).await.unwrap();
        drop(here_write);
        let mut got = Vec::new();
        let read = async {
            there_read.read_to_end(&mut got).await.unwrap();
            drop(client);
        };
        tokio::join!(server.close(), read);

        assert_eq!(got.len(), 100_000);
    }

    #[tokio::test]
    async fn streams_beyond_the_bound_are_refused() {
        let (client, server) = pair();
        // Nobody accepts: the queue takes its fill, one more is refused.
        let opens = futures::future::select_ok((0..=ACCEPT_QUEUE).map(|_| Box::pin(client.open(Headers::default()))));

        let refused = tokio::time::timeout(std::time::Duration::from_millis(300), opens).await;

        // None is ever taken, and the refused ones alone came back, so that the others still wait.
        assert!(refused.is_err());
        assert_eq!(server.shared.table().streams.len(), ACCEPT_QUEUE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_from_a_peer_end_in_order(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8), control: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut peer, ours) = tokio::io::duplex(1 << 16);
                let mut session = Session::new(ours, Role::Server);
                for (kind, chunk) in chunks.iter().enumerate() {
                    if control {
                        let mut head = vec![0x80, 3, 0, kind as u8 + 1, 1, 0, 0, chunk.len() as u8];
                        head.extend_from_slice(chunk);
                        let _ = peer.write_all(&head).await;
                    } else {
                        let _ = peer.write_all(chunk).await;
                    }
                }
                let _ = peer.shutdown().await;
                while session.accept().await.is_some() {}
                session.gone().cancelled().await;
            });
        }
    }
}
