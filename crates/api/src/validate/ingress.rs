//! Ingresses and network policies: what may come in from where.

use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;

use super::{
    check::{Check, list, text, without_leading_zeros},
    service::PROTOCOLS,
};
use crate::{field::Path, names};

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
                check_port_range(check, &path, port);
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

/// A port, or all from one to another.
fn check_port_range(check: &mut Check, path: &Path, port: &Value) {
    let (first, end) = (&port["port"], &port["endPort"]);
    let end_path = path.field("endPort");
    if !first.is_null() {
        check.port_number_or_name(&path.field("port"), first);
    }
    let Some(end) = end.as_i64() else { return };
    match first {
        Value::Null => check.invalid(&end_path, end, "may not be specified when `port` is not specified"),
        Value::String(_) => check.invalid(&end_path, end, "may not be specified when `port` is non-numeric"),
        first => {
            if first.as_i64().is_some_and(|first| end < first) {
                check.invalid(&end_path, first.clone(), "must be greater than or equal to `port`");
            }
            check.port_number(&end_path, &end.into());
        }
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
        let path = except.index(at);
        let range = text(range);
        check_cidr(check, &path, range);
        if is_cidr(range) && is_cidr(text(&block["cidr"])) && !is_within(range, text(&block["cidr"])) {
            check.invalid(&path, range, "must be a strict subset of `cidr`");
        }
    }
}

/// Network and length of a prefix; IPv4 in the upper bits.
fn parse_cidr(range: &str) -> Option<(bool, u128, u8)> {
    let (address, bits) = range.split_once('/')?;
    let bits: u8 = bits.parse().ok()?;
    let (v6, number, most) = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => (false, u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (true, u128::from(address), 128),
    };
    let plain = bits.to_string() == range.rsplit('/').next().unwrap_or("");
    (bits <= most && plain).then_some((v6, number, bits))
}

fn is_cidr(range: &str) -> bool {
    parse_cidr(range).is_some()
}

fn is_within(inner: &str, outer: &str) -> bool {
    let (Some(inner), Some(outer)) = (parse_cidr(inner), parse_cidr(outer)) else {
        return false;
    };
    let mask = mask(outer.2);
    inner.0 == outer.0 && inner.2 > outer.2 && inner.1 & mask == outer.1 & mask
}

/// The upper `bits` of an address.
fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

pub fn check_cidr(check: &mut Check, path: &Path, range: &str) {
    let detail = match parse_cidr(range) {
        None => {
            let sloppy = range.split_once('/').map(|(address, bits)| {
                let bits = bits.trim_start_matches('0');
                format!(
                    "{}/{}",
                    without_leading_zeros(address),
                    if bits.is_empty() { "0" } else { bits }
                )
            });
            if sloppy.is_some_and(|sloppy| is_cidr(&sloppy)) {
                "must not have leading 0s in IP or prefix length"
            } else {
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            }
        }
        Some((true, number, _)) if Ipv6Addr::from(number).to_ipv4_mapped().is_some() => {
            "must not have an IPv4-mapped IPv6 address"
        }
        Some((_, number, bits)) if number & !mask(bits) != 0 => "must not have bits set beyond the prefix length",
        Some(_) => return,
    };
    check.invalid(path, range, detail);
}

/// The longest name of a controller.
const CONTROLLER_BYTES_MAX: usize = 250;

pub fn check_ingress_class(check: &mut Check, class: &Value, old: Option<&Value>) {
    let spec = Path::ROOT.field("spec");
    let path = spec.field("controller");
    let controller = text(&class["spec"]["controller"]);
    if let Some(old) = old {
        check.immutable(&path, &class["spec"]["controller"], &old["spec"]["controller"]);
    }
    if controller.len() > CONTROLLER_BYTES_MAX {
        check.causes.push(crate::field::too_long(&path, CONTROLLER_BYTES_MAX));
    }
    check_prefixed_path(check, &path, controller);
    let parameters = &class["spec"]["parameters"];
    if parameters.is_null() {
        return;
    }
    let path = spec.field("parameters");
    if let Some(group) = parameters["apiGroup"].as_str() {
        check.named(&path.field("apiGroup"), group, names::dns1123_subdomain(group));
    }
    for field in ["kind", "name"] {
        check.required_name(&path.field(field), &parameters[field], names::path_segment);
    }
    let namespace = path.field("namespace");
    match parameters["scope"].as_str() {
        None => check.required(&path.field("scope"), ""),
        Some("Namespace") => match parameters["namespace"].as_str() {
            None => check.required(&namespace, "`parameters.scope` is set to 'Namespace'"),
            Some(name) => check.named(&namespace, name, names::dns1123_label(name)),
        },
        Some("Cluster") => {
            if !parameters["namespace"].is_null() {
                check.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
            }
        }
        Some(other) => check.not_supported(&path.field("scope"), other, &["Cluster", "Namespace"]),
    }
}

/// `example.com/path`.
pub fn check_prefixed_path(check: &mut Check, path: &Path, value: &str) {
    if value.is_empty() {
        check.required(path, "");
        return;
    }
    let Some((domain, rest)) = value
        .split_once('/')
        .filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        check.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    for problem in names::dns1123_subdomain(domain) {
        check.invalid(path, domain, problem);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/%:@-._~!$&'()*+,;=".contains(&byte);
    if !rest.bytes().all(allowed) {
        let detail =
            "Invalid path (e.g. 'foo', or 'foo/bar', regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        check.invalid(path, rest, detail);
    }
}
