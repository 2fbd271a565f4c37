//! Addresses and ports that the super cluster has given to Services of its own: tenants' planes must not give them again. They
//! are claimed in the planes' allocator, in the super cluster's name.

use std::net::Ipv4Addr;

use api::{Object, PlaneId, resource::SERVICES};
use apiserver::{
    Planes,
    planes::addresses::{Owner, Taken},
};
use client::{Informer, InformerOptions, Notice, PlaneKey, Sources, Tasks};
use tenancy::identity;

use super::doors::DOOR_OF;

/// `local` is the plane beside the tenants', which nobody reaches and whose own Service may have any address.
pub fn start(super_sources: &Sources, super_plane: &PlaneKey, local: &PlaneKey, planes: Planes) -> Tasks {
    let tasks = Tasks::new();
    let services = Informer::start(super_sources, SERVICES, InformerOptions::default());
    let mut changes = services.subscribe();
    let (plane, local) = (super_plane.plane, local.plane);
    let owner = move |service: &Object| Owner {
        plane,
        namespace: service.namespace().to_owned(),
        name: service.name().to_owned(),
    };
    tasks.spawn(async move {
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => {
                    if let Some(old) = change.old.filter(is_own) {
                        release(&planes, &old, change.new.as_ref(), &owner(&old)).await;
                    }
                    if let Some(new) = change.new.filter(is_own) {
                        claim(&planes, &new, &owner(&new), local).await;
                    }
                }
                Notice::Rescan => {
                    for (_, service) in services.all().into_iter().filter(|(_, service)| is_own(service)) {
                        claim(&planes, &service, &owner(&service), local).await;
                    }
                }
                Notice::Synced(_) | Notice::Removed(_) => {}
            }
        }
    });
    tasks
}

/// Not a tenant's, whose plane has given its address, nor a plane's door.
fn is_own(service: &Object) -> bool {
    service.label(identity::PLANE).is_none() && service.label(DOOR_OF).is_none()
}

fn addresses(service: &Object) -> Vec<Ipv4Addr> {
    let all = service.tree()["spec"]["clusterIPs"].as_array().into_iter().flatten();
    all.filter_map(|address| address.as_str()?.parse().ok()).collect()
}

fn ports(service: &Object) -> Vec<u16> {
    let all = service.tree()["spec"]["ports"].as_array().into_iter().flatten();
    all.filter_map(|port| u16::try_from(port["nodePort"].as_u64()?).ok())
        .collect()
}

async fn claim(planes: &Planes, service: &Object, owner: &Owner, local: PlaneId) {
    for address in addresses(service) {
        match planes.addresses().claim_address(address, owner).await {
            Ok(Ok(())) => {}
            Ok(Err(Taken::By(one))) if one.plane == local => {}
            // A tenant was faster; the super cluster will refuse its Service, which says so.
            Ok(Err(taken)) => {
                tracing::warn!(%address, ?taken, "the super cluster has given an address that a tenant has")
            }
            Err(error) => tracing::warn!(%address, %error, "an address of the super cluster can't be claimed"),
        }
    }
    for port in ports(service) {
        if let Err(error) = planes.addresses().claim_port(port, owner).await {
            tracing::warn!(port, %error, "a port of the super cluster can't be claimed");
        }
    }
}

async fn release(planes: &Planes, old: &Object, new: Option<&Object>, owner: &Owner) {
    let kept = new.map(addresses).unwrap_or_default();
    for address in addresses(old).into_iter().filter(|address| !kept.contains(address)) {
        // Failing this it stays claimed, which costs an address and nothing else.
        let _ = planes.addresses().release_address(address, owner).await;
    }
    let kept = new.map(ports).unwrap_or_default();
    for port in ports(old).into_iter().filter(|port| !kept.contains(port)) {
        let _ = planes.addresses().release_port(port, owner).await;
    }
}
