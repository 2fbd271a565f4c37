//! What makes a Pod of a StatefulSet that one and no other: its name, its number, its claims.

use api::{Object, resource::STATEFUL_SETS};
use serde_json::{Value, json};

use super::spec::Retention;
use crate::{
    ownership,
    pod_template::{self, Name, list, set_metadata},
};

pub const REVISION_LABEL: &str = "controller-revision-hash";
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

pub fn pod_name(set: &Object, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.name())
}

/// The number in a Pod's name, if it is one of this set's names.
pub fn ordinal(set: &Object, pod: &str) -> Option<i64> {
    let number = pod.strip_prefix(set.name())?.strip_prefix('-')?;
    let plain = number == "0" || !number.starts_with(['0', '+', '-']);
    number.parse().ok().filter(|_| plain)
}

/// The revision a Pod was made from, by its label.
pub fn revision(pod: &Object) -> &str {
    pod.tree()["metadata"]["labels"][REVISION_LABEL].as_str().unwrap_or("")
}

/// A new Pod of `set` (as it was at `revision`).
pub fn pod(set: &Object, revision: &str, ordinal: i64) -> Value {
    let (spec, name) = (&set.tree()["spec"], pod_name(set, ordinal));
    let owner = ownership::reference(set, &STATEFUL_SETS);
    let mut pod = pod_template::pod(&spec["template"], Name::Exactly(name.clone()), owner);
    set_metadata(&mut pod, "labels", REVISION_LABEL, revision);
    set_metadata(&mut pod, "labels", NAME_LABEL, &name);
    set_metadata(&mut pod, "labels", INDEX_LABEL, &ordinal.to_string());
    pod["spec"]["hostname"] = json!(name);
    if spec["serviceName"].as_str().is_some_and(|service| !service.is_empty()) {
        pod["spec"]["subdomain"] = spec["serviceName"].clone();
    }
    let claims = claim_names(set, ordinal);
    if !claims.is_empty() {
        let volumes = list(&mut pod["spec"], "volumes");
        for (volume, claim) in claims {
            volumes.retain(|there| there["name"] != volume);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        }
    }
    pod
}

/// The labels that a Pod lacks, as a merge patch of its metadata; `None` if it has them.
pub fn lacks(set: &Object, pod: &Object) -> Option<Value> {
    let ordinal = ordinal(set, pod.name())?.to_string();
    let labels = &pod.tree()["metadata"]["labels"];
    let has = labels[NAME_LABEL] == pod.name() && labels[INDEX_LABEL] == *ordinal;
    (!has).then(|| json!({"labels": {NAME_LABEL: pod.name(), INDEX_LABEL: ordinal}}))
}

/// Volume and claim, for each template.
pub fn claim_names(set: &Object, ordinal: i64) -> Vec<(String, String)> {
    let templates = set.tree()["spec"]["volumeClaimTemplates"].as_array();
    let names = templates
        .into_iter()
        .flatten()
        .filter_map(|template| template["metadata"]["name"].as_str());
    names
        .map(|volume| (volume.to_owned(), format!("{volume}-{}", pod_name(set, ordinal))))
        .collect()
}

/// The claims of one Pod, as they are made.
pub fn claims(set: &Object, ordinal: i64) -> Vec<Value> {
    let templates = set.tree()["spec"]["volumeClaimTemplates"].as_array();
    let named = templates.into_iter().flatten().zip(claim_names(set, ordinal));
    let claim = |(template, (_, name)): (&Value, (String, String))| {
        let mut metadata = json!({"name": name});
        if template["metadata"]["annotations"].is_object() {
            metadata["annotations"] = template["metadata"]["annotations"].clone();
        }
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata,
            "spec": template["spec"]});
        let selected = &set.tree()["spec"]["selector"]["matchLabels"];
        for labels in [&template["metadata"]["labels"], selected] {
            for (key, value) in labels.as_object().into_iter().flatten() {
                set_metadata(&mut claim, "labels", key, value.as_str().unwrap_or(""));
            }
        }
        claim
    };
    named.map(claim).collect()
}

