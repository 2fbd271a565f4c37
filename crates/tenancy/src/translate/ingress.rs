//! A tenant's Ingress as a super Ingress, for tenants whose VirtualCluster has them synced.

use std::collections::BTreeSet;

use api::Object;
use serde_json::{Map, Value, json};

use super::pod_drift::metadata_drift;
use crate::identity::{self, Tenant};

const FIELDS: [&str; 3] = ["ingressClassName", "rules", "tls"];

/// The super Ingress, or why there can be none, in the tenant's words. One without a host, or with one that was not granted,
/// would catch what is sent to others; annotations give orders to controllers that all tenants share, and none goes down.
pub fn down(tenant: &Tenant, ingress: &Object, super_namespace: &str) -> Result<Value, String> {
    let source = &ingress.tree()["spec"];
    if !source["defaultBackend"].is_null() {
        return Err(
            "an Ingress with a default backend, which is for all hosts, is not allowed in this cluster".to_owned(),
        );
    }
    let rules = source["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let of_rules = rules.iter().map(|rule| rule["host"].as_str().unwrap_or(""));
    let tls = source["tls"].as_array().map_or(&[][..], Vec::as_slice);
    let of_tls = tls.iter().flat_map(|tls| tls["hosts"].as_array().into_iter().flatten());
    for host in of_rules.chain(of_tls.map(|host| host.as_str().unwrap_or(""))) {
        if host.is_empty() {
            return Err("a rule without a host, which is for all hosts, is not allowed in this cluster".to_owned());
        }
        if !tenant.settings.grants_host(host) {
            return Err(format!("host {host:?} is not granted to this tenant"));
        }
    }
    if rules
        .iter()
        .flat_map(|rule| rule["http"]["paths"].as_array().into_iter().flatten())
        .any(|path| !path["backend"]["resource"].is_null())
    {
        return Err("backends that are no Services are not supported in this cluster".to_owned());
    }
    let spec: Map<String, Value> = FIELDS
        .iter()
        .filter(|field| !source[**field].is_null())
        .map(|field| ((*field).to_owned(), source[*field].clone()))
        .collect();
    let mut metadata = identity::super_metadata(tenant, ingress, super_namespace);
    if let Some(annotations) = metadata["annotations"].as_object_mut() {
        annotations.retain(|key, _| key.starts_with(identity::PREFIX) && key != identity::APPLIED);
    }
    Ok(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}))
}

/// A merge patch that makes the observed super Ingress follow; `None` if it does.
pub fn drift(wanted: &Value, observed: &Object) -> Option<Value> {
    let mut patch = Map::new();
    let metadata = metadata_drift(&wanted["metadata"], &observed.tree()["metadata"]);
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }
    let mut spec = Map::new();
    for field in FIELDS.into_iter().chain(["defaultBackend"]) {
        let (ours, theirs) = (&wanted["spec"][field], &observed.tree()["spec"][field]);
        // What class an Ingress without one gets is the super cluster's to fill in.
        if ours != theirs && !(field == "ingressClassName" && ours.is_null()) {
            spec.insert(field.to_owned(), ours.clone());
        }
    }
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), spec.into());
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Secrets with certificates that the Ingress names.
pub fn secrets(ingress: &Object) -> BTreeSet<String> {
    let tls = ingress.tree()["spec"]["tls"].as_array().into_iter().flatten();
    tls.filter_map(|tls| tls["secretName"].as_str())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    fn down_of(spec: Value) -> Result<Value, String> {
        let mut tenant = acme();
        tenant.settings.ingress_hosts = vec!["acme.example".to_owned(), "*.acme.example".to_owned()];
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "u",
            "annotations": {"nginx.example/server-snippet": "steal"}});
        down(
            &tenant,
            &Object::from_tree(json!({"metadata": metadata, "spec": spec})),
            "s",
        )
    }

    #[test]
    fn only_granted_hosts_go_down_and_no_orders_to_the_controller() {
        let rule = |host: Value| json!({"rules": [{"host": host, "http": {"paths": []}}]});

        let down = down_of(rule("a.acme.example".into())).unwrap();

        assert!(!down.to_string().contains("steal"));
        for refused in [
            rule("globex.example".into()),
            rule("".into()),
            rule(Value::Null),
            json!({"defaultBackend": {"service": {"name": "web"}}}),
            json!({"rules": [], "tls": [{"hosts": ["globex.example"], "secretName": "x"}]}),
        ] {
            assert!(down_of(refused.clone()).is_err(), "{refused}");
        }
        assert_eq!(drift(&down, &Object::from_tree(down.clone())), None);
    }
}
