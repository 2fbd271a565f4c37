//! The services `v3lockpb.Lock` and `v3electionpb.Election`, as etcd makes them of keys that begin with one name: whose key
//! was created first holds.
//!
//! A lock that rests on a lease tells who *may believe* that it holds, not that nobody else acts: its holder can be paused
//! beyond the lease and go on. What must not happen twice needs the key's revision as a fencing token.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use keyspace::{
    Comparand, Compare, Event, KeyRange, KeyValue, LeaseId, Op, Previous, Put, Range, Relation, Revision, Txn, Watch,
    Watched,
};

use super::{
    answers::key_value,
    auth::{self, Caller},
    grpc::{Outgoing, framed},
    member::Member,
    status::{self, Code, Status},
};
use crate::wire::{
    etcdserverpb::ResponseHeader,
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
        ResignRequest, ResignResponse,
    },
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
};

/// Of a lease that is granted to whoever comes without one, as etcd's sessions have it.
const SESSION_TTL_SECONDS: u64 = 60;

const NOT_LEADER: Status = Status::of(Code::Unknown, "election: not leader");
const NO_LEADER: Status = Status::of(Code::Unknown, "election: no leader");
const EXPIRED: Status = Status::of(Code::Unknown, "mutex: session is expired");

fn prefix(name: &Bytes) -> Bytes {
    [&name[..], b"/"].concat().into()
}

fn created_at(key: &Bytes, revision: Revision) -> Compare {
    Compare {
        keys: KeyRange::one(key.clone()),
        relation: Relation::Equal,
        comparand: Comparand::CreateRevision(revision),
    }
}

/// A place in the queue that is given up if nobody waits in it any more.
struct Place {
    member: Arc<Member>,
    key: Bytes,
    created: Revision,
    kept: bool,
}

impl Place {
    fn leave(&self) -> Txn {
        Txn {
            compares: vec![created_at(&self.key, self.created)],
            success: vec![Op::delete(self.key.clone())],
            failure: Vec::new(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            let (member, txn) = (self.member.clone(), self.leave());
            tokio::spawn(async move { member.write(txn).await });
        }
    }
}

impl Member {
    async fn session(&self, lease: i64) -> Result<LeaseId, Status> {
        if lease != 0 {
            return self.known_lease(lease);
        }
        let ttl = std::time::Duration::from_secs(SESSION_TTL_SECONDS);
        Ok(self.keyspace.grant_lease(None, ttl).await?.id)
    }

    /// A place behind all that are there; the same one again for the same lease.
    async fn queue(self: &Arc<Member>, name: &Bytes, lease: LeaseId, value: Bytes) -> Result<Place, Status> {
        let key: Bytes = [&prefix(name)[..], format!("{:x}", lease.0).as_bytes()].concat().into();
        let put = Op::Put(Put {
            key: key.clone(),
            value: value.clone(),
            lease: Some(lease),
            previous: Previous::Omit,
            keep: Default::default(),
        });
        self.has_room()?;
        let txned = self
            .write(Txn {
                compares: vec![created_at(&key, Revision(0))],
                success: vec![put.clone()],
                failure: vec![Op::get(key.clone())],
            })
            .await?;
        let before = match txned.results.into_iter().next() {
            Some(keyspace::OpResult::Range(ranged)) => ranged.items.into_iter().next(),
            _ => None,
        };
        let created = before.as_ref().map_or(txned.revision, |kv| kv.create_revision);
        let place = Place {
            member: self.clone(),
            key: key.clone(),
            created,
            kept: false,
        };
        if before.is_some_and(|kv| kv.value != value) {
            let again = Txn {
                compares: vec![created_at(&key, created)],
                success: vec![put],
                failure: Vec::new(),
            };
            self.write(again).await?;
        }
        Ok(place)
    }

    /// Until nobody who came earlier is there.
    async fn wait(&self, name: &Bytes, created: Revision) -> Result<ResponseHeader, Status> {
        loop {
            let ranged = self.view().range(&Range::of(KeyRange::prefix(prefix(name))))?;
            let earlier = ranged.items.into_iter().filter(|kv| kv.create_revision < created);
            let Some(before) = earlier.max_by_key(|kv| kv.create_revision) else {
                return Ok(self.header_at(ranged.revision));
            };
            self.gone(before.key, ranged.revision).await?;
        }
    }

    async fn gone(&self, key: Bytes, after: Revision) -> Result<(), Status> {
        let mut events = self.events(KeyRange::one(key), after)?;
        while let Some(watched) = events.next().await {
            if let Watched::Events { events, .. } = watched?
                && events.iter().any(|event| matches!(event, Event::Delete { .. }))
            {
                return Ok(());
            }
        }
        Err(status::STOPPED)
    }

    fn events(&self, keys: KeyRange, after: Revision) -> Result<keyspace::WatchStream, Status> {
        Ok(self.view().watch(Watch {
            keys,
            from: Some(Revision(after.0 + 1)),
            previous: Previous::Omit,
        })?)
    }

    fn is_there(&self, key: &Bytes) -> Result<Option<KeyValue>, Status> {
        let ranged = self.view().range(&Range::of(KeyRange::one(key.clone())))?;
        Ok(ranged.items.into_iter().next())
    }

    fn may_queue(&self, caller: &Caller, name: &Bytes) -> Result<(), Status> {
        if name.is_empty() {
            return Err(status::EMPTY_KEY);
        }
        let keys = KeyRange::prefix(prefix(name));
        auth::reads(self, caller, &keys)?;
        let all = Op::Delete {
            keys,
            previous: Previous::Omit,
        };
        auth::writes(self, caller, &all)
    }

