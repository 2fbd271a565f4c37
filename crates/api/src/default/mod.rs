//! What upstream fills in where a field was left out, a file a family of kinds.
//!
//! Defaulting is idempotent and runs on every object read from a request, after decoding and before admission.

mod apps;
mod pod;
mod service;
mod storage;
mod system;

use serde_json::{Map, Value};

use crate::Resource;

pub use pod::{default_pod_spec, image_tag};

/// Fills in an object of a built-in kind in place. Custom resources are defaulted by their schema.
pub fn apply(resource: &Resource, object: &mut Value) {
    if !object.is_object() {
        return;
    }
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => pod::default_pod(object),
        ("", "podtemplates") => pod::default_template(at(object, "template")),
        ("", "replicationcontrollers") => apps::default_replication_controller(object),
        ("", "services") => service::default_service(object),
        ("", "endpoints") => service::default_endpoints(object),
        ("", "secrets") => system::default_secret(object),
        ("", "namespaces") => system::default_namespace(object),
        ("", "nodes") => system::default_node(object),
        ("", "limitranges") => system::default_limit_range(object),
        ("", "persistentvolumes") => storage::default_volume(object),
        ("", "persistentvolumeclaims") => storage::default_claim(object),
        ("apps", "deployments") => apps::default_deployment(object),
        ("apps", "replicasets") => apps::default_replica_set(object),
        ("apps", "statefulsets") => apps::default_stateful_set(object),
        ("apps", "daemonsets") => apps::default_daemon_set(object),
        ("batch", "jobs") => apps::default_job(object),
        ("batch", "cronjobs") => apps::default_cron_job(object),
        ("autoscaling", "horizontalpodautoscalers") => system::default_autoscaler(object, &resource.version),
        ("discovery.k8s.io", "endpointslices") => service::default_endpoint_slice(object),
        ("networking.k8s.io", "ingresses") => service::default_ingress(object),
        ("networking.k8s.io", "ingressclasses") => service::default_ingress_class(object),
        ("networking.k8s.io", "networkpolicies") => service::default_network_policy(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => system::default_binding(object),
        ("scheduling.k8s.io", "priorityclasses") => set(object, "preemptionPolicy", "PreemptLowerPriority"),
        ("storage.k8s.io", "storageclasses") => storage::default_class(object),
        ("storage.k8s.io", "csidrivers") => storage::default_driver(object),
        ("admissionregistration.k8s.io", plural) => system::default_admission(object, plural),
        ("flowcontrol.apiserver.k8s.io", plural) => system::default_flow_control(object, plural),
        ("resource.k8s.io", plural) => system::default_devices(object, plural),
        ("apiextensions.k8s.io", "customresourcedefinitions") => system::default_definition(object),
        _ => {}
    }
}

/// A nested structure; made if it is absent.
fn at<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let nested = &mut object[field];
    if nested.is_null() {
        *nested = Value::Object(Map::new());
    }
    nested
}

/// A nested structure, if it is there.
fn inside<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    object.get_mut(field).filter(|nested| nested.is_object())
}

/// The elements of a list, if it is there.
fn each<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter(|item| item.is_object())
}

/// Sets a field that is absent; an empty string is as good as absent.
fn set(object: &mut Value, field: &str, default: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        let slot = fields.entry(field).or_insert(Value::Null);
        if slot.is_null() || slot.as_str() == Some("") {
            *slot = default.into();
        }
    }
}

/// Sets a number that is absent or zero, where upstream can't tell the two apart.
fn set_number(object: &mut Value, field: &str, default: i64) {
    if object[field].as_i64().unwrap_or(0) == 0 {
        set_over(object, field, default);
    }
}

fn set_over(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value.into());
    }
}

fn is_empty_map(value: &Value) -> bool {
    value.as_object().is_none_or(Map::is_empty)
}

#[cfg(test)]
mod tests;