/// How a claim's owners have to change so that it goes when its retention says so; `None` if they are right.
pub fn owners_patch(claim: &Object, set: &Object, retention: Retention, condemned: Option<&Object>) -> Option<Value> {
    let with_pod = condemned.filter(|_| retention.with_replica);
    let with_set = retention.with_set && with_pod.is_none();
    let owners = claim.tree()["metadata"]["ownerReferences"].as_array();
    let owners: Vec<&Value> = owners.into_iter().flatten().collect();
    let mut changes = Vec::new();
    let is_set = |owner: &Value| owner["uid"] == set.uid();
    let is_own_pod = |owner: &Value| {
        owner["kind"] == "Pod"
            && owner["name"]
                .as_str()
                .is_some_and(|name| ordinal(set, name).is_some() && claim.name().ends_with(name))
    };
    for owner in &owners {
        let stays = if is_set(owner) {
            with_set
        } else if is_own_pod(owner) {
            with_pod.is_some_and(|pod| owner["uid"] == pod.uid())
        } else {
            true
        };
        if !stays {
            changes.push(json!({"$patch": "delete", "uid": owner["uid"]}));
        }
    }
    if with_set && !owners.iter().any(|owner| is_set(owner)) {
        let mut reference = ownership::reference(set, &STATEFUL_SETS);
        // Deleting the set does not wait for its claims.
        reference["blockOwnerDeletion"] = json!(false);
        changes.push(reference);
    }
    if let Some(pod) = with_pod
        && !owners.iter().any(|owner| owner["uid"] == pod.uid())
    {
        changes.push(json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid()}));
    }
    (!changes.is_empty()).then(|| {
        json!({"metadata": {"uid": claim.uid(), "resourceVersion": claim.resource_version(), "ownerReferences": changes}})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Object {
        Object::from_tree(
            json!({"metadata": {"name": "web", "namespace": "n", "uid": "s"}, "spec": {
            "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}}),
        )
    }

    #[test]
    fn a_pod_knows_its_name_number_and_claims() {
        insta::assert_json_snapshot!(pod(&set(), "web-1", 2), @r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "labels": {
              "app": "web",
              "apps.kubernetes.io/pod-index": "2",
              "controller-revision-hash": "web-1",
              "statefulset.kubernetes.io/pod-name": "web-2"
            },
            "name": "web-2",
            "ownerReferences": [
              {
                "apiVersion": "apps/v1",
                "blockOwnerDeletion": true,
                "controller": true,
                "kind": "StatefulSet",
                "name": "web",
                "uid": "s"
              }
            ]
          },
          "spec": {
            "containers": [
              {
                "name": "c"
              }
            ],
            "hostname": "web-2",
            "subdomain": "web",
            "volumes": [
              {
                "name": "data",
                "persistentVolumeClaim": {
                  "claimName": "data-web-2"
                }
              }
            ]
          }
        }
        "#);
        assert_eq!(
            claims(&set(), 2)[0]["metadata"],
            json!({"name": "data-web-2", "labels": {"app": "web"}})
        );
    }

    #[test]
    fn only_names_that_the_set_gives_are_its_own() {
        let number = |name: &str| ordinal(&set(), name);

        assert_eq!((number("web-0"), number("web-10")), (Some(0), Some(10)));
        for name in ["web", "web-", "web-01", "web-x", "other-1", "web--1", "web-+1"] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn claims_belong_to_whom_they_go_with() {
        let set = set();
        let pod = Object::from_tree(json!({"metadata": {"name": "web-1", "uid": "p"}}));
        let claim = |owners: Value| {
            Object::from_tree(
                json!({"metadata": {"name": "data-web-1", "uid": "c", "resourceVersion": "7", "ownerReferences": owners}}),
            )
        };
        let of_set = json!({"kind": "StatefulSet", "name": "web", "uid": "s"});
        let of_pod = json!({"kind": "Pod", "name": "web-1", "uid": "p"});
        let keep = Retention {
            with_set: false,
            with_replica: false,
        };
        let both = Retention {
            with_set: true,
            with_replica: true,
        };

        assert_eq!(owners_patch(&claim(json!([])), &set, keep, Some(&pod)), None);
        assert_eq!(
            owners_patch(&claim(json!([of_set])), &set, keep, None).unwrap()["metadata"]["ownerReferences"],
            json!([{"$patch": "delete", "uid": "s"}])
        );
        assert_eq!(owners_patch(&claim(json!([of_set])), &set, both, None), None);
        let condemned = owners_patch(&claim(json!([of_set])), &set, both, Some(&pod)).unwrap();
        assert_eq!(
            condemned["metadata"]["ownerReferences"][0],
            json!({"$patch": "delete", "uid": "s"})
        );
        assert_eq!(condemned["metadata"]["ownerReferences"][1]["uid"], "p");
        assert_eq!(
            condemned["metadata"]["resourceVersion"], "7",
            "only of the claim that was seen"
        );
        assert_eq!(owners_patch(&claim(json!([of_pod])), &set, both, Some(&pod)), None);
    }
}