    pub(super) async fn lock(
        self: &Arc<Member>,
        request: LockRequest,
        caller: &Caller,
    ) -> Result<LockResponse, Status> {
        self.may_queue(caller, &request.name)?;
        let lease = self.session(request.lease).await?;
        let mut place = self.queue(&request.name, lease, Bytes::new()).await?;
        let header = self.wait(&request.name, place.created).await?;
        if self.is_there(&place.key)?.is_none() {
            return Err(EXPIRED);
        }
        place.kept = true;
        Ok(LockResponse {
            header: Some(header),
            key: place.key.clone(),
        })
    }

    pub(super) async fn unlock(&self, request: UnlockRequest, caller: &Caller) -> Result<UnlockResponse, Status> {
        if request.key.is_empty() {
            return Err(status::EMPTY_KEY);
        }
        let op = Op::delete(request.key);
        auth::writes(self, caller, &op)?;
        let txn = Txn {
            success: vec![op],
            ..Txn::default()
        };
        let txned = self.write(txn).await?;
        Ok(UnlockResponse {
            header: Some(self.header_at(txned.revision)),
        })
    }

    pub(super) async fn campaign(
        self: &Arc<Member>,
        request: CampaignRequest,
        caller: &Caller,
    ) -> Result<CampaignResponse, Status> {
        self.may_queue(caller, &request.name)?;
        let lease = self.session(request.lease).await?;
        let mut place = self.queue(&request.name, lease, request.value).await?;
        let header = self.wait(&request.name, place.created).await?;
        if self.is_there(&place.key)?.is_none() {
            return Err(Status::of(Code::Unknown, "election: session expired"));
        }
        place.kept = true;
        Ok(CampaignResponse {
            header: Some(header),
            leader: Some(LeaderKey {
                name: request.name,
                key: place.key.clone(),
                rev: place.created.0 as i64,
                lease: lease.0,
            }),
        })
    }

    /// `op` if that leader still leads.
    async fn as_leader(&self, leader: &LeaderKey, caller: &Caller, op: Op) -> Result<(bool, ResponseHeader), Status> {
        auth::writes(self, caller, &op)?;
        let revision = u64::try_from(leader.rev)
            .ok()
            .filter(|revision| *revision > 0)
            .ok_or(NOT_LEADER)?;
        let txn = Txn {
            compares: vec![created_at(&leader.key, Revision(revision))],
            success: vec![op],
            failure: Vec::new(),
        };
        let txned = self.write(txn).await?;
        Ok((txned.succeeded, self.header_at(txned.revision)))
    }

    pub(super) async fn proclaim(&self, request: ProclaimRequest, caller: &Caller) -> Result<ProclaimResponse, Status> {
        let leader = request.leader.ok_or(NOT_LEADER)?;
        self.has_room()?;
        let put = Op::Put(Put {
            key: leader.key.clone(),
            value: request.value,
            lease: (leader.lease != 0).then_some(LeaseId(leader.lease)),
            previous: Previous::Omit,
            keep: Default::default(),
        });
        match self.as_leader(&leader, caller, put).await? {
            (true, header) => Ok(ProclaimResponse { header: Some(header) }),
            (false, _) => Err(NOT_LEADER),
        }
    }

    pub(super) async fn resign(&self, request: ResignRequest, caller: &Caller) -> Result<ResignResponse, Status> {
        let leader = request.leader.ok_or(NOT_LEADER)?;
        let op = Op::delete(leader.key.clone());
        // Who leads no more has nothing left to resign from.
        let (_, header) = self.as_leader(&leader, caller, op).await?;
        Ok(ResignResponse { header: Some(header) })
    }

    fn leads(&self, name: &Bytes) -> Result<(Option<KeyValue>, Revision), Status> {
        let ranged = self.view().range(&Range::of(KeyRange::prefix(prefix(name))))?;
        let first = ranged.items.into_iter().min_by_key(|kv| kv.create_revision);
        Ok((first, ranged.revision))
    }

    pub(super) fn leader(&self, request: &LeaderRequest, caller: &Caller) -> Result<LeaderResponse, Status> {
        auth::reads(self, caller, &KeyRange::prefix(prefix(&request.name)))?;
        let (leader, revision) = self.leads(&request.name)?;
        Ok(LeaderResponse {
            header: Some(self.header_at(revision)),
            kv: Some(key_value(leader.ok_or(NO_LEADER)?)),
        })
    }

    /// Each leader and each thing it proclaims.
    pub(super) fn observe(self: &Arc<Member>, request: LeaderRequest, caller: &Caller) -> Result<Outgoing, Status> {
        let keys = KeyRange::prefix(prefix(&request.name));
        auth::reads(self, caller, &keys)?;
        let events = self.events(keys, self.revision())?;
        let state = (self.clone(), request.name, events, Revision(0));
        Ok(Box::pin(stream::unfold(
            state,
            |(member, name, mut events, mut told)| async move {
                loop {
                    match member.leads(&name) {
                        Err(status) => return Some((Err(status), (member, name, stream::empty().boxed(), told))),
                        Ok((Some(leader), revision)) if leader.mod_revision > told => {
                            told = leader.mod_revision;
                            let response = LeaderResponse {
                                header: Some(member.header_at(revision)),
                                kv: Some(key_value(leader)),
                            };
                            return Some((Ok(framed(&response)), (member, name, events, told)));
                        }
                        Ok(_) => {}
                    }
                    if events.next().await?.is_err() {
                        return None;
                    }
                }
            },
        )))
    }
}
