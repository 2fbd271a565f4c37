//! A keyspace as a file of etcd's, which `etcdctl snapshot restore` takes, and back.

use std::{collections::BTreeMap, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use keyspace::{
    Error, Granted, KeyValue, Keyspace, LeaseId, Revision,
    index::{
        Change, Index, Item, Limits,
        records::{Record, Records},
    },
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    hash::{record_key, record_value},
    member::{CLUSTER_VERSION, Member, RAFT_TERM},
    meta::{self, Change as MetaChange, State},
};
use crate::{
    bolt::{Bucket, Damaged, Items, Plan, Reader},
    wire::{authpb, etcdserverpb::AlarmMember, mvccpb},
};

/// etcd's `leasepb.Lease`, which is in no file of its API.
#[derive(Clone, PartialEq, Message)]
struct WireLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

/// The bucket `key`, made as it is written: cold values are read one after another.
struct Keys(Records);

impl Keys {
    fn record(&self, at: usize) -> &Record {
        &self.0.records[at]
    }
}

impl Items for Keys {
    fn count(&self) -> usize {
        self.0.records.len()
    }

    fn sizes(&self, at: usize) -> (usize, usize) {
        /// Of the field `value`.
        const TAG: u32 = 5;
        let record = self.record(at);
        let mut known = record_value(&record.key, record.known());
        known.value = Bytes::new();
        let value = match record.value_bytes() {
            0 => 0,
            bytes => prost::encoding::key_len(TAG) + prost::encoding::encoded_len_varint(bytes as u64) + bytes,
        };
        (17 + usize::from(record.is_deletion()), known.encoded_len() + value)
    }

    fn put_key(&self, at: usize, out: &mut BytesMut) {
        let record = self.record(at);
        out.put_slice(&record_key(record.revision, record.sub, record.is_deletion()));
    }

    fn put_value(&self, at: usize, out: &mut BytesMut) -> Result<(), Error> {
        let record = self.record(at);
        record_value(&record.key, self.0.kv(record)?.as_ref()).encode_raw(out);
        Ok(())
    }
}

/// All of a member as etcd's database file.
pub(super) fn file(member: &Member) -> Plan {
    let records = member.view().records(None);
    let pinned = &records.pinned;
    let state = member.meta.state().clone();
    let commits = member.keyspace.storage().commits.max(1);
    let itself = member.itself();
    let described = serde_json::json!({
        "id": itself.id,
        "peerURLs": itself.peer_ur_ls,
        "name": itself.name,
        "clientURLs": itself.client_ur_ls,
    });
    let pair = |key: &str, value: Vec<u8>| (Bytes::copy_from_slice(key.as_bytes()), Bytes::from(value));
    let mut meta = vec![
        pair(
            "confState",
            serde_json::json!({"voters": [itself.id], "auto_leave": false})
                .to_string()
                .into(),
        ),
        pair("consistent_index", commits.to_be_bytes().to_vec()),
        pair("storageVersion", CLUSTER_VERSION.into()),
        pair("term", RAFT_TERM.to_be_bytes().to_vec()),
    ];
    if pinned.compacted > Revision(0) {
        let compacted = record_key(pinned.compacted, 0, false);
        meta.push(pair("finishedCompactRev", compacted.clone()));
        meta.push(pair("scheduledCompactRev", compacted));
    }
    meta.sort();
    let leases: BTreeMap<Bytes, Bytes> = (pinned.leases.iter())
        .map(|granted| {
            let lease = WireLease {
                id: granted.id.0,
                ttl: granted.ttl.as_secs() as i64,
                remaining_ttl: 0,
            };
            (granted.id.0.to_be_bytes().to_vec().into(), lease.encode_to_vec().into())
        })
        .collect();
    Plan::of(vec![
        Bucket::new("alarm", alarms(&state)),
        Bucket::new("auth", auth(&state)),
        Bucket::new("authRoles", named(&state.auth.roles)),
        Bucket::new("authUsers", named(&state.auth.users)),
        Bucket::new("cluster", vec![pair("clusterVersion", CLUSTER_VERSION.into())]),
        Bucket::new("key", Keys(records)),
        Bucket::new("lease", leases.into_iter().collect::<Vec<_>>()),
        Bucket::new(
            "members",
            vec![pair(&format!("{:x}", itself.id), described.to_string().into())],
        ),
        Bucket::new("members_removed", Vec::new()),
        Bucket::new("meta", meta),
    ])
}

fn alarms(state: &State) -> Vec<(Bytes, Bytes)> {
    let mut alarms: Vec<_> = (state.alarms.iter())
        .map(|alarm| AlarmMember {
            member_id: state.member_id,
            alarm: *alarm,
        })
        .map(|alarm| (alarm.encode_to_vec().into(), Bytes::new()))
        .collect();
    alarms.sort();
    alarms
}

fn auth(state: &State) -> Vec<(Bytes, Bytes)> {
    vec![
        (
            Bytes::from_static(b"authEnabled"),
            vec![u8::from(state.auth.enabled)].into(),
        ),
        (
            Bytes::from_static(b"authRevision"),
            state.auth.revision.to_be_bytes().to_vec().into(),
        ),
    ]
}

fn named<M: Message>(all: &BTreeMap<String, M>) -> Vec<(Bytes, Bytes)> {
    let items = all.iter();
    items
        .map(|(name, message)| (name.clone().into(), message.encode_to_vec().into()))
        .collect()
}

/// Why a file can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// It was cut short or changed since it was saved.
    #[error("its checksum is wrong")]
    Checksum,
    #[error("{0}")]
    Record(&'static str),
}

/// Whether the file has to end in its own SHA-256, as one that was saved from a server has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    Required,
    /// A database file that was copied from a data directory has none.
    Skipped,
}

