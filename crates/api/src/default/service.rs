//! Services and what routes to them.

use serde_json::{Value, json};

use super::{at, each, inside, set, set_over};

pub(super) fn default_service(service: &mut Value) {
    let spec = at(service, "spec");
    set(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() {
            set_over(
                spec,
                "sessionAffinityConfig",
                json!({"clientIP": {"timeoutSeconds": 10800}}),
            );
        }
    } else if let Some(fields) = spec.as_object_mut() {
        fields.remove("sessionAffinityConfig");
    }
    set(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        set(port, "protocol", "TCP");
        if port["targetPort"].is_null() || port["targetPort"] == 0 || port["targetPort"] == "" {
            let number = port["port"].clone();
            set_over(port, "targetPort", number);
        }
    }
    let kind = spec["type"].as_str().unwrap_or("").to_owned();
    let has_external_ips = spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && has_external_ips) {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(status) = inside(service, "status")
        && let Some(balancer) = inside(status, "loadBalancer")
    {
        for ingress in each(balancer, "ingress") {
            if ingress["ip"].is_string() {
                set(ingress, "ipMode", "VIP");
            }
        }
    }
}

pub(super) fn default_endpoints(endpoints: &mut Value) {
    for subset in each(endpoints, "subsets") {
        for port in each(subset, "ports") {
            set(port, "protocol", "TCP");
        }
    }
}

pub(super) fn default_endpoint_slice(slice: &mut Value) {
    for port in each(slice, "ports") {
        if port["name"].is_null() {
            set_over(port, "name", "");
        }
        set(port, "protocol", "TCP");
    }
}

pub(super) fn default_ingress(ingress: &mut Value) {
    // Upstream's encoder writes an empty status.
    set(at(ingress, "status"), "loadBalancer", json!({}));
}

pub(super) fn default_ingress_class(class: &mut Value) {
    if let Some(spec) = inside(class, "spec")
        && let Some(parameters) = inside(spec, "parameters")
    {
        set(parameters, "scope", "Cluster");
    }
}

pub(super) fn default_network_policy(policy: &mut Value) {
    let spec = at(policy, "spec");
    for list in ["ingress", "egress"] {
        for rule in each(spec, list) {
            for port in each(rule, "ports") {
                set(port, "protocol", "TCP");
            }
        }
    }
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let mut types = vec!["Ingress"];
        if spec["egress"].as_array().is_some_and(|rules| !rules.is_empty()) {
            types.push("Egress");
        }
        set_over(spec, "policyTypes", types);
    }
}
