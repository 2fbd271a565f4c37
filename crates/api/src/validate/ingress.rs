//! Ingresses and network policies: what may come in from where.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    check::{Check, list, text},
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

pub fn check_cidr(check: &mut Check, path: &Path, range: &str) {
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
