//! How one file of the log looks: a header, then frames. A frame is one group commit, and is there wholly or not at all.
//!
//! ```text
//! header  "MGRVLOG\0" | version u32 | number u64 | first sequence u64 | nonce u64 | crc32c u32      (little endian)
//! frame   "MGRF" | length u32 | sequence u64 | crc32c(nonce, length, sequence, payload) u32 | payload
//! ```
//!
//! A frame is written only after the one before it is durable. So what is wrong behind the last good frame is a torn
//! write that nobody was told of, and is cut; but if a good frame follows what is wrong, then something durable is
//! damaged, and that is refused. The nonce is why no value that somebody stores can look like a frame. Zeros up to the end
//! of a file are room that was made before it was needed.

use std::path::PathBuf;

/// Of all files of a data directory. A change of any of them raises it.
pub const FORMAT_VERSION: u32 = 3;

pub(crate) const HEADER_BYTES: usize = 40;
pub(crate) const FRAME_HEADER_BYTES: usize = 20;

/// A transaction has at most 16 MiB of puts, but one deletion may name a million keys. Longer frames are never written.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"MGRVLOG\0";
const FRAME_MAGIC: &[u8; 4] = b"MGRF";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub number: u64,
    pub first_sequence: u64,
    pub nonce: u64,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum BadHeader {
    /// Of another format version.
    Other(u32),
    Damaged,
}

pub(crate) fn file_name(number: u64) -> PathBuf {
    format!("log-{number:016x}").into()
}

pub(crate) fn number_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Header, BadHeader> {
        if bytes.get(..8) != Some(MAGIC) {
            return Err(BadHeader::Damaged);
        }
        let version = u32_at(bytes, 8).ok_or(BadHeader::Damaged)?;
        if version != FORMAT_VERSION {
            return Err(BadHeader::Other(version));
        }
        let header = bytes.get(..HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        if u32_at(header, 36) != Some(crc32c::crc32c(&header[..36])) {
            return Err(BadHeader::Damaged);
        }
        let number = |at| u64_at(header, at).ok_or(BadHeader::Damaged);
        Ok(Header {
            number: number(12)?,
            first_sequence: number(20)?,
            nonce: number(28)?,
        })
    }
}

/// `frame` has room for the header in front of the payload; fills it in.
pub(crate) fn seal(frame: &mut [u8], sequence: u64, nonce: u64) {
    let length = (frame.len() - FRAME_HEADER_BYTES) as u32;
    frame[..4].copy_from_slice(FRAME_MAGIC);
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    let crc = checksum(nonce, &frame[4..16], &frame[FRAME_HEADER_BYTES..]);
    frame[16..20].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(nonce: u64, header: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&nonce.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, header), payload)
}

pub(crate) struct Frame<'a> {
    pub sequence: u64,
    pub payload: &'a [u8],
    pub next: usize,
}

/// The frame at `offset` of a whole file, if a good one is there.
pub(crate) fn frame(file: &[u8], offset: usize, nonce: u64) -> Option<Frame<'_>> {
    let rest = file.get(offset..)?;
    let header = rest.get(..FRAME_HEADER_BYTES)?;
    if &header[..4] != FRAME_MAGIC {
        return None;
    }
    let length = u32_at(header, 4)? as usize;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let payload = rest.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length)?;
    (u32_at(header, 16)? == checksum(nonce, &header[4..16], payload)).then_some(Frame {
        sequence: u64_at(header, 8)?,
        payload,
        next: offset + FRAME_HEADER_BYTES + length,
    })
}

/// Whether a good frame begins anywhere from `offset` on.
pub(crate) fn frame_after(file: &[u8], offset: usize, nonce: u64) -> Option<usize> {
    let rest = file.get(offset..)?;
    let starts = rest.windows(4).enumerate().filter(|(_, window)| window == FRAME_MAGIC);
    starts
        .map(|(at, _)| offset + at)
        .find(|at| frame(file, *at, nonce).is_some())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_a_damaged_one_does_not() {
        let header = Header {
            number: 3,
            first_sequence: 700,
            nonce: 42,
        };
        let good = header.encode();
        assert_eq!(good.len(), HEADER_BYTES);
        assert_eq!(Header::decode(&good), Ok(header));
        for at in 0..HEADER_BYTES {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(Header::decode(&bad).is_err(), "byte {at}");
        }
        let mut newer = good;
        newer[8] = 9;
        assert_eq!(Header::decode(&newer), Err(BadHeader::Other(9)));
    }

    #[test]
    fn a_frame_is_read_whole_or_not() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        bytes.extend_from_slice(b"payload");
        seal(&mut bytes, 5, 42);
        let found = frame(&bytes, 0, 42).unwrap();
        assert_eq!(
            (found.sequence, found.payload, found.next),
            (5, &b"payload"[..], bytes.len())
        );
        assert!(frame(&bytes, 0, 43).is_none(), "a frame of another file");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(frame(&bad, 0, 42).is_none(), "byte {at}");
            assert!(frame(&bytes[..at], 0, 42).is_none(), "cut at {at}");
        }
    }
}
