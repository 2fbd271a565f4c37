//! The service `etcdserverpb.Maintenance`.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use keyspace::Revision;
use sha2::{Digest, Sha256};

use super::{
    backup,
    grpc::{Outgoing, framed},
    hash,
    member::{CLUSTER_VERSION, Member, RAFT_TERM, VERSION},
    status::{self, Code, Status},
};
use crate::wire::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotResponse,
    StatusResponse, alarm_request::AlarmAction, downgrade_request::DowngradeAction,
};

/// As etcd sends a snapshot.
const SNAPSHOT_CHUNK_BYTES: usize = 32 << 10;

impl Member {
    pub(super) async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        let unknown = || Status::of(Code::InvalidArgument, "etcdserver: unknown alarm");
        let kind = AlarmType::try_from(request.alarm).map_err(|_| unknown())?;
        let member = self.meta.state().member_id;
        let told = match AlarmAction::try_from(request.action).map_err(|_| unknown())? {
            AlarmAction::Get => {
                let kinds = self.meta.state().alarms.clone();
                (kinds.into_iter())
                    .filter(|other| kind == AlarmType::None || *other == kind as i32)
                    .collect()
            }
            AlarmAction::Activate if kind == AlarmType::None => Vec::new(),
            AlarmAction::Activate => {
                self.set_alarm(kind, true).await?;
                vec![kind as i32]
            }
            AlarmAction::Deactivate => {
                let was_on = self.alarm_is_on(kind) && (request.member_id == member || request.member_id == 0);
                if was_on {
                    self.set_alarm(kind, false).await?;
                }
                was_on.then_some(kind as i32).into_iter().collect()
            }
        };
        let alarms = told.into_iter().map(|alarm| AlarmMember {
            member_id: member,
            alarm,
        });
        Ok(AlarmResponse {
            header: Some(self.header()),
            alarms: alarms.collect(),
        })
    }

    pub(super) fn status(&self) -> StatusResponse {
        let storage = self.keyspace.storage();
        let state = self.meta.state().clone();
        let mut errors: Vec<String> = (state.alarms.iter())
            .filter_map(|kind| AlarmType::try_from(*kind).ok())
            .map(|kind| format!("memberID:{} alarm:{} ", state.member_id, kind.as_str_name()))
            .collect();
        errors.extend(self.keyspace.health().err().map(|error| error.to_string()));
        StatusResponse {
            header: Some(self.header()),
            version: VERSION.into(),
            db_size: storage.size_bytes as i64,
            leader: state.member_id,
            raft_index: storage.commits,
            raft_term: RAFT_TERM,
            raft_applied_index: storage.commits,
            errors,
            db_size_in_use: storage.in_use_bytes as i64,
            is_learner: false,
            storage_version: CLUSTER_VERSION.into(),
            db_size_quota: self.options.quota_bytes as i64,
            downgrade_info: None,
        }
    }

    pub(super) async fn defragment(&self) -> Result<DefragmentResponse, Status> {
        self.keyspace.defragment().await?;
        // etcd answers with no header either.
        Ok(DefragmentResponse { header: None })
    }

    /// etcd hashes its whole database file; ours looks otherwise, so it can only be compared with itself.
    pub(super) async fn hash(self: &Arc<Member>) -> Result<HashResponse, Status> {
        let response = self.hash_kv(HashKvRequest { revision: 0 }).await?;
        Ok(HashResponse {
            header: response.header,
            hash: response.hash,
        })
    }

    pub(super) async fn hash_kv(self: &Arc<Member>, request: HashKvRequest) -> Result<HashKvResponse, Status> {
        let (current, compacted) = {
            let index = self.view().read();
            (index.revision(), index.compacted())
        };
        let wanted = u64::try_from(request.revision)
            .ok()
            .filter(|revision| *revision > 0)
            .map(Revision);
        if wanted.is_some_and(|wanted| wanted < compacted) {
            return Err(status::COMPACTED);
        }
        if wanted.is_some_and(|wanted| wanted > current) {
            return Err(status::FUTURE);
        }
        // Before all revisions there is nothing.
        let nothing = request.revision < 0;
        let view = self.view().clone();
        let (hash, compacted, revision) = blocking(move || {
            let mut records = view.records(wanted);
            if nothing {
                records.records.clear();
            }
            let revision = wanted.unwrap_or(records.pinned.revision);
            hash::hash(&records).map(|hash| (hash, records.pinned.compacted, revision))
        })
        .await??;
        Ok(HashKvResponse {
            header: Some(self.header()),
            hash,
            // etcd counts from below 0.
            compact_revision: if compacted == Revision(0) {
                -1
            } else {
                compacted.0 as i64
            },
            hash_revision: match request.revision {
                0 => revision.0 as i64,
                asked => asked,
            },
        })
    }

    /// The database as a file of etcd's, in pieces, and then its SHA-256.
    pub(super) async fn snapshot(self: &Arc<Member>) -> Result<Outgoing, Status> {
        let member = self.clone();
        let header = self.header();
        let file = blocking(move || backup::file(&member)).await?;
        let mut left = file.bytes() + 32;
        let mut digest = Sha256::new();
        let mut header = Some(header);
        let mut answer = move |blob: Bytes| {
            left = left.saturating_sub(blob.len() as u64);
            framed(&SnapshotResponse {
                header: header.take(),
                remaining_bytes: left,
                blob,
                version: CLUSTER_VERSION.into(),
            })
        };
        let mut chunks = file.chunks(SNAPSHOT_CHUNK_BYTES);
        let mut ended = false;
        let pieces = std::iter::from_fn(move || {
            if ended {
                return None;
            }
            Some(match chunks.next() {
                Some(Ok(chunk)) => {
                    digest.update(&chunk);
                    Ok(answer(chunk))
                }
                // What was sent has no end, and is taken for whole by nobody.
                Some(Err(error)) => {
                    ended = true;
                    Err(Status::from(error))
                }
                None => {
                    ended = true;
                    Ok(answer(Bytes::copy_from_slice(&digest.clone().finalize())))
                }
            })
        });
        let member = self.clone();
        Ok(Box::pin(stream::iter(pieces).then(move |piece| {
            let member = member.clone();
            async move {
                member.note(&piece).await;
                piece
            }
        })))
    }

    pub(super) fn move_leader(&self, request: &MoveLeaderRequest) -> Result<MoveLeaderResponse, Status> {
        if request.target_id != self.meta.state().member_id {
            return Err(status::BAD_TRANSFEREE);
        }
        Ok(MoveLeaderResponse {
            header: Some(self.header()),
        })
    }

    pub(super) fn downgrade(&self, request: &DowngradeRequest) -> Result<DowngradeResponse, Status> {
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Cancel) => Err(Status::of(Code::FailedPrecondition, "etcdserver: no downgrade job")),
            _ => Err(Status::of(
                Code::Unimplemented,
                "etcdserver: this store is no etcd that could be downgraded; take a snapshot and restore it there",
            )),
        }
    }
}

/// For what computes long.
pub(super) async fn blocking<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let computed = tokio::task::spawn_blocking(compute).await;
    computed.map_err(|error| Status::new(Code::Internal, format!("etcdserver: {error}")))
}
