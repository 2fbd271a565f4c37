//! Frames on the wire (SPDY/3, section 2.2).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Headers, Packer, Unpacker};

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    #[error("SPDY header block: {0}")]
    Headers(&'static str),
    #[error("SPDY frame: {0}")]
    Frame(&'static str),
    #[error("the connection is closed")]
    Closed,
    #[error("the peer refused the stream")]
    Refused,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A control frame's payload. All that we act on fit in some dozens of bytes, packed headers included.
pub(super) const CONTROL_BYTES_MAX: u32 = 16 << 10;

const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;
pub(super) const FIN: u8 = 1;

pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const REFUSED_STREAM: u32 = 3;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The first eight bytes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Control { kind: u16, flags: u8, length: u32 },
    Data { stream: u32, flags: u8, length: u32 },
}

impl Head {
    pub(super) fn parse(bytes: [u8; 8]) -> Result<Head, SpdyError> {
        let mut bytes = bytes.as_slice();
        let word = bytes.get_u32();
        let rest = bytes.get_u32();
        let (flags, length) = ((rest >> 24) as u8, rest & 0x00ff_ffff);
        if word & CONTROL == 0 {
            return Ok(Head::Data {
                stream: word,
                flags,
                length,
            });
        }
        if (word >> 16) as u16 & 0x7fff != VERSION {
            return Err(SpdyError::Frame("another version than 3"));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(SpdyError::Frame("a control frame of more than 16 KiB"));
        }
        Ok(Head::Control {
            kind: word as u16,
            flags,
            length,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    SynReply {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping(u32),
    GoAway {
        last_stream: u32,
    },
    Headers {
        stream: u32,
        headers: Headers,
        fin: bool,
    },
    Data {
        stream: u32,
        bytes: Bytes,
        fin: bool,
    },
    /// Settings, window updates and what later versions may bring: read and left alone.
    Ignored,
}

impl Frame {
    /// Parses a control frame's payload. Header blocks are always unpacked, wanted or not, to keep the stream's state.
    pub(super) fn parse(kind: u16, flags: u8, payload: &[u8], unpacker: &mut Unpacker) -> Result<Frame, SpdyError> {
        let mut rest = payload;
        let fin = flags & FIN != 0;
        let mut number = || {
            rest.try_get_u32()
                .map_err(|_| SpdyError::Frame("a control frame that is too short"))
        };
        match kind {
            SYN_STREAM => {
                let stream = stream_id(number()?)?;
                let _associated = number()?;
                // Priority and slot: two bytes that mean nothing to us.
                let packed = rest
                    .get(2..)
                    .ok_or(SpdyError::Frame("a SYN_STREAM that is too short"))?;
                let headers = unpacker.unpack(packed)?;
                Ok(Frame::SynStream { stream, headers, fin })
            }
            SYN_REPLY | HEADERS => {
                let stream = stream_id(number()?)?;
                let headers = unpacker.unpack(rest)?;
                Ok(if kind == SYN_REPLY {
                    Frame::SynReply { stream, headers, fin }
                } else {
                    Frame::Headers { stream, headers, fin }
                })
            }
            RST_STREAM => Ok(Frame::Reset {
                stream: stream_id(number()?)?,
                status: number()?,
            }),
            PING => Ok(Frame::Ping(number()?)),
            GOAWAY => Ok(Frame::GoAway { last_stream: number()? }),
            // SETTINGS (4), WINDOW_UPDATE (9), and what nobody sends.
            _ => Ok(Frame::Ignored),
        }
    }

    pub(super) fn encode(&self, packer: &mut Packer, out: &mut BytesMut) {
        match self {
            Frame::SynStream { stream, headers, fin } => {
                let packed = packer.pack(headers);
                control(out, SYN_STREAM, *fin, 10 + packed.len());
                out.put_u32(*stream);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&packed);
            }
            Frame::SynReply { stream, headers, fin } => {
                let packed = packer.pack(headers);
                control(out, SYN_REPLY, *fin, 4 + packed.len());
                out.put_u32(*stream);
                out.put_slice(&packed);
            }
            Frame::Headers { stream, headers, fin } => {
                let packed = packer.pack(headers);
                control(out, HEADERS, *fin, 4 + packed.len());
                out.put_u32(*stream);
                out.put_slice(&packed);
            }
            Frame::Reset { stream, status } => {
                control(out, RST_STREAM, false, 8);
                out.put_u32(*stream);
                out.put_u32(*status);
            }
            Frame::Ping(id) => {
                control(out, PING, false, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last_stream } => {
                control(out, GOAWAY, false, 8);
                out.put_u32(*last_stream);
                out.put_u32(0);
            }
            Frame::Data { stream, bytes, fin } => {
                out.put_u32(*stream);
                out.put_u32(u32::from(if *fin { FIN } else { 0 }) << 24 | bytes.len() as u32);
                out.put_slice(bytes);
            }
            Frame::Ignored => {}
        }
    }
}

fn stream_id(word: u32) -> Result<u32, SpdyError> {
    match word & !CONTROL {
        0 => Err(SpdyError::Frame("stream 0")),
        stream => Ok(stream),
    }
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], unpacker: &mut Unpacker) -> Frame {
        let (head, payload) = bytes.split_at(8);
        match Head::parse(head.try_into().unwrap()).unwrap() {
            Head::Control { kind, flags, length } => {
                assert_eq!(length as usize, payload.len());
                Frame::parse(kind, flags, payload, unpacker).unwrap()
            }
            Head::Data { stream, flags, length } => {
                assert_eq!(length as usize, payload.len());
                Frame::Data {
                    stream,
                    bytes: Bytes::copy_from_slice(payload),
                    fin: flags & FIN != 0,
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let headers = Headers::from([("streamtype", "stdin")]);
        let frames = [
            Frame::SynStream {
                stream: 1,
                headers: headers.clone(),
                fin: true,
            },
            Frame::SynReply {
                stream: 1,
                headers: Headers::default(),
                fin: false,
            },
            Frame::Headers {
                stream: 1,
                headers,
                fin: false,
            },
            Frame::Reset {
                stream: 7,
                status: PROTOCOL_ERROR,
            },
            Frame::Ping(3),
            Frame::GoAway { last_stream: 5 },
            Frame::Data {
                stream: 1,
                bytes: Bytes::from_static(b"hello"),
                fin: false,
            },
            Frame::Data {
                stream: 1,
                bytes: Bytes::new(),
                fin: true,
            },
        ];
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        for frame in frames {
            let mut bytes = BytesMut::new();

            frame.encode(&mut packer, &mut bytes);

            assert_eq!(decode(&bytes, &mut unpacker), frame);
        }
    }

    #[test]
    fn a_large_control_frame_is_refused_by_its_head() {
        let head = [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff];

        assert!(matches!(Head::parse(head), Err(SpdyError::Frame(_))));
    }

    proptest! {
        #[test]
        fn any_payload_is_taken_without_panic(kind in 0u16..12, flags: u8, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::parse(kind, flags, &bytes, &mut Unpacker::new());
        }
    }
}
