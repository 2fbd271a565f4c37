//! Endpoints that a person writes for a Service without a selector, as slices: what carries traffic and answers names reads
//! slices only (upstream's `endpointslicemirroring-controller`).

use api::{Object, resource::ENDPOINTS};
use serde_json::{Map, Value, json};

use super::slices::{MANAGED_BY, SERVICE_NAME, Step};

pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";

/// On Endpoints that are nobody's to mirror.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Upstream's `--mirroring-max-endpoints-per-subset`.
const ADDRESSES_MAX: usize = 1000;

/// What `slices`, the mirrored ones of this Service, have to become.
pub fn plan(service: &Object, endpoints: Option<&Object>, slices: &[Object]) -> Vec<Step> {
    let wanted: Vec<Value> = match endpoints.filter(|endpoints| is_mirrored(endpoints)) {
        Some(endpoints) => bodies(service, endpoints),
        None => Vec::new(),
    };
    let mut left: Vec<&Object> = slices.iter().filter(|slice| !slice.is_deleting()).collect();
    let mut missing = Vec::new();
    for body in wanted {
        match left.iter().position(|slice| is_same(&body, slice)) {
            Some(at) => drop(left.remove(at)),
            None => missing.push(body),
        }
    }
    let mut steps = Vec::new();
    for body in missing {
        // Changed in place where that is possible, so that no end is missing in between.
        match left
            .iter()
            .position(|slice| slice.tree()["addressType"] == body["addressType"])
        {
            Some(at) => {
                let slice = left.remove(at).clone();
                let patch = json!({"metadata": {"uid": slice.uid(), "resourceVersion": slice.resource_version(),
                    "labels": body["metadata"]["labels"]}, "endpoints": body["endpoints"], "ports": body["ports"]});
                steps.push(Step::Change { slice, patch });
            }
            None => steps.push(Step::Create(body)),
        }
    }
    steps.extend(left.into_iter().cloned().map(Step::Delete));
    steps
}

fn is_mirrored(endpoints: &Object) -> bool {
    endpoints.label(SKIP) != Some("true") && endpoints.annotation(LEADER).is_none() && !endpoints.is_deleting()
}

fn is_same(body: &Value, slice: &Object) -> bool {
    let tree = slice.tree();
    let of = |value: &Value| value.as_array().cloned().unwrap_or_default();
    tree["addressType"] == body["addressType"]
        && of(&tree["endpoints"]) == of(&body["endpoints"])
        && of(&tree["ports"]) == of(&body["ports"])
        && tree["metadata"]["labels"] == body["metadata"]["labels"]
}

/// A slice for each subset and family of addresses.
fn bodies(service: &Object, endpoints: &Object) -> Vec<Value> {
    let mut labels: Map<String, Value> = endpoints.tree()["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.name().into());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.into());
    let owner = json!([{"apiVersion": ENDPOINTS.api_version(), "kind": ENDPOINTS.kind, "name": endpoints.name(),
        "uid": endpoints.uid(), "controller": true, "blockOwnerDeletion": true}]);
    let mut bodies = Vec::new();
    for subset in endpoints.tree()["subsets"].as_array().into_iter().flatten() {
        for (family, is_of) in [("IPv4", is_v4 as fn(&str) -> bool), ("IPv6", is_v6)] {
            let ends: Vec<Value> = [("addresses", true), ("notReadyAddresses", false)]
                .into_iter()
                .flat_map(|(field, ready)| {
                    let addresses = subset[field].as_array().into_iter().flatten();
                    addresses.filter_map(move |address| end(address, ready, is_of))
                })
                .take(ADDRESSES_MAX)
                .collect();
            if ends.is_empty() {
                continue;
            }
            bodies.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                "metadata": {"generateName": format!("{}-", service.name()), "namespace": service.namespace(),
                    "labels": labels, "ownerReferences": owner},
                "endpoints": ends, "ports": ports(subset),
            }));
        }
    }
    bodies
}

/// In the form in which a server keeps them, so that what was written is what is read.
fn ports(subset: &Value) -> Vec<Value> {
    let ports = subset["ports"].as_array().into_iter().flatten();
    ports
        .map(|port| {
            let mut kept = json!({"name": port["name"].as_str().unwrap_or(""), "port": port["port"],
                "protocol": port["protocol"].as_str().unwrap_or("TCP")});
            if port["appProtocol"].is_string() {
                kept["appProtocol"] = port["appProtocol"].clone();
            }
            kept
        })
        .collect()
}

fn end(address: &Value, ready: bool, is_of: fn(&str) -> bool) -> Option<Value> {
    let ip = address["ip"].as_str().filter(|ip| is_of(ip))?;
    let mut end = json!({"addresses": [ip], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            end[field] = address[field].clone();
        }
    }
    Some(end)
}

fn is_v4(ip: &str) -> bool {
    ip.parse::<std::net::Ipv4Addr>().is_ok()
}

fn is_v6(ip: &str) -> bool {
    ip.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Object {
        Object::from_tree(json!({"metadata": {"name": "db", "namespace": "shop", "uid": "s"}, "spec": {}}))
    }

    fn endpoints(subsets: Value) -> Object {
        Object::from_tree(json!({"metadata": {"name": "db", "namespace": "shop", "uid": "e"}, "subsets": subsets}))
    }

    fn made(step: &Step) -> &Value {
        match step {
            Step::Create(body) => body,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_family_of_a_subset_is_a_slice_that_is_left_alone_once_it_is_there() {
        let endpoints = endpoints(
            json!([{"addresses": [{"ip": "192.0.2.1", "hostname": "a"}, {"ip": "2001:db8::1"}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 5432, "name": "sql"}]}]),
        );

        let steps = plan(&service(), Some(&endpoints), &[]);

        assert_eq!(steps.len(), 2);
        assert_eq!(
            made(&steps[0])["endpoints"],
            json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "hostname": "a"},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}}])
        );
        assert_eq!(made(&steps[1])["addressType"], "IPv6");
        let slices: Vec<Object> = steps.iter().map(|step| Object::from_tree(made(step).clone())).collect();
        assert_eq!(plan(&service(), Some(&endpoints), &slices), vec![]);
    }

    #[test]
    fn a_changed_address_changes_the_slice_and_what_is_gone_goes() {
        let before = endpoints(json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]));
        let slices: Vec<Object> = plan(&service(), Some(&before), &[])
            .iter()
            .map(|step| Object::from_tree(made(step).clone()))
            .collect();
        let after = endpoints(json!([{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 80}]}]));

        let steps = plan(&service(), Some(&after), &slices);

        let [Step::Change { patch, .. }] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(patch["endpoints"][0]["addresses"], json!(["192.0.2.9"]));
        assert_eq!(plan(&service(), None, &slices), vec![Step::Delete(slices[0].clone())]);
    }

    #[test]
    fn what_asks_not_to_be_mirrored_is_not() {
        let mut tree = endpoints(json!([{"addresses": [{"ip": "192.0.2.1"}]}])).tree().clone();
        tree["metadata"]["labels"] = json!({SKIP: "true"});

        assert_eq!(plan(&service(), Some(&Object::from_tree(tree)), &[]), vec![]);
    }
}
