//! The seam by which tenants' planes are made: in this process, in a process of their own, or elsewhere.

use api::PlaneId;
use async_trait::async_trait;
use client::PlaneKey;

use crate::{identity::Tenant, virtual_cluster::Settings};

/// A tenant's plane that can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provisioned {
    pub plane: PlaneKey,
    pub name: String,
    /// The address of the plane's `kubernetes` Service.
    pub kubernetes_address: String,
    pub ca_pem: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Try again later: something older by this name is still ending.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Failed(String),
}

#[async_trait]
pub trait Provisioner: Send + Sync + 'static {
    /// The plane by this name, made if there is none. Names are those of VirtualClusters, of which one name has one at a time.
    async fn provide(&self, name: &str) -> Result<Provisioned, ProvisionError>;

    /// `None` if there is no such plane, or it is being deleted.
    async fn find(&self, plane: PlaneId) -> Result<Option<Provisioned>, ProvisionError>;

    async fn named(&self, name: &str) -> Result<Option<PlaneId>, ProvisionError>;

    /// Ends a plane and all it holds; done when this returns. Deleting what is not there is done.
    async fn delete(&self, plane: PlaneId) -> Result<(), ProvisionError>;
}

/// What is alike for all tenants of one super cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuperCluster {
    /// The uid of its `kube-system` namespace.
    pub id: String,
    pub cluster_domain: String,
}

impl Provisioned {
    pub fn tenant(&self, super_cluster: &SuperCluster, settings: Settings) -> Tenant {
        Tenant {
            plane: self.plane.plane,
            name: self.name.clone(),
            kubernetes_address: self.kubernetes_address.clone(),
            cluster_domain: super_cluster.cluster_domain.clone(),
            super_id: super_cluster.id.clone(),
            ca_pem: self.ca_pem.clone(),
            settings,
        }
    }
}
