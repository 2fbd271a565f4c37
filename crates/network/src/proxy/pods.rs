//! Who may reach whom: each Pod's address with the circle it belongs to, as elements of the table's sets. Pure.
//!
//! A circle has a number, which for a plane's own is that of its door's address; a Pod's address leads to the number of its
//! circle, and pairs of number and address say who is a member. So a Pod that comes or goes is a few elements, however many
//! planes there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::ruleset::{TABLE, line};
use super::services::{ServicePort, Target};

/// What a Pod may reach besides the outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Circle {
    /// Everything: a Pod of those who run the machines.
    Trusted,
    /// The Pods of its own plane, and the plane's door.
    Plane { door: Ipv4Addr },
    /// All Pods that are of no plane's own circle, and its plane's door.
    Open { door: Ipv4Addr },
    /// Nothing: a Pod whose plane is not known.
    Alone,
}

/// The number of the open circle. No door has it as its address.
const OPEN: u32 = 1;

/// Addresses of Pods and nodes, with what they may reach.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Addresses {
    pub pods: BTreeMap<Ipv4Addr, Circle>,
    /// Each node's own address, and that by which it is known to its Pods.
    pub nodes: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Where this machine leads to its own Pods.
    pub host_ports: BTreeMap<ServicePort, Target>,
}

impl Addresses {
    /// (set, element) of all; for maps the element has its value.
    fn elements(&self) -> BTreeSet<(&'static str, String)> {
        let mut elements = BTreeSet::new();
        for (pod, circle) in &self.pods {
            let mut join = |number: u32, door: Option<Ipv4Addr>| {
                for address in [Some(*pod), door].into_iter().flatten() {
                    elements.insert(("members", format!("{number} . {address}")));
                }
            };
            match circle {
                Circle::Trusted => {
                    join(OPEN, None);
                    elements.insert(("trusted", pod.to_string()));
                }
                Circle::Plane { door } => {
                    join(u32::from(*door), Some(*door));
                    elements.insert(("groups", format!("{pod} : {}", u32::from(*door))));
                }
                Circle::Open { door } => {
                    join(OPEN, Some(*door));
                    elements.insert(("groups", format!("{pod} : {OPEN}")));
                }
                Circle::Alone => {}
            }
            elements.insert(("oneself", format!("{pod} . {pod}")));
        }
        for (node, gateway) in &self.nodes {
            elements.insert(("nodes", node.to_string()));
            elements.insert(("trusted", gateway.to_string()));
        }
        elements
    }
}

/// The sets that [`change`] fills.
pub const SETS: [(&str, &str, &str); 5] = [
    ("map", "groups", "type ipv4_addr : mark;"),
    ("set", "members", "type mark . ipv4_addr;"),
    ("set", "trusted", "type ipv4_addr;"),
    ("set", "nodes", "type ipv4_addr;"),
    ("set", "oneself", "type ipv4_addr . ipv4_addr;"),
];

/// What leads from `old` to `new`; empty if nothing differs. Without an old state, whatever is there goes.
pub fn change(old: Option<&Addresses>, new: &Addresses) -> String {
    let mut script = String::new();
    let wanted = new.elements();
    let known = match old {
        Some(old) => old.elements(),
        None => {
            for (kind, name, _) in SETS {
                line(&mut script, format_args!("flush {kind} ip {TABLE} {name}"));
            }
            BTreeSet::new()
        }
    };
    for (set, element) in known.difference(&wanted) {
        line(
            &mut script,
            format_args!("delete element ip {TABLE} {set} {{ {element} }}"),
        );
    }
    for (set, element) in wanted.difference(&known) {
        line(
            &mut script,
            format_args!("add element ip {TABLE} {set} {{ {element} }}"),
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: Ipv4Addr = Ipv4Addr::new(10, 104, 0, 1);

    fn pods(pods: &[(u8, Circle)]) -> Addresses {
        let pod = |(last, circle): &(u8, Circle)| (Ipv4Addr::new(10, 244, 0, *last), *circle);
        Addresses {
            pods: pods.iter().map(pod).collect(),
            ..Addresses::default()
        }
    }

    #[test]
    fn a_pod_that_comes_or_goes_is_a_few_elements() {
        let one = pods(&[(2, Circle::Plane { door: DOOR })]);
        let two = pods(&[(2, Circle::Plane { door: DOOR }), (3, Circle::Plane { door: DOOR })]);

        assert_eq!(
            change(Some(&one), &two),
            "add element ip mangrove groups { 10.244.0.3 : 174587905 }\n\
             add element ip mangrove members { 174587905 . 10.244.0.3 }\n\
             add element ip mangrove oneself { 10.244.0.3 . 10.244.0.3 }\n"
        );
        assert_eq!(change(Some(&two), &one).matches("delete element").count(), 3);
        assert_eq!(change(Some(&one), &one), "");
    }

    #[test]
    fn the_last_pod_of_a_plane_takes_the_door_with_it() {
        let change = change(Some(&pods(&[(2, Circle::Plane { door: DOOR })])), &Addresses::default());

        assert!(change.contains("delete element ip mangrove members { 174587905 . 10.104.0.1 }\n"));
    }

    #[test]
    fn without_an_old_state_all_is_made_anew() {
        let change = change(None, &pods(&[(2, Circle::Alone)]));

        assert!(change.starts_with("flush map ip mangrove groups\n"));
        assert!(!change.contains("delete"));
    }
}
