//! The embedded v3 documents: a line of JSON that says where each is, then one gzip member a document.

use std::sync::OnceLock;

use serde::Deserialize;

static PACK: &[u8] = include_bytes!("../../data/openapi-v3.pack");

#[derive(Deserialize)]
pub struct Entry {
    /// `api/v1`, `apis/apps/v1`, `apis/apps`, ...
    pub path: String,
    pub hash: String,
    start: usize,
    length: usize,
}

struct Pack {
    entries: Vec<Entry>,
    body: &'static [u8],
}

fn pack() -> &'static Pack {
    static READ: OnceLock<Pack> = OnceLock::new();
    READ.get_or_init(|| {
        let end = PACK
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("the pack starts with its index");
        Pack {
            entries: serde_json::from_slice(&PACK[..end]).expect("the index of the pack is well formed"),
            body: &PACK[end + 1..],
        }
    })
}

pub fn entries() -> &'static [Entry] {
    &pack().entries
}

/// A document, still compressed.
pub fn packed(entry: &Entry) -> &'static [u8] {
    &pack().body[entry.start..entry.start + entry.length]
}
