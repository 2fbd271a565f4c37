//! `PodSecurity`: what a namespace's labels let its Pods do.

use api::{
    Resource, Status,
    pod_security::{self, Level, Policy},
    resource::Scope,
};
use serde_json::Value;

use super::Attempt;
use crate::registry::{refuse_forbidden, refuse_invalid};

/// Namespaces of which Pods are looked at when what is enforced there becomes stricter (upstream's
/// `defaultNamespaceMaxPodsToCheck`).
const PODS_CHECKED_MAX: usize = 3000;

const PODS: Resource = Resource::built_in("", "v1", "pods", "Pod", Scope::Namespaced);

/// Refuses a Pod that breaks what is enforced, and warns of what a Pod or a template breaks of what is warned of.
pub(super) async fn admit(
    attempt: &Attempt<'_>,
    namespace: &Value,
    tree: &Value,
    old: Option<&Value>,
) -> Result<Option<String>, Status> {
    let place = &attempt.place;
    let policy = Policy::of_labels(&namespace["metadata"]["labels"]);
    if policy.enforce.level == Level::Privileged && policy.warn.level == Level::Privileged {
        return Ok(None);
    }
    let is_pod = place.kind.is_core("pods");
    let storage = place.kind.storage();
    let Some((metadata, spec)) = pod_of(&storage.plural, is_pod, tree) else {
        return Ok(None);
    };
    if is_pod && old.is_some_and(|old| old["spec"] == tree["spec"]) {
        return Ok(None);
    }
    if is_pod {
        let broken = pod_security::violations(policy.enforce.level, metadata, spec);
        if !broken.is_empty() {
            let why = format!(
                "violates PodSecurity {:?}: {}",
                policy.enforce.shown(),
                pod_security::shown(&broken)
            );
            return Err(refuse_forbidden(place.kind, place.name, &why));
        }
    }
    let broken = pod_security::violations(policy.warn.level, metadata, spec);
    Ok((!broken.is_empty()).then(|| {
        format!(
            "would violate PodSecurity {:?}: {}",
            policy.warn.shown(),
            pod_security::shown(&broken)
        )
    }))
}

/// The metadata and spec of a Pod, or of the template of what makes Pods.
fn pod_of<'a>(plural: &str, is_pod: bool, tree: &'a Value) -> Option<(&'a Value, &'a Value)> {
    if is_pod {
        return Some((&tree["metadata"], &tree["spec"]));
    }
    let template = match plural {
        "podtemplates" => &tree["template"],
        "cronjobs" => &tree["spec"]["jobTemplate"]["spec"]["template"],
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" | "jobs" | "replicationcontrollers" => {
            &tree["spec"]["template"]
        }
        _ => return None,
    };
    template["spec"]
        .is_object()
        .then_some((&template["metadata"], &template["spec"]))
}

/// Labels that mean nothing are refused; of Pods that what is newly enforced would refuse the writer is warned.
pub(super) async fn check_namespace(
    attempt: &Attempt<'_>,
    tree: &Value,
    old: Option<&Value>,
) -> Result<Vec<String>, Status> {
    let place = &attempt.place;
    let labels = &tree["metadata"]["labels"];
    let causes = pod_security::check_labels(labels);
    let known = old.map(|old| pod_security::check_labels(&old["metadata"]["labels"]));
    if !causes.is_empty() && known.as_ref() != Some(&causes) {
        return Err(refuse_invalid(place.kind, place.name, causes));
    }
    let Some(old) = old else { return Ok(Vec::new()) };
    let enforced = Policy::of_labels(labels).enforce;
    let before = Policy::of_labels(&old["metadata"]["labels"]).enforce;
    if enforced.level <= before.level {
        return Ok(Vec::new());
    }
    let (_, pods) = attempt
        .registry
        .list_objects(place.plane, &PODS, Some(place.name))
        .await?;
    let mut broken: Vec<(String, Vec<&str>)> = Vec::new();
    for pod in pods.iter().take(PODS_CHECKED_MAX) {
        let pod_tree = pod.tree();
        let found = pod_security::violations(enforced.level, &pod_tree["metadata"], &pod_tree["spec"]);
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<String> = found.into_iter().map(|violation| violation.reason).collect();
        let reasons = reasons.join(", ");
        match broken.iter_mut().find(|(known, _)| *known == reasons) {
            Some((_, names)) => names.push(pod.name()),
            None => broken.push((reasons, vec![pod.name()])),
        }
    }
    if broken.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines: Vec<String> = broken
        .into_iter()
        .map(|(reasons, mut names)| {
            names.sort_unstable();
            match names.len() {
                1 => format!("{}: {reasons}", names[0]),
                2 => format!("{} (and 1 other pod): {reasons}", names[0]),
                many => format!("{} (and {} other pods): {reasons}", names[0], many - 1),
            }
        })
        .collect();
    lines.sort();
    lines.insert(
        0,
        format!(
            "existing pods in namespace {:?} violate the new PodSecurity enforce level {:?}",
            place.name,
            enforced.shown()
        ),
    );
    Ok(lines)
}
