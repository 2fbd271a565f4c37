//! A plane's record: all that is stored of a plane besides its objects.

use std::net::Ipv4Addr;

use api::PlaneId;
use serde::{Deserialize, Serialize};

/// Stored as JSON under `/p/planes/<id>` of the shared keyspace (the super plane's under `/p/root` of its own).
///
/// What a plane has by birth is rendered from its record (D6), so a record changes only when the template does, or
/// when the plane is about to be deleted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaneRecord {
    pub id: PlaneId,
    pub name: String,
    pub uid: String,
    /// RFC 3339, whole seconds, UTC: `2026-01-01T00:00:00Z`.
    pub created: String,
    pub ca_cert_pem: String,
    pub ca_key_pem: String,
    /// Signs the plane's service-account tokens; P-256 in PKCS #8.
    pub token_key_pem: String,
    /// The address of `default/kubernetes`; by it the Pods' door knows the plane.
    pub kubernetes_service_ip: Ipv4Addr,
    /// Which template the plane's own objects are rendered from.
    pub template_version: u32,
    #[serde(default)]
    pub deleting: bool,
    pub isolation: Isolation,
    pub bootstrap: Bootstrap,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// One of many in the shared keyspace.
    Shared,
    /// Alone in a keyspace of its own; the super plane is one.
    Dedicated,
}

/// Where the objects are that a plane has by birth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bootstrap {
    /// Rendered from the record whenever read, until first written.
    #[default]
    Templated,
    /// Written when the plane was made. So is the super plane's keyspace exchangeable with an upstream one.
    Materialised,
}

/// What a new plane is to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlaneSpec {
    /// Unique among the living planes of the keyspace.
    pub name: String,
    pub bootstrap: Bootstrap,
}

impl std::fmt::Debug for PlaneRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "plane {} ({}, keys withheld)", self.id, self.name)
    }
}
