//! Addresses and node ports that planes share: one allocator for all, by create-if-absent of single keys.
//!
//! `/p/ips/<address>` and `/p/ports/<port>` in the shared keyspace hold whose it is. A random start and then the next
//! free one: no bitmap, no lock, no key that all writers fight over. Where the Service lies in the same keyspace its
//! claims are made in one transaction with it; otherwise before it, and [`super::repair`] finds what a crash left.

use std::{net::Ipv4Addr, ops::RangeInclusive, sync::Arc};

use api::{PlaneId, Status};
use bytes::Bytes;
use keyspace::{Compare, Keyspace, Op, Options, Revision, Txn};
use serde::{Deserialize, Serialize};
use world::Random;

use super::{read_key, refuse};

/// An allocation gives up after so many taken addresses in a row; a range so full needs to be made larger.
const TRIES_MAX: usize = 4096;

/// The addresses of Services, by whom they are for. All bounds are inclusive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceRanges {
    /// The super plane's own Services; the first address is its `kubernetes`.
    pub root: RangeInclusive<Ipv4Addr>,
    /// Tenants' Services.
    pub tenants: RangeInclusive<Ipv4Addr>,
    /// Tenants' `kubernetes` Services, by which the Pods' door knows the plane.
    pub pods_door: RangeInclusive<Ipv4Addr>,
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceRanges {
    fn default() -> ServiceRanges {
        ServiceRanges {
            root: Ipv4Addr::new(10, 96, 0, 0)..=Ipv4Addr::new(10, 96, 255, 255),
            tenants: Ipv4Addr::new(10, 97, 0, 0)..=Ipv4Addr::new(10, 103, 255, 255),
            pods_door: Ipv4Addr::new(10, 104, 0, 0)..=Ipv4Addr::new(10, 111, 255, 255),
            node_ports: 30000..=32767,
        }
    }
}

impl ServiceRanges {
    /// The super plane's `kubernetes` Service: the first usable address, as upstream has it.
    pub fn root_kubernetes(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(*self.root.start()) + 1)
    }
}

/// Whose an address or port is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owner {
    pub plane: PlaneId,
    pub namespace: String,
    pub name: String,
}

/// What was asked for could not be given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// By this one.
    By(Owner),
    /// The whole range, as far as was looked.
    Full,
}

/// The allocator. Cheap to clone.
#[derive(Clone)]
pub struct Addresses {
    keyspace: Arc<dyn Keyspace>,
    random: Arc<dyn Random>,
}

impl Addresses {
    pub fn new(keyspace: Arc<dyn Keyspace>, random: Arc<dyn Random>) -> Addresses {
        Addresses { keyspace, random }
    }

    /// Any free address of the range but its first and last.
    pub async fn allocate_address(
        &self,
        range: &RangeInclusive<Ipv4Addr>,
        owner: &Owner,
    ) -> Result<Result<Ipv4Addr, Taken>, Status> {
        let first = u32::from(*range.start()) + 1;
        let size = u32::from(*range.end()).saturating_sub(first);
        for offset in self.offsets(size) {
            let address = Ipv4Addr::from(first + offset);
            if self.claim(address_key(address), owner).await?.is_none() {
                return Ok(Ok(address));
            }
        }
        Ok(Err(Taken::Full))
    }

    /// This one address. Claiming again what one owns succeeds.
    pub async fn claim_address(&self, address: Ipv4Addr, owner: &Owner) -> Result<Result<(), Taken>, Status> {
        Ok(match self.claim(address_key(address), owner).await? {
            Some(other) if other != *owner => Err(Taken::By(other)),
            _ => Ok(()),
        })
    }

    pub async fn allocate_port(
        &self,
        range: &RangeInclusive<u16>,
        owner: &Owner,
    ) -> Result<Result<u16, Taken>, Status> {
        let size = u32::from(range.end().saturating_sub(*range.start())) + 1;
        for offset in self.offsets(size) {
            let port = range.start() + u16::try_from(offset).expect("an offset into a range of ports is one");
            if self.claim(port_key(port), owner).await?.is_none() {
                return Ok(Ok(port));
            }
        }
        Ok(Err(Taken::Full))
    }

    pub async fn claim_port(&self, port: u16, owner: &Owner) -> Result<Result<(), Taken>, Status> {
        Ok(match self.claim(port_key(port), owner).await? {
            Some(other) if other != *owner => Err(Taken::By(other)),
            _ => Ok(()),
        })
    }

    /// Any address of the range that is free now, for a claim that goes with a write (see [`Addresses::claim_of_address`]).
    pub async fn free_address(&self, range: &RangeInclusive<Ipv4Addr>) -> Result<Result<Ipv4Addr, Taken>, Status> {
        let first = u32::from(*range.start()) + 1;
        let size = u32::from(*range.end()).saturating_sub(first);
        for offset in self.offsets(size) {
            let address = Ipv4Addr::from(first + offset);
            if self.owner_of_address(address).await?.is_none() {
                return Ok(Ok(address));
            }
        }
        Ok(Err(Taken::Full))
    }

