//! What names there are, a zone a plane. Filled by whoever watches Services and EndpointSlices.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{Arc, RwLock},
};

/// A Service as its names need it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceNames {
    pub kind: ServiceKind,
    /// (name, protocol in lower case, port) of named ports.
    pub ports: Vec<(String, String, u16)>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ServiceKind {
    Address(Ipv4Addr),
    /// Answered by its endpoints.
    #[default]
    Headless,
    /// `type: ExternalName`.
    External(String),
}

/// An EndpointSlice as names of headless Services need it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SliceNames {
    pub service: String,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<(String, String, u16)>,
}

/// One that is ready (or whose Service publishes all).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub hostname: Option<String>,
}

impl Endpoint {
    /// The label by which the endpoint has a name of its own.
    pub fn label(&self) -> String {
        self.hostname
            .clone()
            .unwrap_or_else(|| self.address.to_string().replace('.', "-"))
    }
}

#[derive(Default)]
pub(crate) struct Zone {
    /// By (namespace, name).
    pub services: HashMap<(String, String), ServiceNames>,
    /// By (namespace, Service), then by the slice's name.
    pub slices: HashMap<(String, String), BTreeMap<String, SliceNames>>,
    /// The Service behind an address, for reverse look-ups.
    pub by_address: HashMap<Ipv4Addr, (String, String)>,
    /// Which Service a slice was of when last seen.
    slice_of: HashMap<(String, String), String>,
}

/// The zones of all planes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Zones {
    zones: Arc<RwLock<HashMap<Ipv4Addr, Zone>>>,
    /// The plane of each Pod that is known to have one.
    pods: Arc<RwLock<HashMap<Ipv4Addr, Ipv4Addr>>>,
}

impl Zones {
    /// Sets or removes the names of a Service of the plane at `plane`.
    pub fn set_service(&self, plane: Ipv4Addr, namespace: &str, name: &str, names: Option<ServiceNames>) {
        self.change(plane, |zone| {
            let key = (namespace.to_owned(), name.to_owned());
            if let Some(ServiceNames {
                kind: ServiceKind::Address(address),
                ..
            }) = zone.services.remove(&key)
            {
                zone.by_address.remove(&address);
            }
            if let Some(names) = names {
                if let ServiceKind::Address(address) = names.kind {
                    zone.by_address.insert(address, key.clone());
                }
                zone.services.insert(key, names);
            }
        });
    }

    /// Sets or removes an EndpointSlice.
    pub fn set_slice(&self, plane: Ipv4Addr, namespace: &str, slice: &str, names: Option<SliceNames>) {
        self.change(plane, |zone| {
            let key = (namespace.to_owned(), slice.to_owned());
            if let Some(service) = zone.slice_of.remove(&key) {
                let service = (namespace.to_owned(), service);
                if let Some(slices) = zone.slices.get_mut(&service) {
                    slices.remove(slice);
                    if slices.is_empty() {
                        zone.slices.remove(&service);
                    }
                }
            }
            if let Some(names) = names {
                zone.slice_of.insert(key, names.service.clone());
                let service = (namespace.to_owned(), names.service.clone());
                zone.slices.entry(service).or_default().insert(slice.to_owned(), names);
            }
        });
    }

    /// Says, or takes back, that the Pod at `pod` is of the plane at `plane`: no other plane answers it. A Pod that
    /// nothing was said about may ask any, so that one which is faster than its status misses no answer.
    pub fn set_pod(&self, pod: Ipv4Addr, plane: Option<Ipv4Addr>) {
        let mut pods = self.pods.write().expect("no one panics while holding it");
        match plane {
            Some(plane) => pods.insert(pod, plane),
            None => pods.remove(&pod),
        };
    }

    pub(crate) fn may_ask(&self, pod: Ipv4Addr, plane: Ipv4Addr) -> bool {
        let pods = self.pods.read().expect("no one panics while holding it");
        pods.get(&pod).is_none_or(|own| *own == plane)
    }

    /// A plane that is no more.
    pub fn forget(&self, plane: Ipv4Addr) {
        self.zones
            .write()
            .expect("no one panics while holding it")
            .remove(&plane);
    }

    fn change(&self, plane: Ipv4Addr, change: impl FnOnce(&mut Zone)) {
        let mut zones = self.zones.write().expect("no one panics while holding it");
        let zone = zones.entry(plane).or_default();
        change(zone);
        // A plane without names costs nothing.
        if zone.services.is_empty() && zone.slices.is_empty() {
            zones.remove(&plane);
        }
    }

    pub(crate) fn read<T>(&self, plane: Ipv4Addr, read: impl FnOnce(&Zone) -> T) -> T {
        let zones = self.zones.read().expect("no one panics while holding it");
        match zones.get(&plane) {
            Some(zone) => read(zone),
            None => read(&Zone::default()),
        }
    }
}
