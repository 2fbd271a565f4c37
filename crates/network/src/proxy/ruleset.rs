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

/// The table with everything but Services. Services of a table that is already there stay, so that a restart of the
/// platform interrupts nobody; [`anew`] sweeps what is left of them later.
pub fn base(options: &Options) -> String {
    let Options {
        pods,
        services,
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
    // What still has a Service's address after the maps were asked leads nowhere: no targets, no such port, no Service.
    // A reset for TCP, because the kernel sends an address one ICMP error a second at most, and none at all when it
    // has just sent a redirect, as it does to Pods behind a bridge.
    let refuse = format!(
        "    ip daddr {door} accept
    ip daddr {services} meta l4proto tcp reject with tcp reset
    ip daddr {services} reject
"
    );
    let mut script = format!(
        "add table ip {TABLE}
add map ip {TABLE} services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
"
    );
    for (chain, hook, rules) in [
        ("prerouting", "nat hook prerouting priority dstnat", dispatch.as_str()),
        ("output", "nat hook output priority -100", &dispatch),
        (
            "postrouting",
            "nat hook postrouting priority srcnat",
            // Pods share a bridge: without our address in front an answer would go straight to the asking Pod, which
            // knows nothing of who answers.
            &format!(
                "    ct status dnat ip saddr {pods} ip daddr {pods} masquerade
    ip saddr {pods} ip daddr != {pods} fib daddr type != local masquerade
"
            ),
        ),
        (
            "input",
            "filter hook input priority filter",
            // The door's sockets listen at every address of the machine; only Pods and the machine itself may come.
            &format!(
                "    iif lo accept
    tcp dport {{ {door_port}, {dns_port} }} ip daddr {door} ip saddr {pods} accept
    udp dport {dns_port} ip daddr {door} ip saddr {pods} accept
    tcp dport {{ {door_port}, {dns_port} }} drop
    udp dport {dns_port} drop
"
            ),
        ),
        ("forward", "filter hook forward priority filter", &refuse),
        ("refuse_local", "filter hook output priority filter", &refuse),
    ] {
        // Adding what is there changes nothing; flushing makes the rules these and no others.
        let text = format!(
            "add chain ip {TABLE} {chain} {{ type {hook}; policy accept; }}
flush chain ip {TABLE} {chain}
table ip {TABLE} {{
  chain {chain} {{
{rules}  }}
}}
"
        );
        script += &text;
    }
    script
}

/// The table with these Services and nothing else, in place of whatever was there.
pub fn anew(options: &Options, services: &BTreeMap<ServicePort, Service>) -> String {
    remove() + &base(options) + &change(&BTreeMap::new(), services)
}

/// A table has to be there to be deleted: adding first makes the pair work in both cases.
pub fn remove() -> String {
    format!("add table ip {TABLE}\ndelete table ip {TABLE}\n")
}

/// What leads from `old` to `new`; empty if nothing differs.
pub fn change(old: &BTreeMap<ServicePort, Service>, new: &BTreeMap<ServicePort, Service>) -> String {
    let mut script = String::new();
    for (port, _) in served(old) {
        if new.get(port).is_none_or(|service| service.targets.is_empty()) {
            forget(&mut script, port);
        }
    }
    for (port, service) in served(new) {
        match old.get(port) {
            Some(before) if before == service => {}
            Some(before) if !before.targets.is_empty() => fill(&mut script, port, service),
            _ => add(&mut script, port, service),
        }
    }
    script
}

/// A Service without targets has no rules: the range's own refuses it.
fn served(services: &BTreeMap<ServicePort, Service>) -> impl Iterator<Item = (&ServicePort, &Service)> {
    services.iter().filter(|(_, service)| !service.targets.is_empty())
}

fn add(script: &mut String, port: &ServicePort, service: &Service) {
    let chain = port.chain();
    line(script, format_args!("add chain ip {TABLE} {chain}"));
    fill(script, port, service);
    let element = format!("{} : goto {chain}", port.element());
    line(script, format_args!("add element ip {TABLE} services {{ {element} }}"));
}

/// The one rule of a Service's chain.
fn fill(script: &mut String, port: &ServicePort, service: &Service) {
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

fn forget(script: &mut String, port: &ServicePort) {
    let (element, chain) = (port.element(), port.chain());
    line(
        script,
        format_args!("delete element ip {TABLE} services {{ {element} }}"),
    );
    line(script, format_args!("flush chain ip {TABLE} {chain}"));
    line(script, format_args!("delete chain ip {TABLE} {chain}"));
}

fn line(script: &mut String, line: std::fmt::Arguments) {
    writeln!(script, "{line}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Range;

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
    fn a_service_that_loses_its_last_target_has_no_rules() {
        let served = BTreeMap::from([(port(1), service(&[2]))]);
        let empty = BTreeMap::from([(port(1), service(&[]))]);

        assert_eq!(
            change(&served, &empty),
            "delete element ip mangrove services { 10.97.0.1 . tcp . 80 }\n\
             flush chain ip mangrove service_10.97.0.1_tcp_80\n\
             delete chain ip mangrove service_10.97.0.1_tcp_80\n"
        );
        assert_eq!(change(&empty, &BTreeMap::new()), "");
        assert_eq!(change(&empty, &served), change(&BTreeMap::new(), &served));
    }

    #[test]
    fn the_table_as_a_whole() {
        let options = Options {
            pods: Range::new(Ipv4Addr::new(10, 244, 0, 0), 16),
            services: Range::new(Ipv4Addr::new(10, 96, 0, 0), 12),
            door: Range::new(Ipv4Addr::new(10, 104, 0, 0), 13),
            door_port: 6444,
            dns_port: 6053,
            bridge: "mangrove0".to_owned(),
        };
        let mut sticky = service(&[3, 4]);
        sticky.affinity = Affinity::ClientAddress;

        insta::assert_snapshot!(anew(
            &options,
            &BTreeMap::from([(port(1), service(&[2])), (port(2), sticky)])
        ));
    }
}
