//! `RuntimeClass`: what it costs to run a Pod that way, and where it can be run.

use api::{Resource, Status, amounts::amounts, resource::Scope};
use serde_json::{Value, json};

use super::Attempt;
use crate::registry::{Kind, Place, refuse_forbidden};

const RUNTIME_CLASSES: Resource =
    Resource::built_in("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", Scope::Cluster);

pub(super) async fn admit(attempt: &Attempt<'_>, tree: &mut Value) -> Result<(), Status> {
    let place = &attempt.place;
    let refuse = |why: &str| Err(refuse_forbidden(place.kind, place.name, why));
    let name = tree["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        if !amounts(&tree["spec"]["overhead"]).is_empty() {
            return refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead");
        }
        return Ok(());
    }
    let info = api::table::find("node.k8s.io", "v1", &RUNTIME_CLASSES.plural).expect("runtime classes are built in");
    let kind = Kind::BuiltIn(info);
    let class = Place {
        plane: place.plane,
        kind: &kind,
        namespace: None,
        name: &name,
    };
    let Some(class) = class.read().await?.stored else {
        return refuse(&format!("pod rejected: RuntimeClass {name:?} not found"));
    };
    let class = class.object.tree();
    let fixed = &class["overhead"]["podFixed"];
    let given = amounts(&tree["spec"]["overhead"]);
    if !given.is_empty() && given != amounts(fixed) {
        return refuse("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
    }
    if fixed.is_object() {
        tree["spec"]["overhead"] = fixed.clone();
    }
    schedule(&class["scheduling"], &mut tree["spec"]).or_else(|why| refuse(&why))
}

/// Adds the class's nodes and tolerations to the Pod's own.
fn schedule(scheduling: &Value, spec: &mut Value) -> Result<(), String> {
    for (key, wanted) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        if !spec["nodeSelector"].is_object() {
            spec["nodeSelector"] = json!({});
        }
        let has = &mut spec["nodeSelector"][key];
        if !has.is_null() && has != wanted {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                wanted.as_str().unwrap_or_default(),
                has.as_str().unwrap_or_default()
            ));
        }
        *has = wanted.clone();
    }
    for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
        if !spec["tolerations"].is_array() {
            spec["tolerations"] = json!([]);
        }
        if let Some(own) = spec["tolerations"]
            .as_array_mut()
            .filter(|own| !own.contains(toleration))
        {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_goes_where_its_class_and_it_agree() {
        let scheduling = json!({
            "nodeSelector": {"vm": "yes"},
            "tolerations": [{"key": "vm", "operator": "Exists"}],
        });
        let mut plain = json!({"nodeSelector": {"zone": "a"}});
        let mut other = json!({"nodeSelector": {"vm": "no"}});

        schedule(&scheduling, &mut plain).unwrap();
        let refused = schedule(&scheduling, &mut other).unwrap_err();

        assert_eq!(
            plain,
            json!({
                "nodeSelector": {"zone": "a", "vm": "yes"},
                "tolerations": [{"key": "vm", "operator": "Exists"}],
            })
        );
        assert_eq!(
            refused,
            "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"
        );
    }
}
