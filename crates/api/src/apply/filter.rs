//! Fields that a door does not take: what a strategy resets is nobody's by a write there.

use super::{element::Element, set::Set};
use crate::Resource;

/// Which fields may be owned by a write.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Filter {
    #[default]
    All,
    /// All but these and what is below them.
    Except(Set),
    /// Only what begins so; `None` stands for any step.
    Only(Vec<Vec<Option<Element>>>),
}

impl Filter {
    pub fn keep(&self, set: Set) -> Set {
        match self {
            _ if set.is_empty() => set,
            Filter::All => set,
            Filter::Except(reset) => set.without(reset),
            Filter::Only(patterns) => {
                let mut kept = Set::new();
                for path in set.paths() {
                    if patterns.iter().any(|pattern| begins(&path, pattern)) {
                        kept.insert(&path);
                    }
                }
                kept
            }
        }
    }

    /// Of a kind's door, by the subresource's name.
    pub fn of(resource: &Resource, has_status: bool, subresource: &str) -> Filter {
        let kind = (&*resource.group, &*resource.plural);
        match (kind, subresource) {
            (("certificates.k8s.io", _), "") if has_status => Filter::Except(Set::of([&["spec"], &["status"]])),
            (("certificates.k8s.io", _), "status") => Filter::Except(Set::of([&["spec"], &["status", "conditions"]])),
            (("certificates.k8s.io", _), "approval") => {
                Filter::Except(Set::of([&["spec"], &["status", "certificate"]]))
            }
            (("", "pods"), "ephemeralcontainers") => Filter::Only(vec![names(&["spec", "ephemeralContainers"])]),
            (("", "pods"), "resize") => Filter::Only(
                ["containers", "initContainers"]
                    .into_iter()
                    .flat_map(|list| {
                        ["resources", "resizePolicy"].map(|field| {
                            let mut pattern = names(&["spec", list]);
                            pattern.extend([None, Some(Element::field(field))]);
                            pattern
                        })
                    })
                    .collect(),
            ),
            (_, "" | "finalize") if has_status => Filter::Except(Set::of([&["status"]])),
            (("", "pods"), "status") => Filter::Except(Set::of([
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ])),
            (("apps", "deployments"), "status") => Filter::Except(Set::of([&["spec"], &["metadata", "labels"]])),
            (
                (
                    "flowcontrol.apiserver.k8s.io"
                    | "apiextensions.k8s.io"
                    | "admissionregistration.k8s.io"
                    | "internal.apiserver.k8s.io"
                    | "storagemigration.k8s.io",
                    _,
                )
                | ("storage.k8s.io", "volumeattachments")
                | ("resource.k8s.io", "devicetaintrules"),
                "status",
            ) => Filter::Except(Set::of([&["metadata"], &["spec"]])),
            (_, "status") => Filter::Except(Set::of([&["spec"]])),
            _ => Filter::All,
        }
    }
}

fn names(path: &[&str]) -> Vec<Option<Element>> {
    path.iter().map(|name| Some(Element::field(name))).collect()
}

fn begins(path: &[Element], pattern: &[Option<Element>]) -> bool {
    path.len() >= pattern.len()
        && path
            .iter()
            .zip(pattern)
            .all(|(step, wanted)| wanted.as_ref().is_none_or(|wanted| wanted == step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{apply::fields, resource};

    #[test]
    fn a_door_takes_what_its_strategy_does_not_reset() {
        let set = fields::read(&serde_json::json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:replicas": {}},
            "f:status": {"f:replicas": {}},
        }))
        .unwrap();
        let kept =
            |subresource| fields::to_json(&Filter::of(&resource::DEPLOYMENTS, true, subresource).keep(set.clone()));

        assert_eq!(
            kept(""),
            r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:replicas":{}}}"#
        );
        assert_eq!(kept("status"), r#"{"f:status":{"f:replicas":{}}}"#);
    }

    #[test]
    fn a_resize_takes_the_resources_of_containers() {
        let set = fields::read(&serde_json::json!({
            "f:spec": {"f:containers": {r#"k:{"name":"a"}"#: {
                ".": {}, "f:image": {}, "f:resources": {"f:limits": {"f:cpu": {}}},
            }}},
        }))
        .unwrap();

        let kept = Filter::of(&resource::PODS, true, "resize").keep(set);

        assert_eq!(
            fields::to_json(&kept),
            r#"{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{"f:resources":{"f:limits":{"f:cpu":{}}}}}}}"#
        );
    }
}
