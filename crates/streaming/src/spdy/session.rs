//! One connection's streams: a reader and a writer task around a table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, SpdyError};
use super::headers::{Headers, Unpacker};
use super::reader::Reader;
use super::stream::Stream;
use super::table::{Out, STREAMS_MAX, Shared, Table};
use super::writer::write_frames;
use crate::pipe::{self, CHUNK_BYTES};
use crate::wire::Wire;

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
            stream: stream.id(),
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

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

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
