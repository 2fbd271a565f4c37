//! Services and what routes to and around them.

use std::net::IpAddr;

use serde_json::Value;

use super::check::{Check, list, text};
use crate::{
    field::{self, Path},
    names,
};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn is_headless(spec: &Value) -> bool {
    list(&spec["clusterIPs"]).len() == 1 && spec["clusterIPs"][0] == "None"
}

pub fn check_service(check: &mut Check, service: &Value, old: Option<&Value>) {
    let spec = &service["spec"];
    let path = Path::ROOT.field("spec");
    let kind = text(&spec["type"]);
    let ports = list(&spec["ports"]);
    let ports_path = path.field("ports");
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        check.required(&ports_path, "");
    }
    let addresses = path.field("clusterIPs");
    if is_headless(spec) && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        check.invalid(&addresses.index(0), "None", detail);
    }
    if kind == "ExternalName" {
        check_external_name(check, &path, spec);
    }
    check_ports(check, &ports_path, ports, kind);
    check.labels(&path.field("selector"), &spec["selector"]);
    check.one_of(
        &path.field("sessionAffinity"),
        &spec["sessionAffinity"],
        &["ClientIP", "None"],
    );
    let config = path.field("sessionAffinityConfig");
    if spec["sessionAffinity"] == "ClientIP" {
        let client = config.field("clientIP");
        let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        if spec["sessionAffinityConfig"].is_null() {
            check.required(&config, "when session affinity type is ClientIP");
        } else if let Some(seconds) = timeout.as_i64().filter(|seconds| !(1..=86400).contains(seconds)) {
            let detail = "must be greater than 0 and less than 86400";
            check.invalid(&client.field("timeoutSeconds"), seconds, detail);
        }
    } else if !spec["sessionAffinityConfig"].is_null() {
        check.forbidden(&config, "must not be set when session affinity is None");
    }
    if kind != "ExternalName" {
        check_addresses(check, &path, spec);
    }
    let external = path.field("externalIPs");
    for (at, address) in list(&spec["externalIPs"]).iter().enumerate() {
        check_endpoint_address(check, &external.index(at), text(address));
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    check.one_of(&path.field("type"), &spec["type"], &kinds);
    check_policies(check, &path, spec, kind);
    if let Some(old) = old {
        check_address_change(check, &path, spec, &old["spec"]);
    }
}

fn check_external_name(check: &mut Check, path: &Path, spec: &Value) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let set = !list(&spec[field]).is_empty() || spec[field].is_string();
        if set {
            check.forbidden(&path.field(field), "may not be set for ExternalName services");
        }
    }
    let name = text(&spec["externalName"]);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        check.required(&path.field("externalName"), "");
    } else {
        check.named(&path.field("externalName"), name, names::dns1123_subdomain(name));
    }
}