/// The keyspace that a snapshot file has.
pub fn restore(file: &Bytes, checksum: Checksum, limits: Limits, now: Duration) -> Result<Index, RestoreError> {
    let reader = opened(file, checksum)?;
    let mut compacted = Revision(0);
    reader.each("meta", |key, value| {
        if key == b"finishedCompactRev"
            && let Some(revision) = value.first_chunk()
        {
            compacted = Revision(u64::from_be_bytes(*revision));
        }
    })?;
    let mut leases = Vec::new();
    reader.each("lease", |_, value| {
        leases.extend(WireLease::decode(value).ok().map(|lease| Granted {
            id: LeaseId(lease.id),
            ttl: Duration::from_secs(u64::try_from(lease.ttl).unwrap_or(0)),
        }));
    })?;
    let mut items: BTreeMap<Bytes, Item> = BTreeMap::new();
    let mut commits: Vec<(Revision, Vec<Change>)> = Vec::new();
    let mut wrong = None;
    reader.each("key", |key, value| match record(key, value) {
        Err(what) => wrong = wrong.or(Some(what)),
        Ok((revision, sub, change)) if revision <= compacted => match change {
            Change::Put(kv) => drop(items.insert(kv.key.clone(), Item { kv, sub })),
            Change::Delete(key) => drop(items.remove(&key)),
        },
        Ok((revision, _, change)) => match commits.last_mut() {
            Some((last, changes)) if *last == revision => changes.push(change),
            _ => commits.push((revision, vec![change])),
        },
    })?;
    if let Some(what) = wrong {
        return Err(RestoreError::Record(what));
    }
    let base = compacted.max(Revision(1));
    let mut index = Index::restored(limits, base, leases, now, items.into_values());
    for (revision, changes) in commits {
        if revision <= index.revision() {
            return Err(RestoreError::Record("its revisions go back"));
        }
        index.replay(revision, changes);
        index.publish();
    }
    Ok(index)
}

fn opened(file: &Bytes, checksum: Checksum) -> Result<Reader, RestoreError> {
    const SUM_BYTES: usize = 32;
    let mut file = file.clone();
    if checksum == Checksum::Required {
        if file.len() % 512 != SUM_BYTES {
            return Err(RestoreError::Checksum);
        }
        let sum = file.split_off(file.len() - SUM_BYTES);
        if Sha256::digest(&file)[..] != sum[..] {
            return Err(RestoreError::Checksum);
        }
    }
    Ok(Reader::open(file)?)
}

/// Who may do what in a snapshot file: a keyspace that was guarded is guarded when it is restored.
pub struct Users(Vec<MetaChange>);

impl Users {
    pub fn of(file: &Bytes, checksum: Checksum) -> Result<Users, RestoreError> {
        let reader = opened(file, checksum)?;
        let (mut enabled, mut revision) = (false, 0);
        reader.each("auth", |key, value| match key {
            b"authEnabled" => enabled = value == [1],
            b"authRevision" => revision = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)),
            _ => {}
        })?;
        let mut changes = Vec::new();
        let mut wrong = None;
        reader.each("authUsers", |_, value| match authpb::User::decode(value) {
            Ok(user) => {
                let name = String::from_utf8_lossy(&user.name).into_owned();
                changes.push(MetaChange::User(name, Some(user)));
            }
            Err(_) => wrong = Some("a user's record is none of etcd's"),
        })?;
        reader.each("authRoles", |_, value| match authpb::Role::decode(value) {
            Ok(role) => {
                let name = String::from_utf8_lossy(&role.name).into_owned();
                changes.push(MetaChange::Role(name, Some(role)));
            }
            Err(_) => wrong = Some("a role's record is none of etcd's"),
        })?;
        if let Some(what) = wrong {
            return Err(RestoreError::Record(what));
        }
        if enabled || !changes.is_empty() {
            changes.push(MetaChange::Auth { enabled, revision });
        }
        Ok(Users(changes))
    }

    /// Into the keyspace for what an etcd remembers besides keys.
    pub async fn write(&self, meta: &dyn Keyspace) -> Result<(), Error> {
        meta::write_all(meta, &self.0).await
    }
}

fn record(key: &[u8], value: &[u8]) -> Result<(Revision, u32, Change), &'static str> {
    let short = "a record's key is no revision";
    let revision = u64::from_be_bytes(*key.first_chunk().ok_or(short)?);
    let sub = u64::from_be_bytes(*key.get(9..).and_then(|rest| rest.first_chunk()).ok_or(short)?);
    let sub = u32::try_from(sub).map_err(|_| short)?;
    let kv = mvccpb::KeyValue::decode(value).map_err(|_| "a record's value is none of etcd's")?;
    if key.len() == 18 {
        return Ok((Revision(revision), sub, Change::Delete(Bytes::copy_from_slice(&kv.key))));
    }
    let change = Change::Put(KeyValue {
        key: Bytes::copy_from_slice(&kv.key),
        value: Bytes::copy_from_slice(&kv.value),
        create_revision: Revision(kv.create_revision as u64),
        mod_revision: Revision(kv.mod_revision as u64),
        version: kv.version as u64,
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
    });
    Ok((Revision(revision), sub, change))
}
