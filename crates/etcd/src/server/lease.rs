//! The service `etcdserverpb.Lease`.

use std::{sync::Arc, time::Duration};

use futures::stream;
use keyspace::{Error, LeaseId};

use super::{
    auth::{self, Caller},
    grpc::{Messages, Outgoing, decode, framed},
    member::Member,
    status::{self, Status},
};
use crate::wire::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

impl Member {
    pub(super) async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        self.is_sound()?;
        self.has_room()?;
        // Less than the least is raised to it.
        let ttl = Duration::from_secs(u64::try_from(request.ttl).unwrap_or(0));
        let id = (request.id != 0).then_some(LeaseId(request.id));
        let granted = self.keyspace.grant_lease(id, ttl).await?;
        self.metrics.leases_granted.add(1);
        Ok(LeaseGrantResponse {
            header: Some(self.header()),
            id: granted.id.0,
            ttl: granted.ttl.as_secs() as i64,
            error: String::new(),
        })
    }

    pub(super) async fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
        caller: &Caller,
    ) -> Result<LeaseRevokeResponse, Status> {
        auth::uses_lease(self, caller, LeaseId(request.id))?;
        self.keyspace.revoke_lease(LeaseId(request.id)).await?;
        self.metrics.leases_revoked.add(1);
        Ok(LeaseRevokeResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
        caller: &Caller,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        if request.keys {
            auth::uses_lease(self, caller, LeaseId(request.id))?;
        }
        let mut response = LeaseTimeToLiveResponse {
            header: Some(self.header()),
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        match self.keyspace.lease_state(LeaseId(request.id)).await {
            Ok(state) => {
                response.ttl = state.remaining.as_secs() as i64;
                response.granted_ttl = state.granted_ttl.as_secs() as i64;
                if request.keys {
                    response.keys = state.keys;
                }
            }
            // Said so, and no error.
            Err(Error::NoLease(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(response)
    }

    pub(super) fn lease_leases(&self) -> LeaseLeasesResponse {
        let ids = self.view().read().lease_ids();
        LeaseLeasesResponse {
            header: Some(self.header()),
            leases: ids.into_iter().map(|id| LeaseStatus { id: id.0 }).collect(),
        }
    }

    pub(super) async fn keep_lease(&self, id: LeaseId) -> Result<LeaseKeepAliveResponse, Status> {
        // As it was before the lease got its time: who reads it waits at most too short.
        let header = self.header();
        let ttl = match self.keyspace.keep_lease(id).await {
            Ok(ttl) => {
                self.metrics.leases_renewed.add(1);
                ttl.as_secs() as i64
            }
            Err(Error::NoLease(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(LeaseKeepAliveResponse {
            header: Some(header),
            id: id.0,
            ttl,
        })
    }

    pub(super) fn lease_keep_alive(self: &Arc<Member>, requests: Messages) -> Outgoing {
        Box::pin(stream::unfold(Some((self.clone(), requests)), |session| async move {
            let (member, mut requests) = session?;
            let kept = match requests.next().await? {
                Ok(message) => {
                    member.metrics.received(message.len());
                    match decode::<LeaseKeepAliveRequest>(message) {
                        Ok(request) => member.keep_lease(LeaseId(request.id)).await,
                        Err(status) => Err(status),
                    }
                }
                Err(status) => Err(status),
            };
            match kept {
                Ok(kept) => Some((Ok(framed(&kept)), Some((member, requests)))),
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// A lease that is there, for who is about to attach keys to it.
    pub(super) fn known_lease(&self, id: i64) -> Result<LeaseId, Status> {
        let id = LeaseId(id);
        if self.view().read().has_lease(id) {
            Ok(id)
        } else {
            Err(status::NO_LEASE)
        }
    }
}
