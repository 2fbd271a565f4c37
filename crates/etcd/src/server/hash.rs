//! HashKV: a checksum of all that was not compacted, equal to etcd's bit for bit (`storage/mvcc/hash.go`).

use keyspace::{Error, Revision, index::records::Records};
use prost::Message;

use super::answers::key_value;
use crate::wire::mvccpb;

/// What etcd calls the bucket of its database that it hashes.
const BUCKET: &[u8] = b"key";

/// A record's key in etcd's database: revision, `_`, number in the revision, and a mark for deletions.
pub fn record_key(revision: Revision, sub: u32, deletion: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&revision.0.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&u64::from(sub).to_be_bytes());
    if deletion {
        key.push(b't');
    }
    key
}

/// A record's value in etcd's database.
pub fn record_value(key: &bytes::Bytes, kv: Option<&keyspace::KeyValue>) -> mvccpb::KeyValue {
    match kv {
        Some(kv) => key_value(kv.clone()),
        None => mvccpb::KeyValue {
            key: key.clone(),
            ..mvccpb::KeyValue::default()
        },
    }
}

/// Of records up to the revision that the hash is of. Blocks while cold values are read, one after another.
pub fn hash(records: &Records) -> Result<u32, Error> {
    let compacted = records.pinned.compacted;
    // What etcd would keep if it were compacted at that revision: with nothing to keep it hashes all there is.
    let keeps = records
        .records
        .iter()
        .any(|record| !record.superseded && !record.is_deletion());
    let mut crc = crc32c::crc32c(BUCKET);
    let mut value = Vec::new();
    for record in &records.records {
        if record.revision <= compacted && (record.is_deletion() || keeps && record.superseded) {
            continue;
        }
        crc = crc32c::crc32c_append(crc, &record_key(record.revision, record.sub, record.is_deletion()));
        value.clear();
        record_value(&record.key, records.kv(record)?.as_ref()).encode_raw(&mut value);
        crc = crc32c::crc32c_append(crc, &value);
    }
    Ok(crc)
}
