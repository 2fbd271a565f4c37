//! From Services and EndpointSlices to what the kernel shall do with packets. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service as ServiceObject, ServicePort as PortSpec, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use network::proxy::{Affinity, Place, Protocol, Service, ServicePort, Target};

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All rules. `node` is this machine's name, for Services that want to be met where one is.
pub fn rules<'a>(
    services: impl Iterator<Item = &'a ServiceObject>,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    node: &str,
) -> BTreeMap<ServicePort, Service> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let metadata = &slice.metadata;
        let service = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        if let (Some(namespace), Some(service)) = (metadata.namespace.as_deref(), service) {
            by_service.entry((namespace, service)).or_default().push(slice);
        }
    }

    let mut rules = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        if spec.type_.as_deref() == Some("ExternalName") {
            continue;
        }
        let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
            continue;
        };
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let slices = by_service
            .get(&(namespace, name))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let affinity = match spec.session_affinity.as_deref() {
            Some("ClientIP") => Affinity::ClientAddress {
                seconds: sticky_seconds(spec),
            },
            _ => Affinity::None,
        };
        let balancers = service
            .status
            .iter()
            .flat_map(|status| status.load_balancer.iter())
            .flat_map(|balancer| balancer.ingress.iter().flatten())
            .filter_map(|ingress| ingress.ip.as_deref());
        let outer: Vec<Place> = spec
            .external_ips
            .iter()
            .flatten()
            .map(String::as_str)
            .chain(balancers)
            .filter_map(|ip| ip.parse().ok().map(Place::Address))
            .collect();
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");

        for port in spec.ports.iter().flatten() {
            let Some(protocol) = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP")) else {
                continue;
            };
            let all = targets(port, slices, None);
            let here = || targets(port, slices, Some(node));
            let inner = Service {
                targets: match is_local(&spec.internal_traffic_policy) {
                    true => here(),
                    false => all.clone(),
                },
                from_outside: None,
                affinity,
            };
            let from_outside = is_local(&spec.external_traffic_policy).then(here);
            let outer_rule = Service {
                targets: all,
                from_outside,
                affinity,
            };
            let mut put = |place: Place, port: i32, rule: &Service| {
                if let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) {
                    let at = ServicePort { place, protocol, port };
                    rules.insert(at, rule.clone());
                }
            };
            put(Place::Address(cluster_ip), port.port, &inner);
            for place in &outer {
                put(*place, port.port, &outer_rule);
            }
            if let Some(node_port) = port.node_port {
                put(Place::Nodes, node_port, &outer_rule);
            }
        }
    }
    rules
}

/// As upstream, three hours without a word.
fn sticky_seconds(spec: &ServiceSpec) -> u32 {
    let config = spec.session_affinity_config.as_ref();
    let asked = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    asked
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .unwrap_or(10_800)
}

/// Endpoints (of one node, or of all) that are ready; where none is, those that still serve while they end, so that a rolling change loses no
/// connection.
fn targets(port: &PortSpec, slices: &[&EndpointSlice], node: Option<&str>) -> Vec<Target> {
    let choose = |wanted: fn(&Endpoint) -> bool| -> Vec<Target> {
        let found: BTreeSet<Target> = slices
            .iter()
            .flat_map(|slice| {
                let number = number_in(port, slice);
                slice
                    .endpoints
                    .iter()
                    .flatten()
                    .filter(move |endpoint| {
                        wanted(endpoint) && node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node))
                    })
                    .filter_map(move |endpoint| {
                        Some(Target {
                            address: endpoint.addresses.first()?.parse().ok()?,
                            port: number?,
                        })
                    })
            })
            .collect();
        found.into_iter().collect()
    };
    let ready = choose(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .is_none_or(|conditions| conditions.ready != Some(false))
    });
    if !ready.is_empty() {
        return ready;
    }
    choose(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .is_some_and(|conditions| conditions.serving == Some(true) && conditions.terminating == Some(true))
    })
}

