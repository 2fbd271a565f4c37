//! Frames on the wire (RFC 6455, section 5), read in pieces so that a message's size is the peer's affair.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::pipe::CHUNK_BYTES;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

pub(crate) const NORMAL_CLOSURE: u16 = 1000;

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A piece of a data message, text or binary; empty ones only where a message has no bytes or ends without more.
    Piece {
        starts: bool,
        ends: bool,
        bytes: Bytes,
    },
    Ping(Bytes),
    Pong,
    Close,
}

/// What we send.
pub(crate) enum Message {
    Binary { channel: Option<u8>, bytes: Bytes },
    Text(String),
    Pong(Bytes),
    Close(u16),
}

impl Message {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Binary { channel, bytes } => {
                head(out, BINARY, bytes.len() + usize::from(channel.is_some()));
                if let Some(channel) = channel {
                    out.put_u8(*channel);
                }
                out.put_slice(bytes);
            }
            Message::Text(text) => {
                head(out, TEXT, text.len());
                out.put_slice(text.as_bytes());
            }
            Message::Pong(bytes) => {
                head(out, PONG, bytes.len());
                out.put_slice(bytes);
            }
            Message::Close(code) => {
                head(out, CLOSE, 2);
                out.put_u16(*code);
            }
        }
    }
}

fn head(out: &mut BytesMut, opcode: u8, length: usize) {
    out.put_u8(0x80 | opcode);
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

/// Reads a client's frames.
pub(crate) struct FrameReader<R> {
    io: R,
    /// The data frame that is being read.
    current: Option<DataFrame>,
    /// A message has begun and its last frame has not come.
    in_message: bool,
}

struct DataFrame {
    left: u64,
    last: bool,
    starts: bool,
    mask: [u8; 4],
    mask_at: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> FrameReader<R> {
        FrameReader {
            io,
            current: None,
            in_message: false,
        }
    }

    /// The next event; none when the peer has hung up between frames.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Event>> {
        if let Some(frame) = &mut self.current {
            let piece = read_piece(&mut self.io, frame).await?;
            if frame.left == 0 {
                self.in_message = !frame.last;
                self.current = None;
            }
            return Ok(Some(piece));
        }

        let mut start = [0; 2];
        match self.io.read_exact(&mut start).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (last, opcode) = (start[0] & 0x80 != 0, start[0] & 0x0f);
        if start[0] & 0x70 != 0 {
            return Err(broken("a frame with reserved bits"));
        }
        if start[1] & 0x80 == 0 {
            return Err(broken("a client's frame without mask"));
        }
        let left = match start[1] & 0x7f {
            126 => u64::from(self.io.read_u16().await?),
            127 => self.io.read_u64().await?,
            length => u64::from(length),
        };
        let mut mask = [0; 4];
        self.io.read_exact(&mut mask).await?;

        match opcode {
            TEXT | BINARY if self.in_message => Err(broken("a message within a message")),
            CONTINUATION if !self.in_message => Err(broken("a continuation of nothing")),
            TEXT | BINARY | CONTINUATION => {
                let mut frame = DataFrame {
                    left,
                    last,
                    starts: opcode != CONTINUATION,
                    mask,
                    mask_at: 0,
                };
                let piece = read_piece(&mut self.io, &mut frame).await?;
                self.in_message = !(last && frame.left == 0);
                if frame.left > 0 {
                    self.current = Some(frame);
                }
                Ok(Some(piece))
            }
            CLOSE | PING | PONG if !last || left > 125 => Err(broken("a control frame in parts or too long")),
            CLOSE | PING | PONG => {
                let mut payload = BytesMut::zeroed(left as usize);
                self.io.read_exact(&mut payload).await?;
                unmask(&mut payload, mask, 0);
                Ok(Some(match opcode {
                    CLOSE => Event::Close,
                    PING => Event::Ping(payload.freeze()),
                    _ => Event::Pong,
                }))
            }
            _ => Err(broken("a frame of unknown kind")),
        }
    }
}

async fn read_piece<R: AsyncRead + Unpin>(io: &mut R, frame: &mut DataFrame) -> io::Result<Event> {
    let mut bytes = BytesMut::zeroed(frame.left.min(CHUNK_BYTES as u64) as usize);
    if !bytes.is_empty() {
        let read = io.read(&mut bytes).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(read);
    }
    unmask(&mut bytes, frame.mask, frame.mask_at);
    frame.mask_at = (frame.mask_at + bytes.len()) % 4;
    frame.left -= bytes.len() as u64;
    Ok(Event::Piece {
        starts: std::mem::take(&mut frame.starts),
        ends: frame.last && frame.left == 0,
        bytes: bytes.freeze(),
    })
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], at: usize) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[(at + index) % 4];
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![opcode | if last { 0x80 } else { 0 }];
        if payload.len() < 126 {
            out.push(0x80 | payload.len() as u8);
        } else {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
        let mask = [9, 8, 7, 6];
        out.extend_from_slice(&mask);
        let mut payload = payload.to_vec();
        unmask(&mut payload, mask, 0);
        out.extend(payload);
        out
    }

    fn piece(starts: bool, ends: bool, bytes: &[u8]) -> Event {
        Event::Piece {
            starts,
            ends,
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    #[tokio::test]
    async fn a_fragmented_message_with_a_ping_inside_is_one_message() {
        let mut wire = masked(BINARY, false, b"\x00he");
        wire.extend(masked(PING, true, b"?"));
        wire.extend(masked(CONTINUATION, false, b"llo"));
        wire.extend(masked(CONTINUATION, true, b""));
        wire.extend(masked(CLOSE, true, &[3, 232]));
        let mut reader = FrameReader::new(wire.as_slice());

        let mut events = Vec::new();
        while let Some(event) = reader.next().await.unwrap() {
            events.push(event);
        }

        assert_eq!(
            events,
            [
                piece(true, false, b"\x00he"),
                Event::Ping(Bytes::from_static(b"?")),
                piece(false, false, b"llo"),
                piece(false, true, b""),
                Event::Close,
            ]
        );
    }

    #[tokio::test]
    async fn a_large_message_comes_in_pieces() {
        let payload: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let wire = masked(BINARY, true, &payload);
        let mut reader = FrameReader::new(wire.as_slice());
        let mut got = Vec::new();

        loop {
            let Some(Event::Piece { ends, bytes, .. }) = reader.next().await.unwrap() else {
                panic!("not a piece")
            };
            assert!(bytes.len() <= CHUNK_BYTES);
            got.extend_from_slice(&bytes);
            if ends {
                break;
            }
        }

        assert!(got == payload);
    }

    #[tokio::test]
    async fn what_the_rfc_forbids_is_an_error() {
        for wire in [
            masked(CONTINUATION, true, b"x"),
            masked(PING, false, b""),
            masked(PING, true, &[0; 126]),
            masked(5, true, b""),
            vec![0x82, 1, b'x'],
            vec![0xc2, 0x80, 0, 0, 0, 0],
            [masked(BINARY, false, b"x"), masked(BINARY, true, b"y")].concat(),
        ] {
            let mut reader = FrameReader::new(wire.as_slice());

            let failed = loop {
                match reader.next().await {
                    Err(error) => break error.kind() == io::ErrorKind::InvalidData,
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                }
            };

            assert!(failed, "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut reader = FrameReader::new(bytes.as_slice());
                while let Ok(Some(_)) = reader.next().await {}
            });
        }
    }
}
