//! Rules as text. Pure: what is wanted goes in, a transaction for `nft -f` comes out.

use std::{collections::BTreeMap, fmt::Write};

use super::pods::{self, Addresses};
use super::services::{self, Service, ServicePort};
use crate::{DoorPorts, Options};

pub const TABLE: &str = "mangrove";

/// The table with everything but Services and Pods. Those of a table that is already there stay, so that a restart of the
/// platform interrupts nobody; [`anew`] sweeps what is left of them later.
pub fn base(options: &Options) -> String {
    let Options {
        pods,
        gateway,
        services,
        door,
        door_ports,
        interfaces,
        ..
    } = options;
    let mut script = format!(
        "add table ip {TABLE}
add map ip {TABLE} services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add map ip {TABLE} node_ports {{ type inet_proto . inet_service : verdict; }}
add map ip {TABLE} host_ports {{ type inet_proto . inet_service : verdict; }}
"
    );
    for (kind, name, what) in pods::SETS {
        line(&mut script, format_args!("add {kind} ip {TABLE} {name} {{ {what} }}"));
    }
    let door_dispatch = door_ports.map_or(String::new(), |DoorPorts { api, dns }| {
        format!(
            "    ip daddr {door} tcp dport 443 dnat to :{api}
    ip daddr {door} udp dport 53 dnat to :{dns}
    ip daddr {door} tcp dport 53 dnat to :{dns}
"
        )
    });
    // The door's sockets listen at every address of the machine; only Pods and the machine itself may come.
    let door_input = door_ports.map_or(String::new(), |DoorPorts { api, dns }| {
        format!(
            "    ip daddr {door} ip saddr {pods} tcp dport {{ {api}, {dns} }} jump circle
    ip daddr {door} ip saddr {pods} udp dport {dns} jump circle
    tcp dport {{ {api}, {dns} }} drop
    udp dport {dns} drop
"
        )
    });
    let dispatch = format!(
        "{door_dispatch}    ip daddr . meta l4proto . th dport vmap @services
    ip daddr {door} return
    ip daddr 127.0.0.0/8 return
    fib daddr type local meta l4proto . th dport vmap @host_ports
    ip daddr @nodes meta l4proto . th dport vmap @node_ports
    fib daddr type local meta l4proto . th dport vmap @node_ports
"
    );
    // What still has a Service's address after the maps were asked leads nowhere: no targets, no such port, no Service.
    // A reset for TCP, because the kernel sends an address one ICMP error a second at most.
    let refuse = format!(
        "    ip daddr {door} ip saddr {pods} jump circle
    ip daddr {door} accept
    ip daddr {services} meta l4proto tcp reject with tcp reset
    ip daddr {services} reject
"
    );
    // Where planes are beside another cluster, their doors are Services of it, and lead to wherever the planes are: a node, or a
    // Pod of those who run the machines. They count as what they were called by.
    let door_elsewhere = format!("    ip saddr {pods} ct status dnat ct original ip daddr {door} jump door\n");
    let chains: [(&str, &str, &str); 10] = [
        (
            "sources",
            "filter hook prerouting priority raw",
            // A Pod speaks as itself: its address is that to which its interface's route leads.
            &format!("    iifname \"{interfaces}*\" fib saddr . iif oif missing drop\n"),
        ),
        ("prerouting", "nat hook prerouting priority dstnat", &dispatch),
        ("output", "nat hook output priority -100", &dispatch),
        (
            "postrouting",
            "nat hook postrouting priority srcnat",
            // Pods meet each other as themselves. Only one that meets itself behind a Service would take its own address
            // for a forgery, and who came from outside to a Pod of another node must be answered by way of here.
            &format!(
                "    ct status dnat ip saddr . ip daddr @oneself snat to {gateway}
    ct status dnat ip saddr != {pods} ip daddr {pods} oifname != \"{interfaces}*\" masquerade
    ip saddr {pods} ip daddr != {pods} ip daddr != {door} fib daddr type != local masquerade
"
            ),
        ),
        (
            "input",
            "filter hook input priority filter",
            // Of the machine itself Pods get answers, echoes, and nothing else.
            &format!(
                "    iif lo accept
    ct state established,related accept
{door_input}{door_elsewhere}    ip saddr {pods} icmp type echo-request accept
    ip saddr {pods} ip saddr != @trusted drop
"
            ),
        ),
        (
            "forward",
            "filter hook forward priority filter",
            &format!("{refuse}    ip saddr {pods} jump pods\n"),
        ),
        ("refuse_local", "filter hook output priority filter", &refuse),
        (
            "pods",
            "",
            // Answers go back to whoever was let in: the outside, nodes, Pods of those who run the machines. Link-local
            // addresses are a machine's own business (cloud metadata).
            &format!(
                "    ct state related accept
    ct state established ct direction reply accept
{door_elsewhere}    ip daddr {pods} jump circle
    ip saddr @trusted accept
    ip daddr @nodes drop
    ip daddr 169.254.0.0/16 drop
"
            ),
        ),
        (
            "circle",
            "",
            // The mark is a register here: rules can't compare two look-ups.
            "    ip saddr @trusted accept
    meta mark set ip saddr map @groups
    meta mark . ip daddr @members meta mark set 0 accept
    meta mark set 0 drop
",
        ),
        (
            "door",
            "",
            "    ip saddr @trusted accept
    meta mark set ip saddr map @groups
    meta mark . ct original ip daddr @members meta mark set 0 accept
    meta mark set 0 drop
",
        ),
    ];
    // Adding what is there changes nothing; flushing makes the rules these and no others. All chains first: rules lead
    // from one to another.
    for (chain, hook, _) in chains {
        let kind = if hook.is_empty() {
            String::new()
        } else {
            format!(" {{ type {hook}; policy accept; }}")
        };
        line(&mut script, format_args!("add chain ip {TABLE} {chain}{kind}"));
        line(&mut script, format_args!("flush chain ip {TABLE} {chain}"));
    }
    for (chain, _, rules) in chains {
        for rule in rules.lines() {
            line(&mut script, format_args!("add rule ip {TABLE} {chain} {}", rule.trim()));
        }
    }
    // Pods have no IPv6, and the machine none for them.
    let _ = write!(
        script,
        "add table ip6 {TABLE}
add chain ip6 {TABLE} sources {{ type filter hook prerouting priority raw; policy accept; }}
flush chain ip6 {TABLE} sources
add rule ip6 {TABLE} sources iifname \"{interfaces}*\" drop
"
    );
    script
}

