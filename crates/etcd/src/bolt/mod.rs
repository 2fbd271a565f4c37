//! bbolt's file format, version 2: what etcd's snapshots are. Written whole and once, in order of its pages; read whole.
//!
//! ```text
//! page     id u64 | flags u16 | count u16 | overflow u32, then elements      (little endian, 4096 bytes)
//! branch   count x (position u32, key size u32, page u64), then keys
//! leaf     count x (flags u32, position u32, key size u32, value size u32), then keys and values
//! meta     magic | version | page size | flags | root page, sequence | free list page | pages | transaction | FNV-1a
//! ```
//!
//! A position counts from its own element. A bucket is a leaf element whose value names the page of its root.

mod reader;
mod writer;

pub use reader::{Damaged, File as Reader};
pub use writer::{Bucket, Items, Plan};

pub const PAGE_BYTES: usize = 4096;

const PAGE_HEADER_BYTES: usize = 16;
const LEAF_ELEMENT_BYTES: usize = 16;
const BRANCH_ELEMENT_BYTES: usize = 16;
const META_BYTES: usize = 64;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;

/// Of a leaf's element.
const IS_BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn bucket(name: &'static str, items: Vec<(Vec<u8>, Vec<u8>)>) -> Bucket {
        let items: Vec<(Bytes, Bytes)> = items
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        Bucket::new(name, items)
    }

    #[test]
    fn what_is_written_is_read() {
        let many: Vec<_> = (0..70_000_u64)
            .map(|at| (at.to_be_bytes().to_vec(), vec![7; (at % 90) as usize]))
            .collect();
        let large = vec![
            (b"a".to_vec(), vec![1; 10_000]),
            (b"b".to_vec(), vec![2; 4080]),
            (b"c".to_vec(), vec![3; 3]),
        ];
        let plan = Plan::of(vec![
            bucket("empty", Vec::new()),
            bucket("large", large.clone()),
            bucket("many", many.clone()),
        ]);
        let file: Vec<u8> = plan.chunks(1000).flat_map(|chunk| chunk.unwrap()).collect();
        assert_eq!(file.len() as u64, plan_len(&file));

        let reader = Reader::open(file.into()).unwrap();
        let mut names = reader.buckets().unwrap();
        names.sort();
        assert_eq!(names, ["empty", "large", "many"]);
        let read = |name: &str| {
            let mut items = Vec::new();
            reader
                .each(name, |key, value| items.push((key.to_vec(), value.to_vec())))
                .unwrap();
            items
        };
        assert_eq!(read("empty"), []);
        assert_eq!(read("large"), large);
        assert!(read("many") == many);
    }

    fn plan_len(file: &[u8]) -> u64 {
        (file.len() / PAGE_BYTES * PAGE_BYTES) as u64
    }

    #[test]
    fn damage_is_told_and_no_panic() {
        let items = (0..300_u64)
            .map(|at| (at.to_be_bytes().to_vec(), vec![7; 50]))
            .collect();
        let file: Vec<u8> = Plan::of(vec![bucket("key", items)])
            .chunks(4096)
            .flat_map(|chunk| chunk.unwrap())
            .collect();
        for at in (0..file.len()).step_by(13) {
            for bit in [0x01, 0x80] {
                let mut bad = file.clone();
                bad[at] ^= bit;
                // Values have no checksum of their own: that it ends is all that can be asked.
                if let Ok(reader) = Reader::open(bad.into()) {
                    let _ = reader.each("key", |_, _| {});
                }
            }
        }
        for end in [0, 10, 4096, 8192, file.len() - 1] {
            if let Ok(reader) = Reader::open(file[..end].to_vec().into()) {
                let _ = reader.each("key", |_, _| {});
            }
        }
    }
}
