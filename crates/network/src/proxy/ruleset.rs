//! Rules as text. Pure: what is wanted goes in, a transaction for `nft -f` comes out.

use std::{collections::BTreeMap, fmt::Write, net::Ipv4Addr};

use crate::Options;

pub const TABLE: &str = "mangrove";

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
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
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
    /// One client always meets one target (while the set of targets stays).
    ClientAddress,
}

/// A Service port's targets; none means that dialling is refused at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    pub targets: Vec<Target>,
    pub affinity: Affinity,
}

impl ServicePort {
    fn chain(&self) -> String {
        format!("service_{}_{}_{}", self.address, self.protocol.as_str(), self.port)
    }

    fn element(&self) -> String {
        format!("{} . {} . {}", self.address, self.protocol.as_str(), self.port)
    }
}

/// The table without any Service, in place of whatever was there.
pub fn base(options: &Options) -> String {
    let Options {
        pods,
        door,
        door_port,
        dns_port,
        ..
    } = options;
    let dispatch = format!(
        "    ip daddr {door} tcp dport 443 dnat to :{door_port}
    ip daddr {door} udp dport 53 dnat to :{dns_port}
    ip daddr {door} tcp dport 53 dnat to :{dns_port}
    ip daddr . meta l4proto . th dport vmap @services
"
    );
    // A table has to be there to be deleted: adding first makes the pair work in both cases.
    format!(
        "add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  map services {{
    type ipv4_addr . inet_proto . inet_service : verdict
  }}
  set refused {{
    type ipv4_addr . inet_proto . inet_service
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
{dispatch}  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{dispatch}  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat ip saddr {pods} ip daddr {pods} masquerade
    ip saddr {pods} ip daddr != {pods} fib daddr type != local masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iif lo accept
    tcp dport {{ {door_port}, {dns_port} }} ip daddr {door} ip saddr {pods} accept
    udp dport {dns_port} ip daddr {door} ip saddr {pods} accept
    tcp dport {{ {door_port}, {dns_port} }} drop
    udp dport {dns_port} drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ip daddr . meta l4proto . th dport @refused reject
  }}
  chain refuse_local {{
    type filter hook output priority filter; policy accept;
    ip daddr . meta l4proto . th dport @refused reject
  }}
}}
"
    )
}

pub fn remove() -> String {
    format!("add table ip {TABLE}\ndelete table ip {TABLE}\n")
}

/// What leads from `old` to `new`; empty if nothing differs.
pub fn change(old: &BTreeMap<ServicePort, Service>, new: &BTreeMap<ServicePort, Service>) -> String {
    let mut script = String::new();
    for (port, service) in old {
        if !new.contains_key(port) {
            forget(&mut script, port, service);
        }
    }
    for (port, service) in new {
        match old.get(port) {
            Some(before) if before == service => {}
            Some(before) if before.targets.is_empty() != service.targets.is_empty() => {
                forget(&mut script, port, before);
                add(&mut script, port, service);
            }
            Some(_) => fill(&mut script, port, service),
            None => add(&mut script, port, service),
        }
    }
    script
}

fn add(script: &mut String, port: &ServicePort, service: &Service) {
    if service.targets.is_empty() {
        line(
            script,
            format_args!("add element ip {TABLE} refused {{ {} }}", port.element()),
        );
        return;
    }
    line(script, format_args!("add chain ip {TABLE} {}", port.chain()));
    fill(script, port, service);
    line(
        script,
        format_args!(
            "add element ip {TABLE} services {{ {} : goto {} }}",
            port.element(),
            port.chain()
        ),
    );
}

/// The one rule of a Service's chain.
fn fill(script: &mut String, port: &ServicePort, service: &Service) {
    if service.targets.is_empty() {
        return;
    }
    let (chain, protocol) = (port.chain(), port.protocol.as_str());
    let choice = match service.affinity {
        Affinity::None => "numgen random",
        Affinity::ClientAddress => "jhash ip saddr",
    };
    let targets: Vec<String> = service
        .targets
        .iter()
        .enumerate()
        .map(|(index, target)| format!("{index} : {} . {}", target.address, target.port))
        .collect();
    line(script, format_args!("flush chain ip {TABLE} {chain}"));
    line(
        script,
        format_args!(
            "add rule ip {TABLE} {chain} meta l4proto {protocol} dnat ip to {choice} mod {} map {{ {} }}",
            targets.len(),
            targets.join(", ")
        ),
    );
}

fn forget(script: &mut String, port: &ServicePort, service: &Service) {
    if service.targets.is_empty() {
        line(
            script,
            format_args!("delete element ip {TABLE} refused {{ {} }}", port.element()),
        );
        return;
    }
    line(
        script,
        format_args!("delete element ip {TABLE} services {{ {} }}", port.element()),
    );
    line(script, format_args!("flush chain ip {TABLE} {}", port.chain()));
    line(script, format_args!("delete chain ip {TABLE} {}", port.chain()));
}

fn line(script: &mut String, line: std::fmt::Arguments) {
    writeln!(script, "{line}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(last: u8) -> ServicePort {
        ServicePort {
            address: Ipv4Addr::new(10, 97, 0, last),
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    fn service(targets: &[u8]) -> Service {
        let targets = targets
            .iter()
            .map(|last| Target {
                address: Ipv4Addr::new(10, 244, 0, *last),
                port: 8080,
            })
            .collect();
        Service {
            targets,
            affinity: Affinity::None,
        }
    }

    #[test]
    fn equal_states_need_no_change() {
        let state = BTreeMap::from([(port(1), service(&[2]))]);

        assert_eq!(change(&state, &state), "");
    }

    #[test]
    fn one_changed_service_touches_one_chain() {
        let old = BTreeMap::from([(port(1), service(&[2])), (port(2), service(&[3]))]);
        let new = BTreeMap::from([(port(1), service(&[2])), (port(2), service(&[3, 4]))]);

        assert_eq!(
            change(&old, &new),
            "flush chain ip mangrove service_10.97.0.2_tcp_80\n\
             add rule ip mangrove service_10.97.0.2_tcp_80 meta l4proto tcp dnat ip to numgen random mod 2 \
             map { 0 : 10.244.0.3 . 8080, 1 : 10.244.0.4 . 8080 }\n"
        );
    }

    #[test]
    fn a_service_that_loses_its_last_target_is_refused() {
        let old = BTreeMap::from([(port(1), service(&[2]))]);
        let new = BTreeMap::from([(port(1), service(&[]))]);

        let script = change(&old, &new);

        assert!(script.contains("delete element ip mangrove services { 10.97.0.1 . tcp . 80 }"));
        assert!(script.ends_with("add element ip mangrove refused { 10.97.0.1 . tcp . 80 }\n"));
    }
}