/// The table with these Services and Pods and nothing else, in place of whatever was there.
pub fn anew(options: &Options, wanted: &BTreeMap<ServicePort, Service>, addresses: &Addresses) -> String {
    remove()
        + &base(options)
        + &pods::change(Some(&Addresses::default()), addresses)
        + &services::change(options.pods, &BTreeMap::new(), wanted)
}

/// A table has to be there to be deleted: adding first makes the pair work in both cases.
pub fn remove() -> String {
    let mut script = String::new();
    for family in ["ip", "ip6"] {
        line(&mut script, format_args!("add table {family} {TABLE}"));
        line(&mut script, format_args!("delete table {family} {TABLE}"));
    }
    script
}

pub(super) fn line(script: &mut String, line: std::fmt::Arguments) {
    writeln!(script, "{line}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::Range;
    use crate::proxy::pods::Circle;
    use crate::proxy::services::{Affinity, Place, Protocol, Target};

    #[test]
    fn the_table_as_a_whole() {
        let options = Options {
            pods: Range::new(Ipv4Addr::new(10, 244, 0, 0), 16),
            gateway: Ipv4Addr::new(10, 244, 0, 1),
            services: Range::new(Ipv4Addr::new(10, 96, 0, 0), 12),
            door: Range::new(Ipv4Addr::new(10, 104, 0, 0), 13),
            door_ports: Some(DoorPorts { api: 6444, dns: 6053 }),
            device: "mangrove0".to_owned(),
            interfaces: "mgv".to_owned(),
        };
        let port = |place| ServicePort {
            place,
            protocol: Protocol::Tcp,
            port: 80,
        };
        let target = |last| Target {
            address: Ipv4Addr::new(10, 244, 0, last),
            port: 8080,
        };
        let plain = Service {
            targets: vec![target(2)],
            ..Service::default()
        };
        let sticky = Service {
            targets: vec![target(3), target(4)],
            affinity: Affinity::ClientAddress { seconds: 10_800 },
            ..Service::default()
        };
        let door = Ipv4Addr::new(10, 104, 0, 1);
        let pods = [
            (2, Circle::Plane { door }),
            (3, Circle::Trusted),
            (4, Circle::Open { door }),
        ];
        let addresses = Addresses {
            pods: pods
                .map(|(last, circle)| (Ipv4Addr::new(10, 244, 0, last), circle))
                .into(),
            nodes: [(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 244, 0, 1))].into(),
            ..Addresses::default()
        };

        insta::assert_snapshot!(anew(
            &options,
            &BTreeMap::from([
                (port(Place::Address(Ipv4Addr::new(10, 97, 0, 1))), plain.clone()),
                (port(Place::Nodes), plain),
                (port(Place::Address(Ipv4Addr::new(10, 97, 0, 2))), sticky),
            ]),
            &addresses,
        ));
    }
}
