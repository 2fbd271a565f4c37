//! Claims of addresses and ports that a crash left without their Service.
//!
//! A tenant's claims are made in one transaction with its Service, so only the super plane's can be left behind, whose
//! Services lie in another keyspace. They are looked for once, when that plane is opened; an idle process does nothing.

use std::{net::Ipv4Addr, time::Duration};

use api::{Object, Status, resource};
use bytes::Bytes;
use keyspace::{Compare, KeyRange, KeyValue, Op, Options, Range, Txn};

use super::{Plane, Planes, addresses::Owner, read_key, refuse};
use crate::registry::services::{cluster_addresses, node_ports};

/// Another server may be between a claim and its write; none takes longer (the limit of a request is 60 seconds).
pub(super) const CLAIM_TO_WRITE_MAX: Duration = Duration::from_secs(90);

/// Claims read at once.
const PAGE: usize = 500;

impl Planes {
    /// Gives back what the super plane's Services claimed and do not have, if that is still so after `patience`. Returns
    /// how many there were.
    pub async fn repair_claims(&self, plane: &Plane, patience: Duration) -> Result<usize, Status> {
        let suspects = self.unused_claims(plane).await?;
        if suspects.is_empty() {
            return Ok(0);
        }
        self.world().clock.sleep(patience).await;
        let mut count = 0;
        for claim in suspects {
            if self.is_used(plane, &claim).await? {
                continue;
            }
            let txn = Txn {
                compares: vec![Compare::unchanged(claim.key.clone(), claim.mod_revision)],
                success: vec![Op::delete(claim.key)],
                failure: Vec::new(),
            };
            let txned = self.shared().txn(txn, Options::default()).await.map_err(refuse)?;
            count += usize::from(txned.succeeded);
        }
        Ok(count)
    }

    async fn unused_claims(&self, plane: &Plane) -> Result<Vec<KeyValue>, Status> {
        let mut unused = Vec::new();
        for prefix in [prefix_of_root(self.ranges().root.start()), "/p/ports/".to_owned()] {
            let mut keys = KeyRange::prefix(prefix);
            loop {
                let range = Range {
                    limit: Some(PAGE),
                    ..Range::of(keys.clone())
                };
                let ranged = self.shared().range(range, Options::default()).await.map_err(refuse)?;
                let last = ranged.items.last().map(|item| item.key.clone());
                for claim in ranged.items {
                    if !self.is_used(plane, &claim).await? {
                        unused.push(claim);
                    }
                }
                let Some(last) = last.filter(|_| ranged.more) else {
                    break;
                };
                let mut next = last.to_vec();
                next.push(0);
                keys.start = Bytes::from(next);
            }
        }
        Ok(unused)
    }

    /// Whether a claim is somebody else's, or its Service is there and has it.
    async fn is_used(&self, plane: &Plane, claim: &KeyValue) -> Result<bool, Status> {
        let Ok(owner) = serde_json::from_slice::<Owner>(&claim.value) else {
            return Ok(true);
        };
        if owner.plane != plane.id {
            return Ok(true);
        }
        let key = plane
            .layout
            .key(plane.id, &resource::SERVICES, None, Some(&owner.namespace), &owner.name);
        let (_, found) = read_key(&*plane.keyspace, key).await?;
        let what = std::str::from_utf8(&claim.key).unwrap_or_default();
        let what = what.rsplit('/').next().unwrap_or_default();
        if what.parse::<Ipv4Addr>() == Ok(plane.record.kubernetes_service_ip) {
            return Ok(true);
        }
        let Some(service) = found.map(|found| Object::from_stored(found.value)) else {
            return Ok(false);
        };
        let tree = service.tree();
        Ok(match (what.parse::<Ipv4Addr>(), what.parse::<u16>()) {
            (Ok(address), _) => cluster_addresses(tree).contains(&address),
            (_, Ok(port)) => node_ports(tree).contains(&port),
            _ => true,
        })
    }
}

/// The keys of addresses that begin as the super plane's do.
fn prefix_of_root(start: &Ipv4Addr) -> String {
    let [first, second, ..] = start.octets();
    format!("/p/ips/{first}.{second}.")
}
