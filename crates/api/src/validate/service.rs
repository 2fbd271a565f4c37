//! Services.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    check::{Check, Seen, list, text},
    endpoints::check_endpoint_address,
    ingress::check_cidr,
};
use crate::{field::Path, names};

pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

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
    let (mut names_seen, mut seen) = (Seen::default(), Seen::default());
    for (at, port) in ports.iter().enumerate() {
        let item = path.index(at);
        let name = text(&port["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                check.required(&item.field("name"), "");
            }
        } else {
            check.named(&item.field("name"), name, names::dns1123_label(name));
            if names_seen.again(name) {
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
        let mut same = |field: &str| {
            let key = format!("{field}/{}/{}", text(&port["protocol"]), port[field]);
            seen.again(key)
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
    let families: Vec<bool> = addresses
        .iter()
        .filter_map(|address| Some(text(address).parse::<IpAddr>().ok()?.is_ipv6()))
        .collect();
    if families.len() == 2 && families[0] == families[1] {
        let detail = "may specify no more than one IP for each IP family";
        check.invalid(&addresses_path, spec["clusterIPs"].clone(), detail);
    }
    if addresses.len() > 2 {
        check.invalid(
            &addresses_path,
            spec["clusterIPs"].clone(),
            "may only hold up to 2 values",
        );
    }
}

/// Whether balancers ask nodes if they have Pods of the Service.
pub fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
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
    if balancer && spec["allocateLoadBalancerNodePorts"].is_null() {
        // Upstream forgets the spec in this path.
        check.required(&Path::ROOT.field("allocateLoadBalancerNodePorts"), "");
    }
    if let Some(class) = spec["loadBalancerClass"].as_str().filter(|_| balancer) {
        check.named(&path.field("loadBalancerClass"), class, names::qualified_name(class));
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

/// An address once given stays, while the Service has one; so do the class of its balancer and the port of its health.
fn check_address_change(check: &mut Check, path: &Path, spec: &Value, old: &Value) {
    let balancer = |spec: &Value| spec["type"] == "LoadBalancer";
    if balancer(spec) && balancer(old) && spec["loadBalancerClass"] != old["loadBalancerClass"] {
        let class = spec["loadBalancerClass"].clone();
        check.invalid(&path.field("loadBalancerClass"), class, "may not change once set");
    }
    if needs_health_check(spec) && needs_health_check(old) && spec["healthCheckNodePort"] != old["healthCheckNodePort"]
    {
        check.forbidden(&path.field("healthCheckNodePort"), "field is immutable");
    }
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
