//! A tenant's Service as a super Service: one address for both, since all planes allocate from one range.

use api::Object;
use serde_json::{Map, Value, json};

use super::pod_drift::metadata_drift;
use crate::identity::{self, Tenant};

/// What of a ServiceSpec goes down. `externalIPs` and `loadBalancerIP` would let a tenant catch others' traffic
/// (CVE-2020-8554's class); `externalName` is answered by the tenant's own DNS.
const FIELDS: &[&str] = &[
    "clusterIP",
    "clusterIPs",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "type",
];

/// The super Service; `None` for one that needs nothing below.
pub fn down(tenant: &Tenant, service: &Object, super_namespace: &str) -> Option<Value> {
    let source = &service.tree()["spec"];
    if source["type"] == "ExternalName" {
        return None;
    }
    let spec: Map<String, Value> = FIELDS
        .iter()
        .filter(|field| !source[**field].is_null())
        .map(|field| ((*field).to_owned(), source[*field].clone()))
        .collect();
    Some(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": identity::super_metadata(tenant, service, super_namespace),
        "spec": spec,
    }))
}

/// A merge patch that makes the observed super Service follow; `None` if it does.
pub fn drift(wanted: &Value, observed: &Object) -> Option<Value> {
    let mut patch = Map::new();
    let metadata = metadata_drift(&wanted["metadata"], &observed.tree()["metadata"]);
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }
    let mut spec = Map::new();
    let theirs = &observed.tree()["spec"];
    for field in FIELDS {
        let ours = &wanted["spec"][*field];
        if *ours == theirs[*field] {
            continue;
        }
        let mut change = ours.clone();
        if let (Some(change), Some(theirs)) = (change.as_object_mut(), theirs[*field].as_object()) {
            for key in theirs.keys() {
                change.entry(key).or_insert(Value::Null);
            }
        }
        spec.insert((*field).to_owned(), change);
    }
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), spec.into());
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// True if the tenant writes this Service's endpoints by hand.
pub fn is_selectorless(service: &Object) -> bool {
    service.tree()["spec"]["selector"].as_object().is_none_or(Map::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    #[test]
    fn both_sides_have_one_address_and_nothing_that_catches_foreign_traffic() {
        let service = Object::from_tree(
            json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": {
            "clusterIP": "10.97.0.9", "clusterIPs": ["10.97.0.9"], "selector": {"app": "web"}, "type": "ClusterIP",
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
            "externalIPs": ["1.1.1.1"], "loadBalancerIP": "2.2.2.2"}}),
        );

        let down = down(&acme(), &service, "s").unwrap();

        assert_eq!(down["spec"]["clusterIP"], "10.97.0.9");
        assert!(down["spec"].get("externalIPs").is_none() && down["spec"].get("loadBalancerIP").is_none());
        assert_eq!(drift(&down, &Object::from_tree(down.clone())), None);
    }

    #[test]
    fn a_selector_that_loses_a_key_is_drift() {
        let wanted = json!({"metadata": {}, "spec": {"selector": {"a": "1"}}});
        let observed = Object::from_tree(json!({"metadata": {}, "spec": {"selector": {"a": "1", "b": "2"}}}));

        assert_eq!(
            drift(&wanted, &observed).unwrap(),
            json!({"spec": {"selector": {"a": "1", "b": null}}})
        );
    }
}
