//! Whose address is whose, as it goes from one to another: a plane that is no more leaves its address to a new one, a Pod
//! its own to the next. What is said late about the former must not touch the latter.

use std::{collections::HashMap, net::Ipv4Addr};

use api::PlaneId;
use client::ObjectKey;

#[derive(Default)]
pub(super) struct Ledger {
    planes: HashMap<PlaneId, Ipv4Addr>,
    /// The plane whose names stand under an address.
    owners: HashMap<Ipv4Addr, PlaneId>,
    pods: HashMap<ObjectKey, Ipv4Addr>,
    /// The Pod that had an address last.
    askers: HashMap<Ipv4Addr, ObjectKey>,
}

/// Whether names of a plane that is no more stand under an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Former {
    Stale,
    None,
}

impl Ledger {
    /// The plane has this address.
    pub fn claim(&mut self, plane: PlaneId, address: Ipv4Addr) -> Former {
        self.planes.insert(plane, address);
        match self.owners.insert(address, plane) {
            Some(former) if former != plane => Former::Stale,
            _ => Former::None,
        }
    }

    /// The plane is no more. Returns the address whose names are to be forgotten.
    pub fn forget(&mut self, plane: PlaneId) -> Option<Ipv4Addr> {
        let address = self.planes.remove(&plane)?;
        if self.owners.get(&address) != Some(&plane) {
            return None;
        }
        self.owners.remove(&address);
        Some(address)
    }

    /// The Pod has this address. Returns the one that it had, if that is nobody's now.
    pub fn set_pod(&mut self, pod: &ObjectKey, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let left = match self.pods.get(pod) {
            Some(known) if *known != ip => self.remove_pod(pod),
            _ => None,
        };
        self.pods.insert(pod.clone(), ip);
        self.askers.insert(ip, pod.clone());
        left
    }

    /// The Pod has no address any more. Returns the one that it had, if that is nobody's now.
    pub fn remove_pod(&mut self, pod: &ObjectKey) -> Option<Ipv4Addr> {
        let ip = self.pods.remove(pod)?;
        if self.askers.get(&ip) != Some(pod) {
            return None;
        }
        self.askers.remove(&ip);
        Some(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::{PlaneKey, SourceId};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 104, 0, 1);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);

    fn plane(name: &str) -> PlaneId {
        name.repeat(16).parse().unwrap()
    }

    fn pod(name: &str) -> ObjectKey {
        let plane = PlaneKey {
            source: SourceId::new("super"),
            plane: plane("s"),
        };
        plane.object("acme-shop", name)
    }

    #[test]
    fn a_plane_that_is_no_more_takes_its_names_with_it() {
        let mut ledger = Ledger::default();

        assert_eq!(ledger.claim(plane("a"), ADDRESS), Former::None);
        assert_eq!(ledger.forget(plane("a")), Some(ADDRESS));
        assert_eq!(ledger.forget(plane("a")), None);
        assert_eq!(ledger.claim(plane("b"), ADDRESS), Former::None);
    }

    #[test]
    fn a_plane_that_is_given_anothers_address_sees_none_of_its_names_and_keeps_its_own() {
        let mut ledger = Ledger::default();
        ledger.claim(plane("a"), ADDRESS);

        assert_eq!(ledger.claim(plane("b"), ADDRESS), Former::Stale);
        assert_eq!(ledger.forget(plane("a")), None, "told late, and of another by now");
        assert_eq!(ledger.claim(plane("b"), ADDRESS), Former::None);
    }

    #[test]
    fn a_pods_address_that_was_given_on_is_not_taken_from_the_next_pod() {
        let mut ledger = Ledger::default();
        ledger.set_pod(&pod("old"), IP);
        ledger.set_pod(&pod("new"), IP);

        assert_eq!(ledger.remove_pod(&pod("old")), None);
        assert_eq!(ledger.remove_pod(&pod("new")), Some(IP));
        assert_eq!(ledger.remove_pod(&pod("new")), None);
    }

    #[test]
    fn a_pod_that_changes_its_address_leaves_the_old_one() {
        let mut ledger = Ledger::default();
        ledger.set_pod(&pod("p"), IP);

        assert_eq!(ledger.set_pod(&pod("p"), IP), None);
        assert_eq!(ledger.set_pod(&pod("p"), Ipv4Addr::new(10, 244, 0, 10)), Some(IP));
    }
}
