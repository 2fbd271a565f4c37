//! One keyspace as an etcd cluster of one member.

use std::{sync::Arc, time::Duration};

use keyspace::{Error, Keyspace, Local, Options, Revision, Txn, Txned, view::View};
use world::World;

use super::{
    auth::Caller,
    meta::{Change, Meta},
    metrics::Metrics,
    status::{self, Status},
    tokens::{AuthToken, Tokens},
};
use crate::wire::etcdserverpb::{AlarmType, ResponseHeader};

/// What is told to clients decides what they ask of us: kube-apiserver reads consistently from its cache from 3.5.13 on.
pub const VERSION: &str = "3.6.8";
pub const CLUSTER_VERSION: &str = "3.6.0";

/// etcd's `ReqTimeout` with its default election timeout.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// A cluster of one has elected once.
pub const RAFT_TERM: u64 = 2;

/// What gRPC may add to a request of the largest size (etcd's `grpcOverheadBytes`).
pub const OVERHEAD_BYTES: usize = 512 << 10;

#[derive(Clone, Debug)]
pub struct MemberOptions {
    pub name: String,
    pub client_urls: Vec<String>,
    pub peer_urls: Vec<String>,
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    pub quota_bytes: usize,
    /// Between two notifications of progress to a watch that asked for them.
    pub progress_interval: Duration,
    /// What users who have shown their password are given.
    pub auth_token: AuthToken,
}

impl Default for MemberOptions {
    fn default() -> MemberOptions {
        MemberOptions {
            name: "default".into(),
            client_urls: Vec::new(),
            peer_urls: vec!["http://localhost:2380".into()],
            request_bytes_max: 3 << 19,
            txn_ops_max: keyspace::TXN_OPS_MAX,
            quota_bytes: 2 << 30,
            progress_interval: Duration::from_secs(600),
            auth_token: AuthToken::Simple,
        }
    }
}

pub struct Member {
    pub(super) keyspace: Arc<dyn Local>,
    pub(super) meta: Meta,
    pub(super) options: MemberOptions,
    pub(super) world: World,
    pub(super) metrics: Metrics,
    pub(super) tokens: Tokens,
}

impl Member {
    /// `meta` is a keyspace beside `keyspace`, for what an etcd remembers besides keys.
    pub async fn open(
        keyspace: Arc<dyn Local>,
        meta: Arc<dyn Keyspace>,
        options: MemberOptions,
        world: World,
    ) -> Result<Member, Error> {
        Ok(Member {
            meta: Meta::open(meta, world.random.as_ref()).await?,
            tokens: Tokens::new(options.auth_token.clone(), &world),
            metrics: Metrics::default(),
            keyspace,
            options,
            world,
        })
    }

    pub(super) fn view(&self) -> &Arc<View> {
        self.keyspace.view()
    }

    pub(super) fn revision(&self) -> Revision {
        self.view().read().revision()
    }

    pub(super) fn header_at(&self, revision: Revision) -> ResponseHeader {
        let state = self.meta.state();
        ResponseHeader {
            cluster_id: state.cluster_id,
            member_id: state.member_id,
            revision: revision.0 as i64,
            raft_term: RAFT_TERM,
        }
    }

    pub(super) fn header(&self) -> ResponseHeader {
        self.header_at(self.revision())
    }

    pub(super) fn alarm_is_on(&self, kind: AlarmType) -> bool {
        self.meta.state().alarms.contains(&(kind as i32))
    }

    /// Fails while all writes are refused, because something that was stored was found damaged.
    pub(super) fn is_sound(&self) -> Result<(), Status> {
        if self.alarm_is_on(AlarmType::Corrupt) {
            return Err(status::CORRUPT);
        }
        Ok(())
    }

    /// Something damaged that is found raises etcd's alarm: until somebody disarms it nothing is written on top of it.
    pub(super) async fn note<T>(&self, answer: &Result<T, Status>) {
        if let Err(status) = answer
            && *status == status::CORRUPT
            && !self.alarm_is_on(AlarmType::Corrupt)
        {
            tracing::error!("stored data is damaged; the alarm CORRUPT stays until it is disarmed");
            if let Err(error) = self.set_alarm(AlarmType::Corrupt, true).await {
                tracing::error!(%error, "the alarm CORRUPT can't be raised");
            }
        }
    }

    /// Fails while writes that need room are refused.
    pub(super) fn has_room(&self) -> Result<(), Status> {
        if self.alarm_is_on(AlarmType::Nospace) {
            return Err(status::NO_SPACE);
        }
        Ok(())
    }

    pub(super) fn fits(&self, request_bytes: usize) -> Result<(), Status> {
        /// What etcd wraps around a request before it measures it.
        const RAFT_BYTES: usize = 18;
        if request_bytes + RAFT_BYTES > self.options.request_bytes_max {
            return Err(status::TOO_LARGE);
        }
        Ok(())
    }

    /// The answer comes after the write is durable. A keyspace that is full raises etcd's alarm.
    pub(super) async fn write(&self, txn: Txn) -> Result<Txned, Status> {
        self.is_sound()?;
        let options = Options {
            timeout: Some(REQUEST_TIMEOUT),
            ..Options::default()
        };
        match self.keyspace.checked_txn(txn, options).await {
            Err(Error::NoSpace(why)) => {
                tracing::warn!(why, "a write was refused; the alarm NOSPACE stays until it is disarmed");
                self.set_alarm(AlarmType::Nospace, true).await?;
                Err(status::NO_SPACE)
            }
            answer => {
                let txned = answer?;
                self.metrics.done(&txned.results);
                Ok(txned)
            }
        }
    }

    pub(super) async fn set_alarm(&self, kind: AlarmType, on: bool) -> Result<(), Status> {
        let decided = self.meta.change(|state| {
            let is_on = state.alarms.contains(&(kind as i32));
            let change = (is_on != on).then_some(Change::Alarm(kind as i32, on));
            Ok((change.into_iter().collect(), ()))
        });
        match decided.await {
            // A full disk takes not even this; it will be noticed again.
            Err(status) if status == status::NO_SPACE => Ok(()),
            other => other,
        }
    }

    /// Who asks, if it matters.
    pub(super) fn auth_is_on(&self) -> bool {
        self.meta.state().auth.enabled
    }

    pub(super) fn admin(&self, caller: &Caller) -> Result<(), Status> {
        super::auth::admin(self, caller)
    }
}
