//! Whether an object may be stored, kind by kind, in upstream's words: `spec.containers[0].name: Required value`.
//!
//! Objects are decoded ([`crate::decode`]) and defaulted ([`crate::default`]) before. Custom objects are checked by
//! their schema ([`crate::structural`]); their metadata is checked here.

mod autoscaler;
mod certificate;
mod check;
mod config;
mod container;
mod csi;
mod endpoints;
mod env;
mod ingress;
mod job;
mod job_policy;
mod limit_range;
mod metadata;
mod pod;
pub mod pod_parts;
mod pod_update;
mod quota;
mod rbac;
mod resources;
mod restart;
mod scheduling;
mod security;
mod service;
mod storage;
mod system;
mod volume;
mod webhook;
mod workload;

use serde_json::Value;

use crate::{
    Resource,
    field::Path,
    status::{Cause, Status},
    strategy::Part,
    table::ResourceInfo,
};
use check::Check;

pub use metadata::validate_metadata;
pub use pod::validate_pod_spec;
pub use service::needs_health_check;

/// What is wrong with a new object.
pub fn create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut check = Check::default();
    metadata::check_metadata(&mut check, resource, object);
    check_kind(&mut check, resource, object, None);
    check.causes
}

/// What is wrong with the change of `part` of an object. `new` is what would be stored.
pub fn update(resource: &Resource, part: Part, new: &Value, old: &Value) -> Vec<Cause> {
    let mut check = Check::default();
    metadata::check_metadata(&mut check, resource, new);
    metadata::check_metadata_update(&mut check, new, old);
    match part {
        Part::Main => check_kind(&mut check, resource, new, Some(old)),
        Part::Status => check_status(&mut check, resource, new, old),
    }
    check.causes
}

/// The answer to a write that has causes; `None` if it has none.
pub fn refusal(info: &ResourceInfo, object: &Value, causes: Vec<Cause>) -> Option<Status> {
    if causes.is_empty() {
        return None;
    }
    let metadata = &object["metadata"];
    let name = ["name", "generateName"]
        .into_iter()
        .find_map(|field| metadata[field].as_str().filter(|name| !name.is_empty()))
        .unwrap_or("");
    let resource = &info.resource;
    Some(crate::field::invalid_status(
        &resource.group,
        &resource.kind,
        name,
        causes,
    ))
}

fn check_kind(check: &mut Check, resource: &Resource, new: &Value, old: Option<&Value>) {
    let spec = Path::ROOT.field("spec");
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => {
            pod::check_pod(check, new, old);
            if let Some(old) = old {
                pod_update::check_pod_update(check, new, old);
            }
        }
        ("", "podtemplates") => workload::check_template(check, &Path::ROOT.field("template"), &new["template"]),
        ("", "replicationcontrollers") => workload::check_replication_controller(check, &spec, &new["spec"]),
        ("", "services") => service::check_service(check, new, old),
        ("", "endpoints") => endpoints::check_endpoints(check, new),
        ("", "configmaps") => config::check_config_map(check, new, old),
        ("", "secrets") => config::check_secret(check, new, old),
        ("", "nodes") => system::check_node(check, new, old),
        ("", "events") => system::check_event(check, new),
        ("", "limitranges") => limit_range::check_limit_range(check, new),
        ("", "resourcequotas") => quota::check_resource_quota(check, new, old),
        ("", "persistentvolumes") => storage::check_volume(check, new, old),
        ("", "persistentvolumeclaims") => storage::check_claim(check, new, old),
        ("apps", "deployments") => workload::check_deployment(check, new, old),
        ("apps", "replicasets") => workload::check_replica_set(check, new, old),
        ("apps", "statefulsets") => workload::check_stateful_set(check, new, old),
        ("apps", "daemonsets") => workload::check_daemon_set(check, new, old),
        ("apps", "controllerrevisions") => system::check_controller_revision(check, new, old),
        ("batch", "jobs") => job::check_job(check, new, old),
        ("batch", "cronjobs") => job::check_cron_job(check, new, old),
        ("autoscaling", "horizontalpodautoscalers") => autoscaler::check_autoscaler(check, new),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => {
            webhook::check_webhooks(check, new);
        }
        ("coordination.k8s.io", "leases") => system::check_lease(check, new),
        ("discovery.k8s.io", "endpointslices") => endpoints::check_endpoint_slice(check, new, old),
        ("networking.k8s.io", "ingresses") => ingress::check_ingress(check, new),
        ("networking.k8s.io", "ingressclasses") => ingress::check_ingress_class(check, new, old),
        ("node.k8s.io", "runtimeclasses") => system::check_runtime_class(check, new, old),
        ("", "namespaces") => system::check_namespace(check, new),
        ("networking.k8s.io", "networkpolicies") => ingress::check_network_policy(check, new),
        ("policy", "poddisruptionbudgets") => system::check_disruption_budget(check, new),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => rbac::check_role(check, resource, new),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            rbac::check_binding(check, resource, new, old);
        }
        ("scheduling.k8s.io", "priorityclasses") => system::check_priority_class(check, new, old),
        ("certificates.k8s.io", "certificatesigningrequests") => {
            certificate::check_signing_request(check, new, old);
        }
        ("storage.k8s.io", "csidrivers") => csi::check_driver(check, new),
        ("storage.k8s.io", "csinodes") => csi::check_node_drivers(check, new),
        ("storage.k8s.io", "volumeattributesclasses") => csi::check_attributes_class(check, new, old),
        ("storage.k8s.io", "storageclasses") => storage::check_class(check, new, old),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            check.causes.extend(crate::structural::check_definition(new, old));
        }
        _ => {}
    }
}

fn check_status(check: &mut Check, resource: &Resource, new: &Value, old: &Value) {
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => pod_update::check_pod_status(check, new, old),
        ("", "namespaces") => system::check_namespace_status(check, new),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            workload::check_replica_counts(check, &new["status"]);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
