//! Endpoints and EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    check::{Check, Seen, list, text},
    service::PROTOCOLS,
};
use crate::{
    field::{self, Path},
    names,
};

pub fn check_endpoints(check: &mut Check, endpoints: &Value) {
    let subsets = Path::ROOT.field("subsets");
    for (at, subset) in list(&endpoints["subsets"]).iter().enumerate() {
        let path = subsets.index(at);
        if list(&subset["addresses"]).is_empty() && list(&subset["notReadyAddresses"]).is_empty() {
            check.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            let addresses = path.field(field);
            for (at, address) in list(&subset[field]).iter().enumerate() {
                let path = addresses.index(at);
                check_endpoint_address(check, &path.field("ip"), text(&address["ip"]));
                let host = text(&address["hostname"]);
                if !host.is_empty() {
                    check.named(&path.field("hostname"), host, names::dns1123_label(host));
                }
            }
        }
        let ports_path = path.field("ports");
        let ports = list(&subset["ports"]);
        for (at, port) in ports.iter().enumerate() {
            let path = ports_path.index(at);
            let name = text(&port["name"]);
            if !name.is_empty() {
                check.named(&path.field("name"), name, names::dns1123_label(name));
            } else if ports.len() > 1 {
                check.required(&path.field("name"), "");
            }
            check.port_number(&path.field("port"), &port["port"]);
            check.one_of(&path.field("protocol"), &port["protocol"], &PROTOCOLS);
        }
    }
}

/// Upstream's limits of one EndpointSlice.
const SLICE_ENDPOINTS_MAX: usize = 1000;

const SLICE_PORTS_MAX: usize = 20000;

const SLICE_ADDRESSES_MAX: usize = 100;

pub fn check_endpoint_slice(check: &mut Check, slice: &Value, old: Option<&Value>) {
    let kind = text(&slice["addressType"]);
    check.one_of(
        &Path::ROOT.field("addressType"),
        &slice["addressType"],
        &["FQDN", "IPv4", "IPv6"],
    );
    let ports_path = Path::ROOT.field("ports");
    let ports = list(&slice["ports"]);
    if ports.len() > SLICE_PORTS_MAX {
        check
            .causes
            .push(field::too_many(&ports_path, ports.len(), SLICE_PORTS_MAX));
        return;
    }
    let mut seen = Seen::default();
    for (at, port) in ports.iter().enumerate() {
        let path = ports_path.index(at);
        let name = text(&port["name"]);
        if !name.is_empty() {
            check.named(&path.field("name"), name, names::dns1123_label(name));
        }
        if seen.again(name) {
            check.duplicate(&path.field("name"), name);
        }
        check.one_of(&path.field("protocol"), &port["protocol"], &PROTOCOLS);
    }
    let endpoints_path = Path::ROOT.field("endpoints");
    let endpoints = list(&slice["endpoints"]);
    if endpoints.len() > SLICE_ENDPOINTS_MAX {
        check
            .causes
            .push(field::too_many(&endpoints_path, endpoints.len(), SLICE_ENDPOINTS_MAX));
        return;
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let path = endpoints_path.index(at);
        let addresses_path = path.field("addresses");
        let addresses = list(&endpoint["addresses"]);
        if addresses.is_empty() {
            check.required(&addresses_path, "must contain at least 1 address");
        } else if addresses.len() > SLICE_ADDRESSES_MAX {
            check
                .causes
                .push(field::too_many(&addresses_path, addresses.len(), SLICE_ADDRESSES_MAX));
        }
        for (at, address) in addresses.iter().enumerate() {
            let address = text(address);
            let item = addresses_path.index(at);
            if kind == "FQDN" {
                check.named(&item, address, names::dns1123_subdomain(address));
                continue;
            }
            let v6 = address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
            check_endpoint_address(check, &item, address);
            if v6 && kind == "IPv4" {
                check.invalid(&addresses_path, address, "must be an IPv4 address");
            } else if !v6 && kind == "IPv6" {
                check.invalid(&addresses_path, address, "must be an IPv6 address");
            }
        }
    }
    if let Some(old) = old {
        check.immutable(
            &Path::ROOT.field("addressType"),
            &slice["addressType"],
            &old["addressType"],
        );
    }
}

/// An address that traffic can be sent to.
pub fn check_endpoint_address(check: &mut Check, path: &Path, address: &str) {
    if !check.ip_address(path, address) {
        return;
    }
    let Ok(parsed) = address.parse::<IpAddr>() else { return };
    let (link_local, link_multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if parsed.is_unspecified() {
        check.invalid(path, address, format!("may not be unspecified ({address})"));
    }
    if parsed.is_loopback() {
        check.invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        check.invalid(
            path,
            address,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if link_multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        check.invalid(path, address, detail);
    }
}
