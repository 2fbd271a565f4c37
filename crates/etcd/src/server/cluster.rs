//! The service `etcdserverpb.Cluster`: one member, this one. Clients spread over what is listed here, so nothing else may be.

use super::{
    member::Member,
    status::{self, Code, Status},
};
use crate::wire::etcdserverpb::{
    Member as WireMember, MemberAddRequest, MemberAddResponse, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    ResponseHeader,
};

impl Member {
    pub(super) fn itself(&self) -> WireMember {
        WireMember {
            id: self.meta.state().member_id,
            name: self.options.name.clone(),
            peer_ur_ls: self.options.peer_urls.clone(),
            client_ur_ls: self.options.client_urls.clone(),
            is_learner: false,
        }
    }

    /// etcd tells no revision here.
    fn cluster_header(&self) -> ResponseHeader {
        ResponseHeader {
            revision: 0,
            ..self.header()
        }
    }

    fn is_this(&self, id: u64) -> Result<(), Status> {
        if id == self.meta.state().member_id {
            Ok(())
        } else {
            Err(status::MEMBER_NOT_FOUND)
        }
    }

    pub(super) fn member_list(&self) -> MemberListResponse {
        MemberListResponse {
            header: Some(self.cluster_header()),
            members: vec![self.itself()],
        }
    }

    pub(super) fn member_add(&self, request: &MemberAddRequest) -> Result<MemberAddResponse, Status> {
        if request.peer_ur_ls.is_empty() {
            return Err(Status::of(
                Code::InvalidArgument,
                "etcdserver: given member URLs are invalid",
            ));
        }
        let what = "etcdserver: this store has one member; replicas are joined by its own means";
        Err(Status::of(Code::Unimplemented, what))
    }

    pub(super) fn member_remove(&self, request: &MemberRemoveRequest) -> Result<MemberRemoveResponse, Status> {
        self.is_this(request.id)?;
        Err(status::NOT_ENOUGH_STARTED)
    }

    pub(super) fn member_update(&self, request: &MemberUpdateRequest) -> Result<MemberUpdateResponse, Status> {
        self.is_this(request.id)?;
        let what = "etcdserver: this member has no peers that could reach it elsewhere";
        Err(Status::of(Code::Unimplemented, what))
    }

    pub(super) fn member_promote(&self, request: &MemberPromoteRequest) -> Result<MemberPromoteResponse, Status> {
        self.is_this(request.id)?;
        Err(status::MEMBER_NOT_LEARNER)
    }
}
