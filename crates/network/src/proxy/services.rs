//! Services as chains: where one is dialled, where it leads, and what of the table has to change. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::ruleset::{TABLE, line};
use crate::Range;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn parse(name: &str) -> Option<Protocol> {
        match name {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Where a Service is dialled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServicePort {
    pub place: Place,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    Address(Ipv4Addr),
    /// Any address of any node: node ports.
    Nodes,
    /// Any address of this machine: host ports.
    Machine,
}

/// Where it leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    pub address: Ipv4Addr,
    pub port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Affinity {
    #[default]
    None,
    /// A client meets the target that it met last, if that was less than so many seconds ago.
    ClientAddress { seconds: u32 },
}

/// A Service port's targets; none means that dialling is refused at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    pub targets: Vec<Target>,
    /// For who dials from outside of the cluster, if that differs (`externalTrafficPolicy: Local`).
    pub from_outside: Option<Vec<Target>>,
    pub affinity: Affinity,
}

impl Service {
    pub(super) fn leads_to(&self, target: &Target) -> bool {
        self.targets.contains(target) || self.from_outside.iter().flatten().any(|known| known == target)
    }

    fn is_served(&self) -> bool {
        !self.targets.is_empty() || self.from_outside.is_some()
    }
}

/// What of the table a Service port is.
#[derive(Default)]
struct Parts {
    /// By name, with what they are.
    sets: BTreeMap<String, String>,
    /// By name, with their rules.
    chains: BTreeMap<String, Vec<String>>,
    /// An entry of a map: (map, entry).
    entry: Option<(&'static str, String, String)>,
}

impl ServicePort {
    fn key(&self) -> String {
        let protocol = self.protocol.as_str();
        match self.place {
            Place::Address(address) => format!("{address}_{protocol}_{}", self.port),
            Place::Nodes => format!("node_{protocol}_{}", self.port),
            Place::Machine => format!("host_{protocol}_{}", self.port),
        }
    }

    fn entry(&self, chain: &str) -> (&'static str, String, String) {
        let (protocol, port) = (self.protocol.as_str(), self.port);
        let (map, key) = match self.place {
            Place::Address(address) => ("services", format!("{address} . {protocol} . {port}")),
            Place::Nodes => ("node_ports", format!("{protocol} . {port}")),
            Place::Machine => ("host_ports", format!("{protocol} . {port}")),
        };
        (map, key, format!("goto {chain}"))
    }

    fn parts(&self, service: &Service, pods: Range) -> Parts {
        let mut parts = Parts::default();
        if !service.is_served() {
            return parts;
        }
        let chain = format!("service_{}", self.key());
        let mut rules = Vec::new();
        if let Some(targets) = &service.from_outside {
            let outside = format!("outside_{}", self.key());
            rules.push(format!("ip saddr != {pods} fib saddr type != local goto {outside}"));
            let to_local = self.lead(targets, service.affinity, &mut parts);
            parts.chains.insert(outside, to_local);
        }
        rules.extend(self.lead(&service.targets, service.affinity, &mut parts));
        parts.entry = Some(self.entry(&chain));
        parts.chains.insert(chain, rules);
        parts
    }

    /// The rules that choose among targets.
    fn lead(&self, targets: &[Target], affinity: Affinity, parts: &mut Parts) -> Vec<String> {
        let protocol = self.protocol.as_str();
        let count = targets.len();
        if targets.is_empty() {
            return Vec::new();
        }
        let choices = |choice: &dyn Fn(&Target) -> String| {
            let choices = targets.iter().enumerate();
            let choices: Vec<String> = choices
                .map(|(index, target)| format!("{index} : {}", choice(target)))
                .collect();
            choices.join(", ")
        };
        let Affinity::ClientAddress { seconds } = affinity else {
            let choices = choices(&|target| format!("{} . {}", target.address, target.port));
            return vec![format!(
                "meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {choices} }}"
            )];
        };
        let name = |target: &Target| format!("{}_to_{}_{}", self.key(), target.address, target.port);
        let mut rules = Vec::new();
        for target in targets {
            let name = name(target);
            let met = format!("met_{seconds}_{name}");
            rules.push(format!("ip saddr @{met} goto sticky_{name}"));
            parts.chains.insert(
                format!("sticky_{name}"),
                vec![format!(
                    "update @{met} {{ ip saddr }} meta l4proto {protocol} dnat ip to {}:{}",
                    target.address, target.port
                )],
            );
            parts.sets.insert(
                met,
                format!(
                    "{{ type ipv4_addr; size {STICKY_CLIENTS_MAX}; flags dynamic, timeout; timeout {}s; }}",
                    seconds.max(1)
                ),
            );
        }
        let choices = choices(&|target| format!("goto sticky_{}", name(target)));
        rules.push(format!("numgen random mod {count} vmap {{ {choices} }}"));
        rules
    }
}

/// Clients that one target of a Service with affinity is remembered for; further ones are led at random.
const STICKY_CLIENTS_MAX: u32 = 65_536;

/// What leads from `old` to `new`; empty if nothing differs.
pub fn change(pods: Range, old: &BTreeMap<ServicePort, Service>, new: &BTreeMap<ServicePort, Service>) -> String {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let ports: BTreeSet<&ServicePort> = old.keys().chain(new.keys()).collect();
    let none = Service::default();
    for port in ports {
        let (old, new) = (old.get(port).unwrap_or(&none), new.get(port).unwrap_or(&none));
        if old != new {
            before.push(port.parts(old, pods));
            after.push(port.parts(new, pods));
        }
    }

    let mut script = String::new();
    for (old, new) in before.iter().zip(&after) {
        if let (Some((map, key, verdict)), None) = (&old.entry, &new.entry) {
            line(
                &mut script,
                format_args!("delete element ip {TABLE} {map} {{ {key} : {verdict} }}"),
            );
        }
        // In two rounds: a chain can go when no rule leads there.
        for chain in old.chains.keys() {
            line(&mut script, format_args!("flush chain ip {TABLE} {chain}"));
        }
        for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
            line(&mut script, format_args!("delete chain ip {TABLE} {chain}"));
        }
        for set in old.sets.keys().filter(|set| !new.sets.contains_key(*set)) {
            line(&mut script, format_args!("delete set ip {TABLE} {set}"));
        }
        for (set, what) in new.sets.iter().filter(|(set, _)| !old.sets.contains_key(*set)) {
            line(&mut script, format_args!("add set ip {TABLE} {set} {what}"));
        }
        for chain in new.chains.keys().filter(|chain| !old.chains.contains_key(*chain)) {
            line(&mut script, format_args!("add chain ip {TABLE} {chain}"));
        }
        for (chain, rules) in &new.chains {
            for rule in rules {
                line(&mut script, format_args!("add rule ip {TABLE} {chain} {rule}"));
            }
        }
        if let (None, Some((map, key, verdict))) = (&old.entry, &new.entry) {
            line(
                &mut script,
                format_args!("add element ip {TABLE} {map} {{ {key} : {verdict} }}"),
            );
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Range = Range::new(Ipv4Addr::new(10, 244, 0, 0), 16);

    fn port(last: u8) -> ServicePort {
        ServicePort {
            place: Place::Address(Ipv4Addr::new(10, 97, 0, last)),
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    fn service(targets: &[u8]) -> Service {
        Service {
            targets: to(targets),
            ..Service::default()
        }
    }

    fn to(targets: &[u8]) -> Vec<Target> {
        let target = |last: &u8| Target {
            address: Ipv4Addr::new(10, 244, 0, *last),
            port: 8080,
        };
        targets.iter().map(target).collect()
    }

    #[test]
    fn equal_states_need_no_change() {
        let state = BTreeMap::from([(port(1), service(&[2]))]);

        assert_eq!(change(PODS, &state, &state), "");
    }

    #[test]
    fn one_changed_service_touches_one_chain() {
        let old = BTreeMap::from([(port(1), service(&[2])), (port(2), service(&[3]))]);
        let new = BTreeMap::from([(port(1), service(&[2])), (port(2), service(&[3, 4]))]);

        assert_eq!(
            change(PODS, &old, &new),
            "flush chain ip mangrove service_10.97.0.2_tcp_80\n\
             add rule ip mangrove service_10.97.0.2_tcp_80 meta l4proto tcp dnat ip to numgen random mod 2 \
             map { 0 : 10.244.0.3 . 8080, 1 : 10.244.0.4 . 8080 }\n"
        );
    }

    #[test]
    fn a_service_that_loses_its_last_target_has_no_rules() {
        let served = BTreeMap::from([(port(1), service(&[2]))]);
        let empty = BTreeMap::from([(port(1), service(&[]))]);

        assert_eq!(
            change(PODS, &served, &empty),
            "delete element ip mangrove services { 10.97.0.1 . tcp . 80 : goto service_10.97.0.1_tcp_80 }\n\
             flush chain ip mangrove service_10.97.0.1_tcp_80\n\
             delete chain ip mangrove service_10.97.0.1_tcp_80\n"
        );
        assert_eq!(change(PODS, &empty, &BTreeMap::new()), "");
        assert_eq!(change(PODS, &empty, &served), change(PODS, &BTreeMap::new(), &served));
    }

    #[test]
    fn a_sticky_service_keeps_what_it_knows_of_targets_that_stay() {
        let sticky = |targets: &[u8]| Service {
            affinity: Affinity::ClientAddress { seconds: 60 },
            ..service(targets)
        };
        let old = BTreeMap::from([(port(1), sticky(&[2, 3]))]);
        let new = BTreeMap::from([(port(1), sticky(&[3, 4]))]);

        let change = change(PODS, &old, &new);

        assert!(change.contains("delete set ip mangrove met_60_10.97.0.1_tcp_80_to_10.244.0.2_8080\n"));
        assert!(change.contains("add set ip mangrove met_60_10.97.0.1_tcp_80_to_10.244.0.4_8080 "));
        assert!(!change.contains("set ip mangrove met_60_10.97.0.1_tcp_80_to_10.244.0.3_8080"));
    }

    #[test]
    fn who_comes_from_outside_may_be_led_elsewhere() {
        let node_port = ServicePort {
            place: Place::Nodes,
            protocol: Protocol::Udp,
            port: 30080,
        };
        let local = Service {
            from_outside: Some(Vec::new()),
            ..service(&[2])
        };

        insta::assert_snapshot!(change(PODS, &BTreeMap::new(), &BTreeMap::from([(node_port, local)])), @r"
        add chain ip mangrove outside_node_udp_30080
        add chain ip mangrove service_node_udp_30080
        add rule ip mangrove service_node_udp_30080 ip saddr != 10.244.0.0/16 fib saddr type != local goto outside_node_udp_30080
        add rule ip mangrove service_node_udp_30080 meta l4proto udp dnat ip to numgen random mod 1 map { 0 : 10.244.0.2 . 8080 }
        add element ip mangrove node_ports { udp . 30080 : goto service_node_udp_30080 }
        ");
    }
}
