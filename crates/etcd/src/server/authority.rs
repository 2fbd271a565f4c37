//! What etcdctl 3.4 takes for an authority.
//!
//! Where it is given an endpoint with a scheme, its `endpoint status` and some others ask for `:authority: http://HOST:PORT`. That
//! is none (RFC 9113, 8.3.1), so that our HTTP/2 library refuses the stream, while etcd's takes it. Nobody here asks for the
//! authority. So `://` is replaced by what may stand there and is as long in HPACK's code (RFC 7541, appendix B): no
//! length and no table of the connection changes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// What may be sent unless more was offered, and more is not.
const FRAME_BYTES_MAX: usize = 16 << 10;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// A connection whose headers are put right while they are read.
pub struct Forgiving<I> {
    inner: I,
    at: At,
    /// Read and not yet given on.
    held: BytesMut,
    /// How much of that was looked at.
    seen: usize,
}

/// Where in the connection the next byte is that was not looked at.
enum At {
    Preface,
    Frame,
    /// In a frame that matters to nobody here, so many bytes before its end.
    Within(usize),
    /// No HTTP/2, or a client whose first authority is a good one: a client keeps to one.
    Good,
}

impl<I> Forgiving<I> {
    pub fn new(inner: I) -> Forgiving<I> {
        Forgiving {
            inner,
            at: At::Preface,
            held: BytesMut::new(),
            seen: 0,
        }
    }

    fn look(&mut self) {
        loop {
            let rest = &mut self.held[self.seen..];
            match self.at {
                At::Preface if rest.len() < PREFACE.len() && PREFACE.starts_with(rest) => return,
                At::Preface if rest.starts_with(PREFACE) => {
                    self.seen += PREFACE.len();
                    self.at = At::Frame;
                }
                At::Preface => self.at = At::Good,
                At::Frame => {
                    let Some(header) = rest.first_chunk::<FRAME_HEADER_BYTES>() else {
                        return;
                    };
                    let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
                    let (kind, flags) = (header[3], header[4]);
                    let end = FRAME_HEADER_BYTES + length;
                    if kind != HEADERS {
                        self.at = At::Within(end);
                    } else if length > FRAME_BYTES_MAX {
                        self.at = At::Good;
                    } else if rest.len() < end {
                        return;
                    } else if put_right(flags, &mut rest[FRAME_HEADER_BYTES..end]).is_some() {
                        self.seen += end;
                    } else {
                        self.at = At::Good;
                    }
                }
                At::Within(0) => self.at = At::Frame,
                At::Within(_) if rest.is_empty() => return,
                At::Within(left) => {
                    let some = left.min(rest.len());
                    self.seen += some;
                    self.at = At::Within(left - some);
                }
                At::Good => {
                    self.seen = self.held.len();
                    return;
                }
            }
        }
    }
}

/// `Some` if there was something to put right.
fn put_right(flags: u8, payload: &mut [u8]) -> Option<()> {
    let mut at = 0;
    if flags & PADDED != 0 {
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let mut block = payload.get_mut(at..)?;
    loop {
        let first = *block.first()?;
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let (number, length) = integer(block, prefix)?;
        block = &mut block[length..];
        if first >= 0x80 || (0x20..0x40).contains(&first) {
            continue;
        }
        if number == 0 {
            let (_, name) = string(block)?;
            block = &mut block[name.end..];
        }
        let (is_coded, value) = string(block)?;
        if number == AUTHORITY {
            return without_scheme(is_coded, &mut block[value]);
        }
        block = &mut block[value.end..];
    }
}

/// RFC 7541, 5.1: the number, and the bytes that it takes.
fn integer(block: &[u8], prefix: u32) -> Option<(usize, usize)> {
    let full = (1 << prefix) - 1;
    let mut number = usize::from(*block.first()?) & full;
    if number < full {
        return Some((number, 1));
    }
    // Three more bytes say more than a frame can have.
    for (place, byte) in block.get(1..)?.iter().take(3).enumerate() {
        number += usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, 2 + place));
        }
    }
    None
}

/// Whether it is in Huffman's code, and where it is.
fn string(block: &[u8]) -> Option<(bool, std::ops::Range<usize>)> {
    let is_coded = block.first()? & 0x80 != 0;
    let (length, begin) = integer(block, 7)?;
    let range = begin..begin + length;
    (range.end <= block.len()).then_some((is_coded, range))
}

/// Codes of `h t t p s : /`, most significant bit first, and their lengths.
const H: (u64, u32) = (0b10_0111, 6);
const T: (u64, u32) = (0b0_1001, 5);
const P: (u64, u32) = (0b10_1011, 6);
const S: (u64, u32) = (0b0_1000, 5);
const COLON: (u64, u32) = (0b101_1100, 7);
const SLASH: (u64, u32) = (0b01_1000, 6);
/// Those of `B` and `-`, as long as the two before.
const B: (u64, u32) = (0b101_1101, 7);
const DASH: (u64, u32) = (0b01_0110, 6);

/// At the high end of a number, with how many bits it has.
const fn coded(codes: &[(u64, u32)]) -> (u64, u32) {
    let (mut bits, mut count, mut at) = (0, 0, 0);
    while at < codes.len() {
        bits = bits << codes[at].1 | codes[at].0;
        count += codes[at].1;
        at += 1;
    }
    (bits << (64 - count), count)
}

