//! Claims of addresses and ports by Services: made and given back in one transaction with the Service where they lie in
//! the same keyspace, so that no crash comes in between; otherwise before and after it.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use api::{Status, keys::Layout};
use serde_json::Value;

use super::{
    Place,
    objects::Beside,
    services::{cluster_addresses, node_ports},
};
use crate::planes::{
    Addresses, Planes,
    addresses::{Owner, Taken},
};

/// More claims than this are not made in one transaction with the Service: etcd takes 128 operations in one.
const CLAIMS_AT_ONCE_MAX: usize = 48;

/// What is newly claimed for a write.
pub(super) struct Claims {
    pub owner: Owner,
    addresses: Vec<Ipv4Addr>,
    pub ports: Vec<u16>,
    /// Claimed by the write's own transaction. Otherwise they have been claimed, and are to be given back if the write
    /// comes to nothing.
    with_write: bool,
}

impl Claims {
    /// `count` of them at most.
    pub fn new(place: &Place<'_>, count: usize) -> Claims {
        Claims {
            owner: owner(place),
            addresses: Vec::new(),
            ports: Vec::new(),
            with_write: with_write(place, count),
        }
    }

    /// What the write has to do besides.
    pub fn beside(&self) -> Beside {
        if !self.with_write {
            return Beside::default();
        }
        let addresses = self.addresses.iter();
        let ports = self.ports.iter();
        let (compares, ops) = addresses
            .map(|address| Addresses::claim_of_address(*address, &self.owner))
            .chain(ports.map(|port| Addresses::claim_of_port(*port, &self.owner)))
            .unzip();
        Beside { compares, ops }
    }

    pub async fn give_back(self, planes: &Planes) {
        if self.with_write {
            return;
        }
        for address in self.addresses {
            // Failing this the address is found by the repair; the write's own refusal matters more.
            let _ = planes.addresses().release_address(address, &self.owner).await;
        }
        for port in self.ports {
            let _ = planes.addresses().release_port(port, &self.owner).await;
        }
    }

    pub async fn any_address(
        &mut self,
        planes: &Planes,
        range: &RangeInclusive<Ipv4Addr>,
    ) -> Result<Result<Ipv4Addr, Taken>, Status> {
        let found = if self.with_write {
            planes.addresses().free_address(range).await?
        } else {
            planes.addresses().allocate_address(range, &self.owner).await?
        };
        self.addresses.extend(&found);
        Ok(found)
    }

    pub async fn address(&mut self, planes: &Planes, address: Ipv4Addr) -> Result<Result<(), Taken>, Status> {
        if !self.with_write {
            let claimed = planes.addresses().claim_address(address, &self.owner).await?;
            self.addresses.extend(claimed.as_ref().ok().map(|()| address));
            return Ok(claimed);
        }
        Ok(match planes.addresses().owner_of_address(address).await? {
            None => {
                self.addresses.push(address);
                Ok(())
            }
            Some(other) if other != self.owner => Err(Taken::By(other)),
            Some(_) => Ok(()),
        })
    }

    /// It stays the owner's, whatever becomes of the write.
    pub fn keep(&mut self, address: Ipv4Addr) {
        if !self.with_write {
            self.addresses.retain(|claimed| *claimed != address);
        }
    }

    pub async fn any_port(
        &mut self,
        planes: &Planes,
        range: &RangeInclusive<u16>,
    ) -> Result<Result<u16, Taken>, Status> {
        let found = if self.with_write {
            planes.addresses().free_port(range, &self.ports).await?
        } else {
            planes.addresses().allocate_port(range, &self.owner).await?
        };
        self.ports.extend(&found);
        Ok(found)
    }

    pub async fn port(&mut self, planes: &Planes, port: u16) -> Result<Result<(), Taken>, Status> {
        if !self.with_write {
            let claimed = planes.addresses().claim_port(port, &self.owner).await?;
            self.ports.extend(claimed.as_ref().ok().map(|()| port));
            return Ok(claimed);
        }
        Ok(match planes.addresses().owner_of_port(port).await? {
            None => {
                self.ports.push(port);
                Ok(())
            }
            Some(other) if other != self.owner => Err(Taken::By(other)),
            Some(_) => Ok(()),
        })
    }
}

/// Whether claims lie in the keyspace of the plane's objects, so that one transaction reaches both.
fn with_write(place: &Place<'_>, claims: usize) -> bool {
    place.plane.layout == Layout::Shared && claims <= CLAIMS_AT_ONCE_MAX
}

fn owner(place: &Place<'_>) -> Owner {
    Owner {
        plane: place.plane.id,
        namespace: place.namespace.unwrap_or_default().to_owned(),
        name: place.name.to_owned(),
    }
}

/// What a write gives back.
#[derive(Default)]
pub(super) struct Releases {
    /// What the write has to do besides.
    pub beside: Beside,
    /// What is to be given back once it is done, where one transaction does not reach both.
    pub after: Dropped,
}

#[derive(Default)]
pub(super) struct Dropped {
    owner: Option<Owner>,
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Dropped {
    pub async fn carry_out(self, planes: &Planes) -> Result<(), Status> {
        let Some(owner) = self.owner else { return Ok(()) };
        for address in self.addresses {
            planes.addresses().release_address(address, &owner).await?;
        }
        for port in self.ports {
            planes.addresses().release_port(port, &owner).await?;
        }
        Ok(())
    }
}

impl Releases {
    /// What a Service no longer uses that becomes `new`, or goes. The plane's own `kubernetes` keeps its address: the
    /// Pods' door stands on it.
    pub async fn of(planes: &Planes, place: &Place<'_>, old: &Value, new: Option<&Value>) -> Result<Releases, Status> {
        if !place.kind.is_core("services") {
            return Ok(Releases::default());
        }
        let own = place.plane.record.kubernetes_service_ip;
        let addresses = dropped(cluster_addresses(old), new.map(cluster_addresses));
        let addresses: Vec<Ipv4Addr> = addresses.into_iter().filter(|address| *address != own).collect();
        let ports = dropped(node_ports(old), new.map(node_ports));
        let owner = owner(place);
        if !with_write(place, addresses.len() + ports.len()) {
            return Ok(Releases {
                beside: Beside::default(),
                after: Dropped {
                    owner: Some(owner),
                    addresses,
                    ports,
                },
            });
        }
        let mut parts = Vec::new();
        for address in addresses {
            parts.extend(planes.addresses().release_of_address(address, &owner).await?);
        }
        for port in ports {
            parts.extend(planes.addresses().release_of_port(port, &owner).await?);
        }
        let (compares, ops) = parts.into_iter().unzip();
        Ok(Releases {
            beside: Beside { compares, ops },
            after: Dropped::default(),
        })
    }
}

/// What was there and is no longer, each once.
fn dropped<T: Ord>(mut had: Vec<T>, kept: Option<Vec<T>>) -> Vec<T> {
    let kept = kept.unwrap_or_default();
    had.retain(|one| !kept.contains(one));
    had.sort();
    had.dedup();
    had
}
