//! Roles, bindings, priority classes and their like: the same for all planes but for uid and time.

use std::io::Read;

use bytes::Bytes;
use serde_json::Value;

use super::{Body, Entry};

static DATA: &[u8] = include_bytes!("../../data/bootstrap.json.gz");

/// Stands for a moment of time in the data; as long as one.
const TIME_SLOT: &str = "CREATED-AT-THIS-TIME";
/// As long as a uid.
const UID_SLOT: &str = "UID-OF-THIS-OBJECT-IN-THAT-PLANE----";

/// An object's bytes with slots of fixed width.
pub(super) struct Encoded {
    bytes: Bytes,
    times: Vec<usize>,
    uid: usize,
}

impl Encoded {
    fn new(mut tree: Value) -> Encoded {
        tree["metadata"]["creationTimestamp"] = TIME_SLOT.into();
        tree["metadata"]["uid"] = UID_SLOT.into();
        let text = serde_json::to_string(&tree).expect("a JSON value always encodes");
        let times = text.match_indices(TIME_SLOT).map(|(at, _)| at).collect();
        let uid = text.find(UID_SLOT).expect("the slot was just written");
        Encoded {
            bytes: text.into(),
            times,
            uid,
        }
    }

    pub(super) fn render(&self, uid: &str, created: &str) -> Bytes {
        let mut bytes = self.bytes.to_vec();
        fill(&mut bytes, self.uid, uid, UID_SLOT.len());
        for time in &self.times {
            fill(&mut bytes, *time, created, TIME_SLOT.len());
        }
        bytes.into()
    }
}

fn fill(bytes: &mut [u8], at: usize, value: &str, width: usize) {
    // A record's uid and time have these widths by construction; a foreign one must not break the JSON around it.
    if value.len() == width {
        bytes[at..at + width].copy_from_slice(value.as_bytes());
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(DATA)
        .read_to_end(&mut text)
        .expect("the embedded template is gzip");
    let trees: Vec<Value> = serde_json::from_slice(&text).expect("the embedded template is well formed");
    trees.into_iter().filter_map(entry).collect()
}

fn entry(tree: Value) -> Option<Entry> {
    let api_version = tree["apiVersion"].as_str()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = &api::table::find_kind(group, version, tree["kind"].as_str()?)?.resource;
    let leak = |value: &Value| -> Option<&'static str> { Some(String::leak(value.as_str()?.to_owned())) };
    Some(Entry {
        resource,
        namespace: leak(&tree["metadata"]["namespace"]),
        name: leak(&tree["metadata"]["name"])?,
        body: Body::Encoded(Encoded::new(tree)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_the_data_has_its_kind_and_its_slots() {
        let entries = entries();

        assert_eq!(entries.len(), 177);
        for entry in &entries {
            let Body::Encoded(encoded) = &entry.body else { panic!() };
            let bytes = encoded.render("b8f3a6c2-3a52-5f7e-9d0c-0f5f1a2b3c4d", "2026-01-02T03:04:05Z");
            let object = api::Object::from_stored(bytes);
            assert_eq!(object.uid(), "b8f3a6c2-3a52-5f7e-9d0c-0f5f1a2b3c4d");
            assert_eq!(object.name(), entry.name);
            assert_eq!(object.tree()["metadata"]["creationTimestamp"], "2026-01-02T03:04:05Z");
            assert!(!std::str::from_utf8(object.bytes()).unwrap().contains(TIME_SLOT));
        }
    }
}
