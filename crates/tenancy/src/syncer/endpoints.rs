//! Which addresses of hand-written endpoints go down (trap 13): a tenant may send its Service's traffic to its own Pods and to
//! the world, not to the machines, the cluster's own networks or other tenants' Pods.

use api::PlaneId;
use serde_json::Value;

use super::{Shared, sides};
use crate::reserved::{self, Cidr};

impl Shared {
    /// Takes the addresses out of a super slice that the tenant may not name; returns them.
    pub(super) fn keep_to_own_endpoints(&self, plane: PlaneId, slice: &mut Value) -> Vec<String> {
        let mut refused = Vec::new();
        if slice["addressType"] == "FQDN" {
            // Nobody carries traffic to names.
            slice["endpoints"] = Value::Array(Vec::new());
        }
        let Some(endpoints) = slice["endpoints"].as_array_mut() else {
            return refused;
        };
        for endpoint in endpoints.iter_mut() {
            if let Some(addresses) = endpoint["addresses"].as_array_mut() {
                addresses.retain(|address| {
                    let address = address.as_str().unwrap_or("");
                    let is_allowed = self.may_name(plane, address);
                    if !is_allowed {
                        refused.push(address.to_owned());
                    }
                    is_allowed
                });
            }
        }
        endpoints.retain(|endpoint| endpoint["addresses"].as_array().is_some_and(|left| !left.is_empty()));
        refused
    }

    fn may_name(&self, plane: PlaneId, text: &str) -> bool {
        let Some(address) = reserved::parse(text) else {
            return false;
        };
        if reserved::is_local(address) {
            return false;
        }
        let own = self
            .sides
            .below
            .pods
            .by_index(sides::ADDRESS, &sides::address_key(plane, &address.to_string()));
        if !own.is_empty() {
            return true;
        }
        !self.options.policy.reserved.iter().any(|range| range.contains(address)) && !self.is_a_nodes(address)
    }

    /// Whether a machine has the address, or gives it to its Pods.
    fn is_a_nodes(&self, address: std::net::IpAddr) -> bool {
        let nodes = self.sides.below.nodes.all();
        nodes.iter().any(|(_, node)| {
            let tree = node.tree();
            let mut addresses = tree["status"]["addresses"].as_array().into_iter().flatten();
            let ranges = tree["spec"]["podCIDRs"].as_array().into_iter().flatten();
            let mut ranges = ranges.chain([&tree["spec"]["podCIDR"]]);
            addresses.any(|one| one["address"].as_str().and_then(reserved::parse) == Some(address))
                || ranges.any(|range| {
                    range
                        .as_str()
                        .and_then(Cidr::parse)
                        .is_some_and(|range| range.contains(address))
                })
        })
    }
}
