//! The ReplicaSet that goes with a Deployment's template: found by the template, named by its hash.

use api::{Object, resource::DEPLOYMENTS};
use serde_json::{Map, Value, json};

use super::set::{DESIRED, HISTORY, MAX, REVISION, Set};
use super::spec::Spec;
use crate::{
    ownership,
    template_hash::{HASH_LABEL, hash, plain},
};

/// Annotations that are about the Deployment itself.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
];

/// The set made from the present template; the oldest, should there be several.
pub fn find_new<'a>(deployment: &Object, sets: &'a [Set]) -> Option<&'a Set> {
    let wanted = plain(&deployment.tree()["spec"]["template"]);
    let equal = sets
        .iter()
        .filter(|set| plain(&set.object.tree()["spec"]["template"]) == wanted);
    equal.min_by(|one, other| one.age().cmp(&other.age()))
}

/// A new set for the present template.
pub fn new_set(deployment: &Object, spec: &Spec, replicas: i64, revision: i64) -> Value {
    let tree = deployment.tree();
    let collisions = tree["status"]["collisionCount"].as_i64().unwrap_or(0);
    let mut template = tree["spec"]["template"].clone();
    let hash = hash(&template, collisions);
    template["metadata"]["labels"][HASH_LABEL] = json!(hash);
    let mut selector = tree["spec"]["selector"].clone();
    selector["matchLabels"][HASH_LABEL] = json!(hash);
    let mut annotations = copied_annotations(deployment);
    annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
    annotations.extend(aims(spec));
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", deployment.name()),
            "namespace": deployment.namespace(),
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [ownership::reference(deployment, &DEPLOYMENTS)],
        },
        "spec": {
            "replicas": replicas, "minReadySeconds": spec.min_ready_seconds,
            "selector": selector, "template": template,
        },
    })
}

/// What a set remembers of the Deployment's aim, for scaling in proportion.
pub fn aims(spec: &Spec) -> [(String, Value); 2] {
    [
        (DESIRED.to_owned(), json!(spec.replicas.to_string())),
        (MAX.to_owned(), json!(spec.most().to_string())),
    ]
}

fn copied_annotations(deployment: &Object) -> Map<String, Value> {
    let annotations = deployment.tree()["metadata"]["annotations"].as_object();
    let copied = annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    copied.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What to change of an existing set so that it is the Deployment's newest; `None` if it is.
pub fn renew(deployment: &Object, spec: &Spec, set: &Set, revision: i64) -> Option<Value> {
    let mut annotations: Map<String, Value> = copied_annotations(deployment)
        .into_iter()
        .filter(|(key, value)| set.object.annotation(key) != value.as_str())
        .collect();
    if set.revision < revision {
        annotations.insert(REVISION.to_owned(), json!(revision.to_string()));
        if set.revision > 0 {
            let before = set
                .object
                .annotation(HISTORY)
                .map(|history| format!("{history},"))
                .unwrap_or_default();
            annotations.insert(HISTORY.to_owned(), json!(format!("{before}{}", set.revision)));
        }
    }
    let min_ready = set.object.tree()["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
    let mut patch = json!({});
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = Value::Object(annotations);
    }
    if min_ready != spec.min_ready_seconds {
        patch["spec"]["minReadySeconds"] = json!(spec.min_ready_seconds);
    }
    (patch != json!({})).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_comes_back_gets_a_new_revision_and_remembers_the_old() {
        let deployment =
            Object::from_tree(json!({"metadata": {"annotations": {"team": "a", REVISION: "2"}}, "spec": {}}));
        let set = Set::of(&Object::from_tree(
            json!({"metadata": {"annotations": {REVISION: "1", "team": "a"}}}),
        ));

        let patch = renew(&deployment, &Spec::of(&deployment), &set, 3).unwrap();

        assert_eq!(
            patch,
            json!({"metadata": {"annotations": {REVISION: "3", HISTORY: "1"}}})
        );
    }
}
