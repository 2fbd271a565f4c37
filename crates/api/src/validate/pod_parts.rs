//! What the subresources of a Pod that change its spec may change: `ephemeralcontainers` and `resize`.

use serde_json::Value;

use super::{
    check::{Check, list, text},
    pod::validate_pod_spec,
};
use crate::{field::Path, status::Cause, strategy};

/// Only these of a container's resources can be changed while it runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Ephemeral containers are added and never changed or taken away.
pub fn ephemeral_containers(new: &Value, old: &Value) -> Vec<Cause> {
    let spec = Path::ROOT.field("spec");
    let path = spec.field("ephemeralContainers");
    let mut check = Check {
        causes: validate_pod_spec(&spec, &new["spec"]),
    };
    if is_static(old) {
        check.forbidden(&Path::ROOT, "static pods do not support ephemeral containers");
    }
    let wanted = list(&new["spec"]["ephemeralContainers"]);
    for before in list(&old["spec"]["ephemeralContainers"]) {
        let name = text(&before["name"]);
        match wanted.iter().find(|container| container["name"] == before["name"]) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                check.forbidden(&path, detail);
            }
            Some(now) if now != before => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n");
                check.forbidden(&path, detail);
            }
            Some(_) => {}
        }
    }
    check.causes
}

/// A running Pod's CPU and memory may change, and its class of service may not.
pub fn resize(new: &Value, old: &Value) -> Vec<Cause> {
    let spec = Path::ROOT.field("spec");
    let mut check = Check {
        causes: validate_pod_spec(&spec, &new["spec"]),
    };
    if is_static(old) {
        check.forbidden(&Path::ROOT, "static pods cannot be resized");
    }
    if !check.causes.is_empty() {
        return check.causes;
    }
    let (class, before) = (strategy::qos_class(&new["spec"]), strategy::qos_class(&old["spec"]));
    if class != before {
        let detail = format!("Pod QOS Class may not change as a result of resizing (was {before})");
        check.invalid(&spec, class, detail);
    }
    for kind in ["containers", "initContainers"] {
        let path = spec.field(kind);
        for (at, container) in list(&new["spec"][kind]).iter().enumerate() {
            let before = &old["spec"][kind][at];
            if container["resources"] == before["resources"] {
                continue;
            }
            let path = path.index(at);
            let path = path.field("resources");
            if kind == "initContainers" && container["restartPolicy"] != "Always" {
                check.forbidden(&path, "only sidecar and regular containers can be resized");
            } else if others(&container["resources"]) != others(&before["resources"]) {
                check.forbidden(&path, "only cpu and memory resources are mutable");
            }
        }
    }
    check.causes
}

/// Resources without those that may change.
fn others(resources: &Value) -> Value {
    let mut rest = resources.clone();
    for part in ["requests", "limits"] {
        let Some(amounts) = rest.get_mut(part).and_then(Value::as_object_mut) else {
            continue;
        };
        amounts.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        if amounts.is_empty()
            && let Some(rest) = rest.as_object_mut()
        {
            rest.remove(part);
        }
    }
    if rest.as_object().is_some_and(serde_json::Map::is_empty) {
        return Value::Null;
    }
    rest
}

/// A Pod that a node was given as a file.
fn is_static(pod: &Value) -> bool {
    pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: Value, ephemeral: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a", "image": "i", "resources": resources}],
            "ephemeralContainers": ephemeral,
        }});
        crate::default::apply(&crate::resource::PODS, &mut pod);
        pod
    }

    fn said(causes: Vec<Cause>) -> String {
        let lines: Vec<String> = causes
            .iter()
            .map(|it| format!("{}: {}", it.field, it.message))
            .collect();
        lines.join("; ")
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let debugger = json!({"name": "d", "image": "i"});
        let before = pod(json!({}), json!([debugger]));
        let more = pod(
            json!({}),
            json!([debugger, {"name": "e", "image": "i", "targetContainerName": "a"}]),
        );
        let other = pod(json!({}), json!([{"name": "d", "image": "other"}]));

        assert_eq!(said(ephemeral_containers(&more, &before)), "");
        assert_eq!(
            said(ephemeral_containers(&other, &before)),
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n"
        );
        assert_eq!(
            said(ephemeral_containers(&pod(json!({}), json!([])), &before)),
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"
        );
        let nowhere = pod(
            json!({}),
            json!([debugger, {"name": "e", "image": "i", "targetContainerName": "z"}]),
        );
        assert_eq!(
            said(ephemeral_containers(&nowhere, &before)),
            "spec.ephemeralContainers[1].targetContainerName: Not found: \"z\""
        );
    }

    #[test]
    fn a_resize_changes_cpu_and_memory_and_not_the_class() {
        let of = |resources: Value| pod(resources, Value::Null);
        let before = of(json!({"requests": {"cpu": "100m"}}));

        assert_eq!(said(resize(&of(json!({"requests": {"cpu": "200m"}})), &before)), "");
        assert_eq!(
            said(resize(&of(json!({})), &before)),
            "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing (was Burstable)"
        );
        let storage = json!({"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}});
        assert_eq!(
            said(resize(&of(storage), &before)),
            "spec.containers[0].resources: Forbidden: only cpu and memory resources are mutable"
        );
    }
}
