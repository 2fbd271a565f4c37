//! Numbered channels over one WebSocket connection: each message's first byte (or digit, in the base64 protocols) names
//! the channel of the rest.

use std::collections::HashMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio_util::sync::CancellationToken;

use super::frame::{Event, FrameReader, Message, NORMAL_CLOSURE};
use super::writer::{Out, write_messages};
use crate::pipe::{self, CHUNK_BYTES, Framing, Inbound, Inlet, Outbound, Outbox};
use crate::wire::Wire;

/// On this channel a client says which channels it has ended (`v5.channel.k8s.io`).
const CLOSE_CHANNEL: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Binary,
    Base64,
}

/// How a connection is divided.
pub(crate) struct Division<'a> {
    pub encoding: Encoding,
    /// Channels that the client writes.
    pub inputs: &'a [u8],
    /// Close the connection when so many outputs have ended.
    pub outputs: Option<usize>,
}

pub(crate) struct Channels {
    inputs: HashMap<u8, Inbound>,
    outbox: Outbox<Out>,
    encoding: Encoding,
    wire: Wire,
}

impl Channels {
    pub(crate) fn start<T>(io: T, division: &Division) -> Channels
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (outbox, outgoing) = pipe::outbox();
        let (inlets, inputs) = division
            .inputs
            .iter()
            .map(|&channel| {
                let (inlet, inbound) = pipe::inbound();
                ((channel, inlet), (channel, inbound))
            })
            .unzip();
        let gone = CancellationToken::new();
        let reader = Reader {
            frames: FrameReader::new(BufReader::with_capacity(CHUNK_BYTES, read)),
            sorter: Sorter {
                encoding: division.encoding,
                inlets,
                target: Target::Unknown,
            },
            outbox: outbox.clone(),
        };
        let reader = tokio::spawn(reader.run(gone.clone()));
        let writer = tokio::spawn(write_messages(write, outgoing, division.outputs, gone.clone()));
        Channels {
            inputs,
            outbox,
            encoding: division.encoding,
            wire: Wire::new(reader, writer, gone),
        }
    }

    /// What the client writes on a channel; can be had once.
    pub(crate) fn input(&mut self, channel: u8) -> Option<Inbound> {
        self.inputs.remove(&channel)
    }

    pub(crate) fn output(&self, channel: u8) -> Outbound<ChannelFraming> {
        let framing = ChannelFraming {
            channel,
            encoding: self.encoding,
        };
        Outbound::new(framing, self.outbox.clone())
    }

    /// A message at once, however long an output's owner takes to write.
    pub(crate) async fn send(&self, channel: u8, bytes: Bytes) {
        let message = message(self.encoding, channel, bytes);
        self.outbox.send(Out::Message(message)).await;
    }

    pub(crate) fn gone(&self) -> CancellationToken {
        self.wire.gone()
    }

    /// Closes after all that was written, and waits a little for the client to hang up.
    pub(crate) async fn close(self) {
        self.outbox.send_now(Out::Message(Message::Close(NORMAL_CLOSURE)));
        drop(self.inputs);
        self.wire.drain().await;
    }
}

pub(crate) struct ChannelFraming {
    channel: u8,
    encoding: Encoding,
}

impl Framing for ChannelFraming {
    type Frame = Out;

    fn data(&self, bytes: Bytes) -> Out {
        Out::Message(message(self.encoding, self.channel, bytes))
    }

    fn end(&self) -> Option<Out> {
        Some(Out::OutputEnded)
    }

    fn refused(&self) -> bool {
        false
    }
}

fn message(encoding: Encoding, channel: u8, bytes: Bytes) -> Message {
    match encoding {
        Encoding::Binary => Message::Binary {
            channel: Some(channel),
            bytes,
        },
        Encoding::Base64 => Message::Text(format!("{channel}{}", STANDARD.encode(&bytes))),
    }
}

struct Reader<T> {
    frames: FrameReader<BufReader<tokio::io::ReadHalf<T>>>,
    sorter: Sorter,
    outbox: Outbox<Out>,
}

impl<T: AsyncRead + Send> Reader<T> {
    async fn run(mut self, gone: CancellationToken) {
        let _gone = gone.drop_guard();
        match self.read().await {
            // An orderly close ends all inputs in order.
            Ok(()) => self.sorter.end_all().await,
            Err(error) => tracing::debug!(%error, "a WebSocket connection broke"),
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        while let Some(event) = self.frames.next().await? {
            match event {
                Event::Piece { starts, ends, bytes } => self.sorter.piece(starts, ends, bytes).await?,
                Event::Ping(bytes) => {
                    self.outbox.send(Out::Message(Message::Pong(bytes))).await;
                }
                Event::Pong => {}
                Event::Close => {
                    self.outbox.send_now(Out::Message(Message::Close(NORMAL_CLOSURE)));
                    return Ok(());
                }
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Takes messages apart, piece by piece.
struct Sorter {
    encoding: Encoding,
    inlets: HashMap<u8, Inlet>,
    target: Target,
}

enum Target {
    /// The byte that names the channel has not come.
    Unknown,
    Channel {
        channel: u8,
        /// Base64 characters that don't make a group of four yet.
        carry: Vec<u8>,
    },
}

impl Sorter {
    async fn piece(&mut self, starts: bool, ends: bool, mut bytes: Bytes) -> io::Result<()> {
        if starts {
            self.target = Target::Unknown;
        }
        if matches!(self.target, Target::Unknown) && !bytes.is_empty() {
            let first = bytes.get_u8();
            let channel = match self.encoding {
                Encoding::Binary => first,
                Encoding::Base64 => first.wrapping_sub(b'0'),
            };
            self.target = Target::Channel {
                channel,
                carry: Vec::new(),
            };
        }
        let Target::Channel { channel, carry } = &mut self.target else {
            return Ok(());
        };
        let channel = *channel;
        let bytes = match self.encoding {
            Encoding::Binary => bytes,
            Encoding::Base64 => decode(carry, &bytes, ends)?,
        };
        if channel == CLOSE_CHANNEL {
            for ended in bytes {
                if let Some(inlet) = self.inlets.remove(&ended) {
                    inlet.end().await;
                }
            }
        } else if let Some(inlet) = self.inlets.get(&channel) {
            inlet.data(bytes).await;
        }
        Ok(())
    }

    async fn end_all(&mut self) {
        for (_, inlet) in self.inlets.drain() {
            inlet.end().await;
        }
    }
}

/// Decodes what is complete and keeps the rest.
fn decode(carry: &mut Vec<u8>, bytes: &[u8], ends: bool) -> io::Result<Bytes> {
    carry.extend_from_slice(bytes);
    let whole = if ends { carry.len() } else { carry.len() / 4 * 4 };
    let decoded = STANDARD
        .decode(&carry[..whole])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    carry.drain(..whole);
    Ok(decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_in_pieces_is_decoded_as_a_whole() {
        let text = STANDARD.encode("in pieces of any length");
        for length in 1..text.len() {
            let mut carry = Vec::new();
            let mut got = Vec::new();
            let pieces: Vec<_> = text.as_bytes().chunks(length).collect();
            for (at, piece) in pieces.iter().enumerate() {
                got.extend(decode(&mut carry, piece, at + 1 == pieces.len()).unwrap());
            }
            assert_eq!(got, b"in pieces of any length");
        }
    }
}
