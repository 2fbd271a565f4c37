//! What gets a person into a plane: a certificate of the plane's CA, made when asked for.

use std::time::Duration;

use anyhow::Context;
use apiserver::{ApiServer, PlaneRecord};
use identity::{
    Ca, Certified,
    kubeconfig::{Credential, Entry},
};
use serde::{Deserialize, Serialize};
use world::World;

/// A year, as kubeadm's administrators have it.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

pub struct Kubeconfigs {
    pub api: ApiServer,
    /// `https://host:port`
    pub server: String,
    /// The CA of the serving certificate.
    pub authority_pem: String,
    pub world: World,
}

/// An entry as it crosses the control socket.
#[derive(Serialize, Deserialize)]
pub struct Access {
    pub name: String,
    pub server: String,
    pub authority_pem: String,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Access {
    pub fn into_entry(self) -> Entry {
        Entry {
            name: self.name,
            server: self.server,
            authority_pem: self.authority_pem,
            credential: Credential::Certificate(Certified {
                certificate_pem: self.certificate_pem,
                key_pem: self.key_pem,
            }),
            namespace: None,
        }
    }
}

impl Kubeconfigs {
    /// The administrator of a tenant; `None` if there is no such tenant.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<Option<Access>> {
        let planes = self.api.planes();
        let Some(id) = planes.find(name).await? else {
            return Ok(None);
        };
        let plane = planes.open(id).await?;
        let server = format!("{}/planes/{id}", self.server);
        self.access(&plane.record, name, server, "admin").map(Some)
    }

    /// The administrator of the super cluster.
    pub async fn root(&self) -> anyhow::Result<Access> {
        let root = self.api.planes().root().await?;
        self.access(&root.record, "mangrove", self.server.clone(), "admin")
    }

    fn access(&self, record: &PlaneRecord, name: &str, server: String, user: &str) -> anyhow::Result<Access> {
        let certified = self.certificate(record, user, &["system:masters"])?;
        Ok(Access {
            name: name.to_owned(),
            server,
            authority_pem: self.authority_pem.clone(),
            certificate_pem: certified.certificate_pem,
            key_pem: certified.key_pem,
        })
    }

    /// A client certificate of a plane.
    pub fn certificate(&self, record: &PlaneRecord, user: &str, groups: &[&str]) -> anyhow::Result<Certified> {
        let ca = Ca::from_pem(&record.ca_cert_pem, &record.ca_key_pem).context("reading the plane's CA")?;
        ca.issue_client(
            user,
            groups,
            CERTIFICATE_LIFE,
            self.world.clock.wall(),
            &*self.world.random,
        )
        .context("issuing a client certificate")
    }
}