fn without_scheme(is_coded: bool, value: &mut [u8]) -> Option<()> {
    if !is_coded {
        let scheme = [&b"http://"[..], b"https://"];
        let length = scheme.iter().find(|scheme| value.starts_with(scheme))?.len();
        value[length - 3..length].copy_from_slice(b"B--");
        return Some(());
    }
    const SCHEMES: [((u64, u32), (u64, u32)); 2] = [
        (
            coded(&[H, T, T, P, COLON, SLASH, SLASH]),
            coded(&[H, T, T, P, B, DASH, DASH]),
        ),
        (
            coded(&[H, T, T, P, S, COLON, SLASH, SLASH]),
            coded(&[H, T, T, P, S, B, DASH, DASH]),
        ),
    ];
    let mut begin = [0; 8];
    let length = value.len().min(begin.len());
    begin[..length].copy_from_slice(&value[..length]);
    let bits = u64::from_be_bytes(begin);
    for ((scheme, count), (other, _)) in SCHEMES {
        let rest = u64::MAX >> count;
        if bits & !rest == scheme && length * 8 >= count as usize {
            let begin = (other | bits & rest).to_be_bytes();
            value[..length].copy_from_slice(&begin[..length]);
            return Some(());
        }
    }
    None
}

impl<I: AsyncRead + Unpin> AsyncRead for Forgiving<I> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.seen > 0 {
                let some = this.seen.min(out.remaining());
                out.put_slice(&this.held[..some]);
                this.held.advance(some);
                this.seen -= some;
                return Poll::Ready(Ok(()));
            }
            if matches!(this.at, At::Good) && this.held.is_empty() {
                return Pin::new(&mut this.inner).poll_read(context, out);
            }
            if ready!(poll_read_buf(Pin::new(&mut this.inner), context, &mut this.held))? == 0 {
                // Nothing more comes: what was held back is given on as it is.
                this.at = At::Good;
            }
            this.look();
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Forgiving<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// `http://127.0.0.1:22379`, and what becomes of it, in Huffman's code.
    const CODED: [&[u8]; 2] = [
        b"\x9d\x29\xae\xe3\x0c\x04\x4e\xae\x05\xc0\xb8\x6e\x08\x4c\xba\xff",
        b"\x9d\x29\xae\xea\xcb\x04\x4e\xae\x05\xc0\xb8\x6e\x08\x4c\xba\xff",
    ];

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// POST, http, a path spelled out, and the authority.
    fn headers(is_coded: bool, authority: &[u8]) -> Vec<u8> {
        let mark = if is_coded { 0x80 } else { 0 };
        let path = b"\x04\x05/path";
        [
            &[0x83, 0x86][..],
            path,
            &[0x41, mark | authority.len() as u8],
            authority,
            &[0x40, 1, b'a', 1, b'b'],
        ]
        .concat()
    }

    /// What is read when it is sent in pieces of so many bytes.
    async fn read(bytes: &[u8], piece: usize) -> Vec<u8> {
        let (mut near, far) = tokio::io::duplex(piece);
        let sent = bytes.to_vec();
        let sending = tokio::spawn(async move { near.write_all(&sent).await });
        let mut got = Vec::new();
        Forgiving::new(far).read_to_end(&mut got).await.unwrap();
        sending.await.unwrap().unwrap();
        got
    }

    #[tokio::test]
    async fn an_authority_with_a_scheme_is_made_one_that_may_be() {
        let pairs: [(bool, &[u8], &[u8]); 4] = [
            (false, b"http://[::1]:2379", b"httpB--[::1]:2379"),
            (false, b"https://store:2379", b"httpsB--store:2379"),
            (true, CODED[0], CODED[1]),
            (false, b"http://", b"httpB--"),
        ];
        for (is_coded, authority, other) in pairs {
            let whole = |authority: &[u8], flags: u8, before: &[u8]| {
                let block = [before, &headers(is_coded, authority)].concat();
                [
                    PREFACE,
                    &frame(4, 0, &[0; 12]),
                    &frame(HEADERS, flags, &block),
                    &frame(0, 0, b"http://data"),
                    &frame(HEADERS, flags, &block),
                ]
                .concat()
            };
            for (flags, before) in [(0, &b""[..]), (PADDED, b"\0"), (PADDED | PRIORITY, b"\0\0\0\0\0\0")] {
                let (sent, wanted) = (whole(authority, flags, before), whole(other, flags, before));
                for piece in [1, 2, 7, 30, 4096] {
                    assert_eq!(read(&sent, piece).await, wanted, "in pieces of {piece}");
                }
            }
        }
    }

    #[tokio::test]
    async fn all_else_is_left_as_it_is() {
        let good = headers(false, b"127.0.0.1:2379");
        let bad = headers(false, b"http://127.0.0.1:2379");
        for sent in [
            &b"GET /health HTTP/1.1\r\nHost: http://a\r\n\r\n"[..],
            b"PRI",
            b"",
            &PREFACE[..10],
            // Whose first authority is good is believed from then on.
            &[PREFACE, &frame(HEADERS, 0, &good), &frame(HEADERS, 0, &bad)].concat(),
            // Cut off.
            &[PREFACE, &frame(HEADERS, 0, &bad)[..20]].concat(),
            &[PREFACE, &frame(HEADERS, 0, &bad[..12])].concat(),
            &[PREFACE, &frame(HEADERS, PADDED | PRIORITY, b"\0")].concat(),
            // Numbers without end, and one that no frame has room for.
            &[PREFACE, &frame(HEADERS, 0, b"\xff\xff\xff\xff\xff\xff")].concat(),
            &[PREFACE, &frame(HEADERS, 0, b"\x41\xff\xff\x7fhttp://")].concat(),
            &[PREFACE, b"\xff\xff\xff\x01\0\0\0\0\0http://"].concat(),
        ] {
            for piece in [1, 5, 4096] {
                assert_eq!(read(sent, piece).await, sent);
            }
        }
    }
}
