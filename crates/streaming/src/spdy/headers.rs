//! Header blocks: name and value pairs in a zlib stream that goes on from block to block of a connection and starts
//! from the dictionary that SPDY/3 fixes.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::SpdyError;

/// SPDY/3, section 2.6.10.1.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// A header block when unpacked. Kubernetes sends two or three headers of some 20 bytes; a small block that unpacks to
/// much is an attack.
const BLOCK_BYTES_MAX: usize = 16 << 10;

/// Headers of a stream, in the order sent. Names are lower case on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn parse(mut block: &[u8]) -> Result<Headers, SpdyError> {
        let count = take_u32(&mut block)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = take_string(&mut block)?;
            let value = take_string(&mut block)?;
            headers.push((name.to_ascii_lowercase(), value));
        }
        Ok(Headers(headers))
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for part in [name, value] {
                block.put_u32(part.len() as u32);
                block.put_slice(part.as_bytes());
            }
        }
        block
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(pairs: [(&str, &str); N]) -> Headers {
        Headers(
            pairs
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .to_vec(),
        )
    }
}

fn take_u32(block: &mut &[u8]) -> Result<u32, SpdyError> {
    block
        .try_get_u32()
        .map_err(|_| SpdyError::Headers("a block ends within a number"))
}

fn take_string(block: &mut &[u8]) -> Result<String, SpdyError> {
    let length = take_u32(block)? as usize;
    let (string, rest) = block
        .split_at_checked(length)
        .ok_or(SpdyError::Headers("a block ends within a string"))?;
    *block = rest;
    String::from_utf8(string.to_vec()).map_err(|_| SpdyError::Headers("a header is not UTF-8"))
}

/// Unpacks the blocks of one direction of a connection, every one of them and in order.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Unpacker {
        Unpacker(Decompress::new(true))
    }

    pub(super) fn unpack(&mut self, mut packed: &[u8]) -> Result<Headers, SpdyError> {
        let mut block = Vec::with_capacity(1024);
        while !packed.is_empty() {
            if block.len() == block.capacity() {
                if block.len() >= BLOCK_BYTES_MAX {
                    return Err(SpdyError::Headers("a block unpacks to more than 16 KiB"));
                }
                block.reserve(block.len());
            }
            let before = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress_vec(packed, &mut block, FlushDecompress::Sync);
            let read = (self.0.total_in() - before.0) as usize;
            packed = packed.get(read..).unwrap_or_default();
            match result {
                Ok(Status::Ok | Status::BufError) => {
                    if (self.0.total_in(), self.0.total_out()) == before && block.len() < block.capacity() {
                        return Err(SpdyError::Headers("a block does not unpack"));
                    }
                }
                Ok(Status::StreamEnd) => return Err(SpdyError::Headers("the header stream was ended")),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(DICTIONARY)
                        .map_err(|_| SpdyError::Headers("a block needs another dictionary"))?;
                }
                Err(_) => return Err(SpdyError::Headers("a block is not zlib")),
            }
        }
        // What is still inside once all input is read.
        while block.len() == block.capacity() {
            if block.len() >= BLOCK_BYTES_MAX {
                return Err(SpdyError::Headers("a block unpacks to more than 16 KiB"));
            }
            block.reserve(block.len());
            self.0
                .decompress_vec(&[], &mut block, FlushDecompress::Sync)
                .map_err(|_| SpdyError::Headers("a block is not zlib"))?;
        }
        Headers::parse(&block)
    }
}

/// Packs the blocks of one direction of a connection.
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> Packer {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(DICTIONARY)
            .expect("a fresh compressor takes a dictionary");
        Packer(compress)
    }

    pub(super) fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.encode();
        let mut packed = Vec::with_capacity(block.len() + 64);
        let mut rest = block.as_slice();
        loop {
            let before = self.0.total_in();
            self.0
                .compress_vec(rest, &mut packed, FlushCompress::Sync)
                .expect("compressing into memory does not fail");
            rest = &rest[(self.0.total_in() - before) as usize..];
            // Room left over means that all was written, the sync marker included.
            if rest.is_empty() && packed.len() < packed.capacity() {
                return packed;
            }
            packed.reserve(packed.len().max(64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_of_one_connection_unpack_in_order() {
        let mut packer = Packer::new();
        let mut unpacker = Unpacker::new();
        for kind in ["error", "stdin", "stdout", "resize"] {
            let headers = Headers::from([("streamType", kind), ("port", "8080")]);

            let unpacked = unpacker.unpack(&packer.pack(&headers)).unwrap();

            assert_eq!(unpacked, headers);
            assert_eq!(unpacked.get("StreamType"), Some(kind));
        }
    }

    #[test]
    fn the_dictionary_is_the_one_of_spdy_3() {
        let packed = Packer::new().pack(&Headers::default());

        // CMF/FLG with the dictionary bit, then the dictionary's Adler-32.
        assert_eq!(packed[1] & 0x20, 0x20);
        assert_eq!(packed[2..6], 0xe3c6_a7c2_u32.to_be_bytes());
    }

    #[test]
    fn a_block_that_unpacks_to_too_much_is_refused() {
        let bomb = Headers::from([("a", "0".repeat(BLOCK_BYTES_MAX * 4).as_str())]);

        let packed = Packer::new().pack(&bomb);

        assert!(packed.len() < 1024);
        assert!(Unpacker::new().unpack(&packed).is_err());
    }

    proptest! {
        #[test]
        fn any_headers_survive(pairs in proptest::collection::vec(("[a-z-]{1,20}", ".{0,200}"), 0..10)) {
            let headers = Headers(pairs);
            let unpacked = Unpacker::new().unpack(&Packer::new().pack(&headers)).unwrap();
            prop_assert_eq!(unpacked, headers);
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut unpacker = Unpacker::new();
            let _ = unpacker.unpack(&bytes);
            let mut packed = Packer::new().pack(&Headers::from([("a", "b")]));
            for (at, byte) in bytes.iter().enumerate() {
                let index = at * 7 % packed.len();
                packed[index] ^= byte;
            }
            let _ = Unpacker::new().unpack(&packed);
            let _ = Headers::parse(&bytes);
        }
    }
}