/// The Service port's number in a slice: by name; a slice's port without a number means all.
fn number_in(port: &PortSpec, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let found = slice.ports.iter().flatten().find(|candidate| {
        candidate.name.as_deref().unwrap_or_default() == name
            && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
    })?;
    let number = found.port.or(match &port.target_port {
        Some(IntOrString::Int(number)) => Some(*number),
        _ => Some(port.port),
    })?;
    u16::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> ServiceObject {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": spec})).unwrap()
    }

    fn slice(endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "n", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        }))
        .unwrap()
    }

    fn at(address: [u8; 4], protocol: Protocol, port: u16) -> ServicePort {
        ServicePort {
            place: Place::Address(address.into()),
            protocol,
            port,
        }
    }

    fn to(address: [u8; 4], port: u16) -> Target {
        Target {
            address: address.into(),
            port,
        }
    }

    #[test]
    fn ready_endpoints_are_the_targets_of_every_address_of_a_service() {
        let service = service(json!({"clusterIP": "10.96.1.1", "externalIPs": ["192.0.2.7"],
            "sessionAffinity": "ClientIP", "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"}]}));
        let slices = [
            slice(json!([
                {"addresses": ["10.244.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
            ])),
            slice(json!([{"addresses": ["10.244.1.2"]}, {"addresses": ["10.244.0.2"]}])),
        ];

        let rules = rules([&service].into_iter(), slices.iter(), "n1");

        let http = &rules[&at([10, 96, 1, 1], Protocol::Tcp, 80)];
        assert_eq!(http.targets, [to([10, 244, 0, 2], 8080), to([10, 244, 1, 2], 8080)]);
        assert_eq!(http.affinity, Affinity::ClientAddress { seconds: 10_800 });
        assert_eq!(&rules[&at([192, 0, 2, 7], Protocol::Tcp, 80)], http);
        let node_port = ServicePort {
            place: Place::Nodes,
            ..at([0; 4], Protocol::Tcp, 30080)
        };
        assert_eq!(&rules[&node_port], http);
        let dns = &rules[&at([10, 96, 1, 1], Protocol::Udp, 53)];
        assert_eq!(dns.targets, [to([10, 244, 0, 2], 5353), to([10, 244, 1, 2], 5353)]);
        assert_eq!(rules.len(), 5);
    }

    #[test]
    fn endpoints_that_end_serve_only_if_no_other_does() {
        let service = service(json!({"clusterIP": "10.96.1.1", "ports": [{"name": "http", "port": 80}]}));
        let ending = json!({"addresses": ["10.244.0.2"],
            "conditions": {"ready": false, "serving": true, "terminating": true}});
        let port = at([10, 96, 1, 1], Protocol::Tcp, 80);

        let alone = rules([&service].into_iter(), [&slice(json!([ending]))].into_iter(), "n1");
        let beside = rules(
            [&service].into_iter(),
            [&slice(
                json!([ending, {"addresses": ["10.244.0.9"], "conditions": {"ready": true}}]),
            )]
            .into_iter(),
            "n1",
        );

        assert_eq!(alone[&port].targets, [to([10, 244, 0, 2], 8080)]);
        assert_eq!(beside[&port].targets, [to([10, 244, 0, 9], 8080)]);
    }

    #[test]
    fn a_local_policy_leads_to_this_nodes_endpoints() {
        let service = service(json!({"clusterIP": "10.96.1.1", "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local", "externalIPs": ["192.0.2.7"], "ports": [{"name": "http", "port": 80}]}));
        let slice = slice(json!([
            {"addresses": ["10.244.0.2"], "nodeName": "n1"},
            {"addresses": ["10.244.1.2"], "nodeName": "n2"}]));

        let rules = rules([&service].into_iter(), [&slice].into_iter(), "n2");

        let there = vec![to([10, 244, 1, 2], 8080)];
        assert_eq!(rules[&at([10, 96, 1, 1], Protocol::Tcp, 80)].targets, there);
        let outer = &rules[&at([192, 0, 2, 7], Protocol::Tcp, 80)];
        assert_eq!(outer.targets.len(), 2);
        assert_eq!(outer.from_outside, Some(there));
    }

    #[test]
    fn headless_and_external_names_have_no_rules_and_no_endpoints_mean_refusal() {
        let none = [
            service(json!({"clusterIP": "None", "ports": [{"port": 80}]})),
            service(json!({"type": "ExternalName", "externalName": "example.org"})),
        ];
        let lonely = service(json!({"clusterIP": "10.96.1.1", "ports": [{"port": 80}]}));

        assert!(rules(none.iter(), [].into_iter(), "n1").is_empty());
        assert_eq!(
            rules([&lonely].into_iter(), [].into_iter(), "n1")[&at([10, 96, 1, 1], Protocol::Tcp, 80)],
            Service::default()
        );
    }
}
