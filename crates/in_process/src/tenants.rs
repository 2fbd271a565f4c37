//! Planes of tenants, made by the API server of this process.

use api::{PlaneId, Reason, Status};
use apiserver::{Plane, PlaneSpec, Planes};
use async_trait::async_trait;
use client::{PlaneKey, SourceId};
use futures::future::BoxFuture;
use tenancy::{ProvisionError, Provisioned, Provisioner};

pub struct InProcess {
    pub planes: Planes,
    /// The source by which loops see the shared keyspace.
    pub shared: SourceId,
}

impl InProcess {
    fn describe(&self, plane: &Plane) -> Provisioned {
        Provisioned {
            plane: PlaneKey {
                source: self.shared.clone(),
                plane: plane.id,
            },
            name: plane.record.name.clone(),
            kubernetes_address: plane.record.kubernetes_service_ip.to_string(),
            ca_pem: plane.record.ca_cert_pem.clone(),
        }
    }

    async fn open(&self, id: PlaneId) -> Result<Option<Provisioned>, ProvisionError> {
        match self.planes.open(id).await {
            Ok(plane) => Ok(Some(self.describe(&plane))),
            Err(status) if status.reason == Reason::NotFound => Ok(None),
            Err(status) => Err(failed(status)),
        }
    }
}

#[async_trait]
impl Provisioner for InProcess {
    async fn provide(&self, name: &str) -> Result<Provisioned, ProvisionError> {
        let id = match self.planes.find(name).await.map_err(failed)? {
            Some(id) => id,
            None => {
                let spec = PlaneSpec {
                    name: name.to_owned(),
                    ..PlaneSpec::default()
                };
                self.planes.create(spec).await.map_err(failed)?.id
            }
        };
        self.open(id)
            .await?
            .ok_or_else(|| ProvisionError::Busy(format!("the plane of an older {name:?} is being deleted")))
    }

    async fn find(&self, plane: PlaneId) -> Result<Option<Provisioned>, ProvisionError> {
        self.open(plane).await
    }

    async fn named(&self, name: &str) -> Result<Option<PlaneId>, ProvisionError> {
        self.planes.find(name).await.map_err(failed)
    }

    async fn delete(&self, plane: PlaneId) -> Result<(), ProvisionError> {
        match self.planes.delete(plane).await {
            Err(status) if status.reason != Reason::NotFound => Err(failed(status)),
            _ => Ok(()),
        }
    }
}

fn failed(status: Status) -> ProvisionError {
    ProvisionError::Failed(status.message)
}

/// The CA of each plane, as controllers ask for it; `root` is the super plane.
pub fn root_ca(
    planes: &Planes,
    root: &PlaneKey,
) -> impl Fn(&PlaneKey) -> BoxFuture<'static, Option<String>> + Send + Sync + use<> {
    let (planes, root) = (planes.clone(), root.clone());
    move |plane: &PlaneKey| {
        let (planes, plane, root) = (planes.clone(), plane.clone(), root.clone());
        Box::pin(async move {
            let opened = if plane == root {
                planes.root().await
            } else {
                planes.open(plane.plane).await
            };
            opened.ok().map(|plane| plane.record.ca_cert_pem.clone())
        })
    }
}
