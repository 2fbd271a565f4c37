//! Which Pods of this machine may reach which, told to the kernel before a Pod's first container starts.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;
use network::proxy::{Circle, Place, Protocol, Proxy, ServicePort, Target};

use crate::container::sandbox::port_mappings;
use crate::cri::OurPod;

/// Says from a Pod's annotations whom it may reach.
pub type CircleOf = Arc<dyn Fn(&BTreeMap<String, String>) -> Circle + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Walls {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    proxy: Proxy,
    circle_of: CircleOf,
    /// Pods of this machine, by uid.
    here: Mutex<HashMap<String, Neighbour>>,
    /// This machine: its address, and that by which its Pods know it.
    own: Mutex<Option<(Ipv4Addr, Ipv4Addr)>>,
    elsewhere: Mutex<Elsewhere>,
}

#[derive(Default)]
struct Elsewhere {
    nodes: BTreeMap<Ipv4Addr, Ipv4Addr>,
    pods: BTreeMap<Ipv4Addr, Circle>,
}

/// A Pod of another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    pub address: Ipv4Addr,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Neighbour {
    address: Ipv4Addr,
    circle: Circle,
    host_ports: BTreeMap<ServicePort, Target>,
}

impl Walls {
    /// Without a proxy somebody else separates Pods.
    pub fn new(proxy: Option<Proxy>, circle_of: Option<CircleOf>) -> Walls {
        let circle_of = circle_of.unwrap_or_else(|| Arc::new(|_: &BTreeMap<String, String>| Circle::Trusted));
        Walls {
            inner: proxy.map(|proxy| {
                Arc::new(Inner {
                    proxy,
                    circle_of,
                    here: Mutex::default(),
                    own: Mutex::default(),
                    elsewhere: Mutex::default(),
                })
            }),
        }
    }

    /// What runs here already, and this machine itself: the first word to the kernel, which replaces all that an earlier
    /// agent has said.
    pub async fn begin(&self, found: &[OurPod], node: IpAddr, gateway: Option<Ipv4Addr>) -> Result<(), network::Error> {
        let Some(inner) = &self.inner else { return Ok(()) };
        {
            let mut here = inner.here();
            for pod in found {
                if let Some(address) = pod.ips.iter().find_map(v4) {
                    let neighbour = Neighbour {
                        address,
                        circle: (inner.circle_of)(&pod.annotations),
                        // Said by the Pod's own loop.
                        host_ports: BTreeMap::new(),
                    };
                    here.insert(pod.uid.clone(), neighbour);
                }
            }
        }
        if let (IpAddr::V4(node), Some(gateway)) = (node, gateway) {
            *lock(&inner.own) = Some((node, gateway));
        }
        inner.say().await
    }

    /// All other nodes and their Pods.
    pub async fn set_remote(
        &self,
        nodes: BTreeMap<Ipv4Addr, Ipv4Addr>,
        pods: Vec<Remote>,
    ) -> Result<(), network::Error> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let circle = |pod: Remote| (pod.address, (inner.circle_of)(&pod.annotations));
        let pods = pods.into_iter().map(circle).collect();
        *lock(&inner.elsewhere) = Elsewhere { nodes, pods };
        inner.say().await
    }

    /// Whether there is nothing to [`Walls::set`].
    pub fn knows(&self, pod: &Pod, address: Option<IpAddr>) -> bool {
        let Some(inner) = &self.inner else { return true };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        inner.here().get(uid) == inner.neighbour(pod, address).as_ref()
    }

    /// The Pod has this address, or none any more. Completes when the kernel knows; at once if it does already.
    pub async fn set(&self, pod: &Pod, address: Option<IpAddr>) -> Result<(), network::Error> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let wanted = inner.neighbour(pod, address);
        {
            let mut here = inner.here();
            if here.get(&uid) == wanted.as_ref() {
                return Ok(());
            }
            match wanted {
                Some(neighbour) => drop(here.insert(uid.clone(), neighbour)),
                None => drop(here.remove(&uid)),
            }
        }
        let said = inner.say().await;
        if said.is_err() {
            // Not known to the kernel, so to be said again.
            inner.here().remove(&uid);
        }
        said
    }
}

impl Inner {
    fn neighbour(&self, pod: &Pod, address: Option<IpAddr>) -> Option<Neighbour> {
        // On the host's network the address is the machine's.
        let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let address = address.as_ref().and_then(v4).filter(|_| !on_host)?;
        Some(Neighbour {
            address,
            circle: (self.circle_of)(pod.metadata.annotations.as_ref().unwrap_or(&BTreeMap::new())),
            host_ports: host_ports(&port_mappings(pod), address),
        })
    }

    fn here(&self) -> std::sync::MutexGuard<'_, HashMap<String, Neighbour>> {
        lock(&self.here)
    }

    async fn say(&self) -> Result<(), network::Error> {
        self.proxy
            .set_addresses(|addresses| {
                // Looked at in here, where changes are in one order.
                let here = self.here();
                let here = || here.values();
                let elsewhere = lock(&self.elsewhere);
                addresses.nodes = elsewhere.nodes.clone();
                addresses.nodes.extend(*lock(&self.own));
                addresses.pods = elsewhere.pods.clone();
                addresses.pods.extend(here().map(|pod| (pod.address, pod.circle)));
                addresses.host_ports = here().flat_map(|pod| pod.host_ports.clone()).collect();
            })
            .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

fn host_ports(mappings: &[cri::PortMapping], address: Ipv4Addr) -> BTreeMap<ServicePort, Target> {
    let rule = |mapping: &cri::PortMapping| {
        let protocol = match cri::Protocol::try_from(mapping.protocol).ok()? {
            cri::Protocol::Tcp => Protocol::Tcp,
            cri::Protocol::Udp => Protocol::Udp,
            cri::Protocol::Sctp => Protocol::Sctp,
        };
        let place = match mapping.host_ip.parse::<Ipv4Addr>() {
            Ok(ip) if !ip.is_unspecified() => Place::Address(ip),
            _ => Place::Machine,
        };
        let at = ServicePort {
            place,
            protocol,
            port: u16::try_from(mapping.host_port).ok()?,
        };
        let port = u16::try_from(mapping.container_port).ok()?;
        Some((at, Target { address, port }))
    };
    mappings.iter().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_lead_to_the_pod_from_one_address_or_all() {
        let mapping = |host_ip: &str, host_port| cri::PortMapping {
            protocol: cri::Protocol::Udp as i32,
            container_port: 53,
            host_port,
            host_ip: host_ip.to_owned(),
        };

        let rules = host_ports(&[mapping("", 1053), mapping("192.0.2.1", 2053)], [10, 244, 0, 5].into());

        let places: Vec<(Place, u16)> = rules.keys().map(|at| (at.place, at.port)).collect();
        assert_eq!(
            places,
            [(Place::Address([192, 0, 2, 1].into()), 2053), (Place::Machine, 1053)]
        );
        assert!(rules.values().all(|target| target.port == 53));
    }
}