    /// Any port of the range that is free now and not one of `but`.
    pub async fn free_port(&self, range: &RangeInclusive<u16>, but: &[u16]) -> Result<Result<u16, Taken>, Status> {
        let size = u32::from(range.end().saturating_sub(*range.start())) + 1;
        for offset in self.offsets(size) {
            let port = range.start() + u16::try_from(offset).expect("an offset into a range of ports is one");
            if !but.contains(&port) && self.owner_of_port(port).await?.is_none() {
                return Ok(Ok(port));
            }
        }
        Ok(Err(Taken::Full))
    }

    /// The claim of an address as a part of another transaction on the same keyspace: it fails if the address is taken.
    pub fn claim_of_address(address: Ipv4Addr, owner: &Owner) -> (Compare, Op) {
        claim_of(address_key(address), owner)
    }

    pub fn claim_of_port(port: u16, owner: &Owner) -> (Compare, Op) {
        claim_of(port_key(port), owner)
    }

    /// Giving an address back as a part of another transaction; `None` if it is not the owner's.
    pub async fn release_of_address(&self, address: Ipv4Addr, owner: &Owner) -> Result<Option<(Compare, Op)>, Status> {
        self.release_of(address_key(address), owner).await
    }

    pub async fn release_of_port(&self, port: u16, owner: &Owner) -> Result<Option<(Compare, Op)>, Status> {
        self.release_of(port_key(port), owner).await
    }

    async fn release_of(&self, key: Bytes, owner: &Owner) -> Result<Option<(Compare, Op)>, Status> {
        let (_, found) = read_key(&*self.keyspace, key.clone()).await?;
        Ok(found
            .filter(|found| serde_json::from_slice::<Owner>(&found.value).is_ok_and(|has| has == *owner))
            .map(|found| (Compare::unchanged(key.clone(), found.mod_revision), Op::delete(key))))
    }

    pub async fn release_address(&self, address: Ipv4Addr, owner: &Owner) -> Result<(), Status> {
        self.release(address_key(address), owner).await
    }

    pub async fn release_port(&self, port: u16, owner: &Owner) -> Result<(), Status> {
        self.release(port_key(port), owner).await
    }

    pub async fn owner_of_address(&self, address: Ipv4Addr) -> Result<Option<Owner>, Status> {
        let (_, found) = read_key(&*self.keyspace, address_key(address)).await?;
        Ok(found.and_then(|found| serde_json::from_slice(&found.value).ok()))
    }

    pub async fn owner_of_port(&self, port: u16) -> Result<Option<Owner>, Status> {
        let (_, found) = read_key(&*self.keyspace, port_key(port)).await?;
        Ok(found.and_then(|found| serde_json::from_slice(&found.value).ok()))
    }

    fn offsets(&self, size: u32) -> impl Iterator<Item = u32> + use<> {
        let mut random = [0; 4];
        self.random.fill(&mut random);
        let start = u32::from_le_bytes(random) % size.max(1);
        (0..size).map(move |step| (start + step) % size).take(TRIES_MAX)
    }

    /// `None` if it was free; else whose it is.
    async fn claim(&self, key: Bytes, owner: &Owner) -> Result<Option<Owner>, Status> {
        let (free, put) = claim_of(key.clone(), owner);
        let txned = self
            .keyspace
            .txn(
                Txn {
                    compares: vec![free],
                    success: vec![put],
                    failure: Vec::new(),
                },
                Options::default(),
            )
            .await
            .map_err(refuse)?;
        if txned.succeeded {
            return Ok(None);
        }
        let (_, found) = read_key(&*self.keyspace, key).await?;
        Ok(Some(
            found
                .and_then(|found| serde_json::from_slice(&found.value).ok())
                // Given back between the two reads: to this caller it was taken all the same.
                .unwrap_or_else(|| Owner {
                    plane: owner.plane,
                    namespace: String::new(),
                    name: String::new(),
                }),
        ))
    }

    /// Gives it back if it is the owner's; what is not stays.
    async fn release(&self, key: Bytes, owner: &Owner) -> Result<(), Status> {
        let value = serde_json::to_vec(owner).expect("an owner always encodes");
        let ours = Compare {
            keys: keyspace::KeyRange::one(key.clone()),
            relation: keyspace::Relation::Equal,
            comparand: keyspace::Comparand::Value(value.into()),
        };
        self.keyspace
            .txn(
                Txn {
                    compares: vec![ours],
                    success: vec![Op::delete(key)],
                    failure: Vec::new(),
                },
                Options::default(),
            )
            .await
            .map_err(refuse)?;
        Ok(())
    }
}

fn claim_of(key: Bytes, owner: &Owner) -> (Compare, Op) {
    let value = serde_json::to_vec(owner).expect("an owner always encodes");
    (Compare::unchanged(key.clone(), Revision(0)), Op::put(key, value))
}

fn address_key(address: Ipv4Addr) -> Bytes {
    format!("/p/ips/{address}").into()
}

fn port_key(port: u16) -> Bytes {
    format!("/p/ports/{port}").into()
}
