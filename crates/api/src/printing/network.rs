//! Services and what routes to them.

use serde_json::{Value, json};

use super::{Printer, age, column, count, labels, list, name, or, selector, text, wide, with_more};

/// How many items of a list a cell shows.
const SHOWN: usize = 3;

pub(super) const SERVICES: Printer = Printer {
    columns: &[
        column("Name"),
        column("Type"),
        column("Cluster-IP"),
        column("External-IP"),
        column("Port(s)"),
        column("Age"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let first = text(&spec["clusterIPs"][0]);
        let ports: Vec<String> = list(&spec["ports"])
            .iter()
            .map(|port| {
                let node_port = count(&port["nodePort"]);
                let on_nodes = if node_port > 0 {
                    format!(":{node_port}")
                } else {
                    String::new()
                };
                format!("{}{on_nodes}/{}", count(&port["port"]), text(&port["protocol"]))
            })
            .collect();
        vec![
            name(object),
            json!(text(&spec["type"])),
            json!(or(or(first, text(&spec["clusterIP"])), "<none>")),
            json!(external_address(object)),
            json!(or(&ports.join(","), "<none>")),
            age(object, now),
            json!(labels(&spec["selector"])),
        ]
    },
};

fn external_address(service: &Value) -> String {
    let spec = &service["spec"];
    let external: Vec<String> = list(&spec["externalIPs"])
        .iter()
        .map(|ip| text(ip).to_owned())
        .collect();
    match text(&spec["type"]) {
        "ClusterIP" | "NodePort" => or(&external.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let mut all = balancer_addresses(service);
            all.extend(external);
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn balancer_addresses(object: &Value) -> Vec<String> {
    let mut addresses: Vec<String> = list(&object["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|entry| or(text(&entry["ip"]), text(&entry["hostname"])).to_owned())
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

pub(super) const ENDPOINTS: Printer = Printer {
    columns: &[column("Name"), column("Endpoints"), column("Age")],
    cells: |object, now| {
        let mut all = Vec::new();
        for subset in list(&object["subsets"]) {
            let addresses = list(&subset["addresses"]).iter().map(|address| text(&address["ip"]));
            let ports = list(&subset["ports"]);
            if ports.is_empty() {
                all.extend(addresses.clone().map(str::to_owned));
            }
            for port in ports {
                let port = count(&port["port"]);
                all.extend(addresses.clone().map(|ip| {
                    if ip.contains(':') {
                        format!("[{ip}]:{port}")
                    } else {
                        format!("{ip}:{port}")
                    }
                }));
            }
        }
        let shown = &all[..all.len().min(SHOWN)];
        let absent = if list(&object["subsets"]).is_empty() {
            "<none>"
        } else {
            ""
        };
        vec![
            name(object),
            json!(with_more(shown, all.len(), absent)),
            age(object, now),
        ]
    },
};

pub(super) const ENDPOINT_SLICES: Printer = Printer {
    columns: &[
        column("Name"),
        column("AddressType"),
        column("Ports"),
        column("Endpoints"),
        column("Age"),
    ],
    cells: |object, now| {
        let ports: Vec<String> = list(&object["ports"])
            .iter()
            .map(|port| match port["port"].as_i64() {
                Some(number) => number.to_string(),
                None => port["name"].as_str().unwrap_or("*").to_owned(),
            })
            .collect();
        let addresses: Vec<String> = list(&object["endpoints"])
            .iter()
            .flat_map(|endpoint| list(&endpoint["addresses"]))
            .map(|address| text(address).to_owned())
            .collect();
        let cell = |all: &[String]| with_more(&all[..all.len().min(SHOWN)], all.len(), "<unset>");
        vec![
            name(object),
            json!(text(&object["addressType"])),
            json!(cell(&ports)),
            json!(cell(&addresses)),
            age(object, now),
        ]
    },
};

pub(super) const INGRESSES: Printer = Printer {
    columns: &[
        column("Name"),
        column("Class"),
        column("Hosts"),
        column("Address"),
        column("Ports"),
        column("Age"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let rules = list(&spec["rules"]);
        let hosts: Vec<String> = rules
            .iter()
            .map(|rule| text(&rule["host"]).to_owned())
            .filter(|host| !host.is_empty())
            .collect();
        let shown = &hosts[..hosts.len().min(SHOWN)];
        let total = if shown.len() == SHOWN { rules.len() } else { shown.len() };
        let ports = if list(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            name(object),
            json!(or(text(&spec["ingressClassName"]), "<none>")),
            json!(with_more(shown, total, "*")),
            json!(balancer_addresses(object).join(",")),
            json!(ports),
            age(object, now),
        ]
    },
};

pub(super) const INGRESS_CLASSES: Printer = Printer {
    columns: &[
        column("Name"),
        column("Controller"),
        column("Parameters"),
        column("Age"),
    ],
    cells: |object, now| {
        let parameters = &object["spec"]["parameters"];
        let shown = if parameters.is_null() {
            "<none>".to_owned()
        } else {
            let group = text(&parameters["apiGroup"]);
            let dot = if group.is_empty() { "" } else { "." };
            format!(
                "{}{dot}{group}/{}",
                text(&parameters["kind"]),
                text(&parameters["name"])
            )
        };
        vec![
            name(object),
            json!(text(&object["spec"]["controller"])),
            json!(shown),
            age(object, now),
        ]
    },
};

pub(super) const NETWORK_POLICIES: Printer = Printer {
    columns: &[column("Name"), column("Pod-Selector"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            json!(selector(&object["spec"]["podSelector"])),
            age(object, now),
        ]
    },
};