fn check_ports(check: &mut Check, path: &Path, ports: &[Value], kind: &str) {
    for (at, port) in ports.iter().enumerate() {
        let item = path.index(at);
        let name = text(&port["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                check.required(&item.field("name"), "");
            }
        } else {
            check.named(&item.field("name"), name, names::dns1123_label(name));
            if ports[..at].iter().any(|other| other["name"] == name) {
                check.duplicate(&item.field("name"), name);
            }
        }
        check.port_number(&item.field("port"), &port["port"]);
        check.one_of(&item.field("protocol"), &port["protocol"], &PROTOCOLS);
        check.port_number_or_name(&item.field("targetPort"), &port["targetPort"]);
        let protocol = text(&port["appProtocol"]);
        if !protocol.is_empty() {
            check.named(&item.field("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
    for (at, port) in ports.iter().enumerate() {
        let item = path.index(at);
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 && kind == "ClusterIP" {
            check.forbidden(&item.field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let before = &ports[..at];
        let same = |field: &str| {
            before
                .iter()
                .any(|other| other["protocol"] == port["protocol"] && other[field] == port[field])
        };
        if node_port != 0 && same("nodePort") {
            check.duplicate(&item.field("nodePort"), node_port);
        }
        if same("port") {
            check.duplicate(
                &item,
                serde_json::json!({"port": port["port"], "protocol": port["protocol"]}),
            );
        }
    }
}

fn check_addresses(check: &mut Check, path: &Path, spec: &Value) {
    let addresses = list(&spec["clusterIPs"]);
    let addresses_path = path.field("clusterIPs");
    match text(&spec["clusterIP"]) {
        "" if !addresses.is_empty() => {
            let detail = "must be empty when `clusterIP` is not specified";
            check.invalid(&addresses_path, spec["clusterIPs"].clone(), detail);
        }
        "" => {}
        _ if addresses.is_empty() => check.required(&addresses_path, ""),
        first if addresses[0] != first => {
            let detail = "first value must match `clusterIP`";
            check.invalid(&addresses_path, spec["clusterIPs"].clone(), detail);
        }
        _ => {}
    }
    let families_path = path.field("ipFamilies");
    for (at, family) in list(&spec["ipFamilies"]).iter().enumerate() {
        check.one_of(&families_path.index(at), family, &["IPv4", "IPv6"]);
        if list(&spec["ipFamilies"])[..at].contains(family) {
            check.duplicate(&families_path.index(at), family.clone());
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    check.one_of_or_none(&path.field("ipFamilyPolicy"), &spec["ipFamilyPolicy"], &policies);
    for (at, address) in addresses.iter().enumerate() {
        if at == 0 && address == "None" {
            if addresses.len() > 1 {
                let detail = "'None' must be the first and only value";
                check.invalid(&addresses_path, spec["clusterIPs"].clone(), detail);
            }
            continue;
        }
        let item = addresses_path.index(at);
        if !check.ip_address(&item, text(address)) {
            continue;
        }
        let family = match text(address).parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => "IPv6",
            _ => "IPv4",
        };
        if let Some(wanted) = list(&spec["ipFamilies"]).get(at).filter(|wanted| *wanted != family) {
            let detail = format!("expected an {} value as indicated by `ipFamilies[{at}]`", text(wanted));
            check.invalid(&item, text(address), detail);
        }
    }
    if addresses.len() > 2 {
        check.invalid(
            &addresses_path,
            spec["clusterIPs"].clone(),
            "may only hold up to 2 values",
        );
    }
}

fn check_policies(check: &mut Check, path: &Path, spec: &Value, kind: &str) {
    let balancer = kind == "LoadBalancer";
    let only_balancer = "may only be used when `type` is 'LoadBalancer'";
    if !list(&spec["loadBalancerSourceRanges"]).is_empty() {
        let ranges = path.field("LoadBalancerSourceRanges");
        if !balancer {
            check.forbidden(&ranges, only_balancer);
        }
        for (at, range) in list(&spec["loadBalancerSourceRanges"]).iter().enumerate() {
            check_cidr(check, &ranges.index(at), text(range).trim());
        }
    }
    if !balancer {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if !spec[field].is_null() {
                check.forbidden(&path.field(field), only_balancer);
            }
        }
    }
    let external = path.field("externalTrafficPolicy");
    let accessible = balancer || kind == "NodePort" || (kind == "ClusterIP" && !list(&spec["externalIPs"]).is_empty());
    if accessible {
        check.one_of(&external, &spec["externalTrafficPolicy"], &["Cluster", "Local"]);
    } else if !text(&spec["externalTrafficPolicy"]).is_empty() {
        let detail = "may only be set for externally-accessible services";
        check.invalid(&external, spec["externalTrafficPolicy"].clone(), detail);
    }
    let health = spec["healthCheckNodePort"].as_i64().unwrap_or(0);
    if health != 0 && !(balancer && spec["externalTrafficPolicy"] == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        check.invalid(&path.field("healthCheckNodePort"), health, detail);
    }
    let internal = path.field("internalTrafficPolicy");
    check.one_of_or_none(&internal, &spec["internalTrafficPolicy"], &["Cluster", "Local"]);
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    check.one_of_or_none(
        &path.field("trafficDistribution"),
        &spec["trafficDistribution"],
        &distributions,
    );
}

fn check_cidr(check: &mut Check, path: &Path, range: &str) {
    let good = range.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if !good {
        check.invalid(
            path,
            range,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        );
    }
}

/// An address once given stays, while the Service has one.
fn check_address_change(check: &mut Check, path: &Path, spec: &Value, old: &Value) {
    let external = |spec: &Value| spec["type"] == "ExternalName";
    if external(spec) || external(old) || (is_headless(spec) && is_headless(old)) {
        return;
    }
    let (new, before) = (list(&spec["clusterIPs"]), list(&old["clusterIPs"]));
    let addresses = path.field("clusterIPs");
    if new.is_empty() && !before.is_empty() {
        check.invalid(
            &addresses.index(0),
            spec["clusterIPs"].clone(),
            "primary clusterIP can not be unset",
        );
    }
    for (at, (new, before)) in new.iter().zip(before).enumerate() {
        if new != before {
            check.invalid(
                &addresses.index(at),
                spec["clusterIPs"].clone(),
                "may not change once set",
            );
        }
    }
    if let (Some(new), Some(before)) = (list(&spec["ipFamilies"]).first(), list(&old["ipFamilies"]).first())
        && new != before
    {
        let families = path.field("ipFamilies");
        check.invalid(
            &families.index(0),
            spec["ipFamilies"].clone(),
            "may not change once set",
        );
    }
}

/// An address that traffic can be sent to.
fn check_endpoint_address(check: &mut Check, path: &Path, address: &str) {
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
    for (at, port) in ports.iter().enumerate() {
        let path = ports_path.index(at);
        let name = text(&port["name"]);
        if !name.is_empty() {
            check.named(&path.field("name"), name, names::dns1123_label(name));
        }
        if ports[..at].iter().any(|other| text(&other["name"]) == name) {
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

pub fn check_ingress(check: &mut Check, ingress: &Value) {
    let spec = &ingress["spec"];
    let path = Path::ROOT.field("spec");
    let rules = list(&spec["rules"]);
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        check.invalid(&path, Value::Array(Vec::new()), detail);
    }
    if !spec["defaultBackend"].is_null() {
        check_backend(check, &path.field("defaultBackend"), &spec["defaultBackend"]);
    }
    let rules_path = path.field("rules");
    for (at, rule) in rules.iter().enumerate() {
        let path = rules_path.index(at);
        let host = text(&rule["host"]);
        if !host.is_empty() {
            check_host(check, &path.field("host"), host);
        }
        if rule["http"].is_null() {
            continue;
        }
        let http = path.field("http");
        let paths_path = http.field("paths");
        let paths = list(&rule["http"]["paths"]);
        if paths.is_empty() {
            check.required(&paths_path, "");
        }
        for (at, entry) in paths.iter().enumerate() {
            check_ingress_path(check, &paths_path.index(at), entry);
        }
    }
    let tls = path.field("tls");
    for (at, entry) in list(&spec["tls"]).iter().enumerate() {
        let path = tls.index(at);
        let hosts = path.field("hosts");
        for (at, host) in list(&entry["hosts"]).iter().enumerate() {
            let host = text(host);
            let problems = if host.contains('*') {
                names::wildcard_subdomain(host)
            } else {
                names::dns1123_subdomain(host)
            };
            check.named(&hosts.index(at), host, problems);
        }
    }
    let class = text(&spec["ingressClassName"]);
    if !class.is_empty() {
        check.named(&path.field("ingressClassName"), class, names::dns1123_subdomain(class));
    }
}

fn check_host(check: &mut Check, path: &Path, host: &str) {
    if host.parse::<IpAddr>().is_ok() {
        check.invalid(path, host, "must be a DNS name, not an IP address");
    }
    if host.contains('*') {
        check.named(path, host, names::wildcard_subdomain(host));
    } else {
        check.named(path, host, names::dns1123_subdomain(host));
    }
}

fn check_ingress_path(check: &mut Check, path: &Path, entry: &Value) {
    let target = text(&entry["path"]);
    let target_path = path.field("path");
    match text(&entry["pathType"]) {
        "" => {
            check.required(&path.field("pathType"), "pathType must be specified");
            return;
        }
        "Exact" | "Prefix" => {
            if !target.starts_with('/') {
                check.invalid(&target_path, target, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if target.contains(sequence) {
                    check.invalid(&target_path, target, format!("must not contain '{sequence}'"));
                }
            }
            for suffix in ["/..", "/."] {
                if target.ends_with(suffix) {
                    check.invalid(&target_path, target, format!("cannot end with '{suffix}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !target.is_empty() && !target.starts_with('/') {
                check.invalid(&target_path, target, "must be an absolute path");
            }
        }
        other => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            check.not_supported(&path.field("pathType"), other, &kinds);
        }
    }
    check_backend(check, &path.field("backend"), &entry["backend"]);
}

fn check_backend(check: &mut Check, path: &Path, backend: &Value) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (false, false) => check.invalid(path, "", "cannot set both resource and service backends"),
        (true, true) => check.invalid(path, "", "resource or service backend is required"),
        (true, false) => {
            let path = path.field("resource");
            for field in ["kind", "name"] {
                check.present(&path.field(field), &resource[field]);
            }
        }
        (false, true) => {
            let service_path = path.field("service");
            check.required_name(&service_path.field("name"), &service["name"], names::dns1123_label);
            let port_path = service_path.field("port");
            let name = text(&service["port"]["name"]);
            let number = service["port"]["number"].as_i64().unwrap_or(0);
            match (name, number) {
                ("", 0) => check.required(path, "port name or number is required"),
                ("", _) => check.port_number(&port_path.field("number"), &service["port"]["number"]),
                (name, 0) => check.named(&port_path.field("name"), name, names::port_name(name)),
                _ => check.invalid(path, "", "cannot set both port name & port number"),
            }
        }
    }
}

pub fn check_network_policy(check: &mut Check, policy: &Value) {
    let spec = &policy["spec"];
    let path = Path::ROOT.field("spec");
    check.label_selector(&path.field("podSelector"), &spec["podSelector"]);
    for (kind, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = path.field(kind);
        for (at, rule) in list(&spec[kind]).iter().enumerate() {
            let path = rules.index(at);
            let ports = path.field("ports");
            for (at, port) in list(&rule["ports"]).iter().enumerate() {
                let path = ports.index(at);
                check.one_of_or_none(&path.field("protocol"), &port["protocol"], &PROTOCOLS);
                if !port["port"].is_null() {
                    check.port_number_or_name(&path.field("port"), &port["port"]);
                }
            }
            let peers_path = path.field(peers);
            for (at, peer) in list(&rule[peers]).iter().enumerate() {
                check_peer(check, &peers_path.index(at), peer);
            }
        }
    }
    let types = path.field("policyTypes");
    if list(&spec["policyTypes"]).len() > 2 {
        let detail = "may not specify more than two policyTypes";
        check.invalid(&types, spec["policyTypes"].clone(), detail);
        return;
    }
    for (at, kind) in list(&spec["policyTypes"]).iter().enumerate() {
        check.one_of(&types.index(at), kind, &["Egress", "Ingress"]);
    }
}

fn check_peer(check: &mut Check, path: &Path, peer: &Value) {
    let mut kinds = 0;
    for selector in ["podSelector", "namespaceSelector"] {
        if !peer[selector].is_null() {
            kinds += 1;
            check.label_selector(&path.field(selector), &peer[selector]);
        }
    }
    let block = &peer["ipBlock"];
    if block.is_null() {
        if kinds == 0 {
            check.required(path, "must specify a peer");
        }
        return;
    }
    if kinds > 0 {
        check.forbidden(path, "may not specify both ipBlock and another peer");
    }
    let path = path.field("ipBlock");
    if check.present(&path.field("cidr"), &block["cidr"]) {
        check_cidr(check, &path.field("cidr"), text(&block["cidr"]));
    }
    let except = path.field("except");
    for (at, range) in list(&block["except"]).iter().enumerate() {
        check_cidr(check, &except.index(at), text(range));
    }
}
