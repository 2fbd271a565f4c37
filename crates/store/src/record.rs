//! What the log tells: one record a change of one keyspace.

use std::time::Duration;

use bytes::Bytes;
use keyspace::{Event, Granted, KeyValue, LeaseId, Revision, index::Change, index::Commit};

use crate::codec::{Malformed, Reader, put_bytes, put_number};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SpaceId(pub u32);

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Created { name: String },
    Commit { revision: Revision, changes: Vec<Change> },
    Granted(Granted),
    Revoked(LeaseId),
    Compacted(Revision),
}

const CREATED: u8 = 1;
const COMMIT: u8 = 2;
const GRANTED: u8 = 3;
const REVOKED: u8 = 4;
const COMPACTED: u8 = 5;

const DELETE: u8 = 0;
const PUT: u8 = 1;

fn start(out: &mut Vec<u8>, space: SpaceId, kind: u8) {
    out.push(kind);
    put_number(out, space.0.into());
}

pub(crate) fn put_created(out: &mut Vec<u8>, space: SpaceId, name: &str) {
    start(out, space, CREATED);
    put_bytes(out, name.as_bytes());
}

pub(crate) fn put_commit(out: &mut Vec<u8>, space: SpaceId, commit: &Commit) {
    start(out, space, COMMIT);
    put_number(out, commit.revision.0);
    put_number(out, commit.events.len() as u64);
    for event in &commit.events {
        put_event(out, event, commit.revision);
    }
}

pub(crate) fn put_granted(out: &mut Vec<u8>, space: SpaceId, granted: &Granted) {
    start(out, space, GRANTED);
    put_number(out, granted.id.0 as u64);
    put_number(out, granted.ttl.as_secs());
}

pub(crate) fn put_revoked(out: &mut Vec<u8>, space: SpaceId, id: LeaseId) {
    start(out, space, REVOKED);
    put_number(out, id.0 as u64);
}

pub(crate) fn put_compacted(out: &mut Vec<u8>, space: SpaceId, revision: Revision) {
    start(out, space, COMPACTED);
    put_number(out, revision.0);
}

fn put_event(out: &mut Vec<u8>, event: &Event, revision: Revision) {
    match event {
        Event::Put { kv, .. } => {
            out.push(PUT);
            put_item(out, kv, revision);
        }
        Event::Delete { key, .. } => {
            out.push(DELETE);
            put_bytes(out, key);
        }
    }
}

/// Revisions are told as distances: a put of a fresh key takes two bytes for them.
pub(crate) fn put_item(out: &mut Vec<u8>, kv: &KeyValue, revision: Revision) {
    put_bytes(out, &kv.key);
    put_bytes(out, &kv.value);
    put_number(out, revision.0 - kv.mod_revision.0);
    put_number(out, kv.mod_revision.0 - kv.create_revision.0);
    put_number(out, kv.version);
    put_number(out, kv.lease.map_or(0, |lease| lease.0 as u64));
}

pub(crate) fn item(reader: &mut Reader<'_>, revision: Revision) -> Result<KeyValue, Malformed> {
    let key = reader.bytes()?;
    let value = reader.bytes()?;
    let mod_revision = before(revision, reader.number()?)?;
    let create_revision = before(mod_revision, reader.number()?)?;
    let version = reader.number()?;
    let lease = reader.number()? as i64;
    Ok(KeyValue {
        key,
        value,
        create_revision,
        mod_revision,
        version,
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

pub(crate) fn before(revision: Revision, distance: u64) -> Result<Revision, Malformed> {
    let earlier = revision.0.checked_sub(distance);
    earlier.map(Revision).ok_or(Malformed("a revision is below 0"))
}

/// The next record of a payload.
pub(crate) fn read(reader: &mut Reader<'_>) -> Result<(SpaceId, Record), Malformed> {
    let kind = reader.byte()?;
    let space = SpaceId(u32::try_from(reader.number()?).map_err(|_| Malformed("a keyspace's number is too large"))?);
    let record = match kind {
        CREATED => Record::Created {
            name: text(reader.bytes()?)?,
        },
        COMMIT => {
            let revision = Revision(reader.number()?);
            let count = reader.number()?;
            // The count is not trusted with an allocation.
            let mut changes = Vec::new();
            for _ in 0..count {
                changes.push(match reader.byte()? {
                    PUT => Change::Put(item(reader, revision)?),
                    DELETE => Change::Delete(reader.bytes()?),
                    _ => return Err(Malformed("a change is of an unknown kind")),
                });
            }
            Record::Commit { revision, changes }
        }
        GRANTED => Record::Granted(granted(reader)?),
        REVOKED => Record::Revoked(LeaseId(reader.number()? as i64)),
        COMPACTED => Record::Compacted(Revision(reader.number()?)),
        _ => return Err(Malformed("a record is of an unknown kind")),
    };
    Ok((space, record))
}

pub(crate) fn granted(reader: &mut Reader<'_>) -> Result<Granted, Malformed> {
    Ok(Granted {
        id: LeaseId(reader.number()? as i64),
        ttl: Duration::from_secs(reader.number()?),
    })
}

pub(crate) fn text(bytes: Bytes) -> Result<String, Malformed> {
    String::from_utf8(bytes.into()).map_err(|_| Malformed("a name is not text"))
}
