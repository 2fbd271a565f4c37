//! ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, so that it can roll out one and go back to
//! another.

use api::{Object, Resource, resource::CONTROLLER_REVISIONS};
use client::{Client, DeleteOptions, Error, ObjectKey, Patch};
use serde_json::{Value, json};

use crate::{
    ownership,
    template_hash::{self, plain},
};

/// Whether `revision` records the template of `owner` as it is now.
pub fn records(revision: &Object, owner: &Object) -> bool {
    let recorded = &revision.tree()["data"]["spec"]["template"];
    let mut recorded = recorded.clone();
    if let Some(fields) = recorded.as_object_mut() {
        fields.remove("$patch");
    }
    plain(&recorded) == plain(&owner.tree()["spec"]["template"])
}

/// The owner as it was at `revision`.
pub fn at(owner: &Object, revision: &Object) -> Object {
    let mut tree = owner.tree().clone();
    let mut template = revision.tree()["data"]["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    tree["spec"]["template"] = template;
    Object::from_tree(tree)
}

pub fn number(revision: &Object) -> i64 {
    revision.tree()["revision"].as_i64().unwrap_or(0)
}

/// What a new revision's data is: a strategic patch that brings its template back (`kubectl rollout undo` applies it).
fn data(owner: &Object) -> Value {
    let mut template = plain(&owner.tree()["spec"]["template"]);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// How the two kinds mark revisions and Pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    pub resource: &'static Resource,
    /// The label of a revision that carries its hash.
    pub hash_label: &'static str,
}

pub struct Revisions {
    /// Of the present template.
    pub update: Object,
    /// All but `update`, oldest first.
    pub others: Vec<Object>,
    /// Set if a name was taken by something else: to be written to the status.
    pub collisions: Option<i64>,
}

/// Finds the revision of the present template among `known`, or makes it.
pub async fn ensure(
    client: &Client,
    key: &ObjectKey,
    owner: &Object,
    marks: Marks,
    mut known: Vec<Object>,
) -> Result<Revisions, Error> {
    known.sort_by(|one, other| (number(one), one.name()).cmp(&(number(other), other.name())));
    let next = known.last().map_or(0, number) + 1;
    let equal = known.iter().rposition(|revision| records(revision, owner));
    let mut collisions = None;
    let update = match equal {
        // Gone back to: it becomes the newest.
        Some(at) if at + 1 < known.len() => {
            let old = known.remove(at);
            let patch = Patch::Merge(json!({"metadata": {"uid": old.uid()}, "revision": next}));
            client
                .patch(&CONTROLLER_REVISIONS, key.namespace(), old.name(), &patch)
                .await?
        }
        Some(at) => known.remove(at),
        None => {
            let made = create(client, key, owner, marks, next).await?;
            collisions = made.collisions;
            // The cache may lag behind what was made before.
            known.retain(|revision| revision.name() != made.revision.name());
            made.revision
        }
    };
    Ok(Revisions {
        update,
        others: known,
        collisions,
    })
}

struct Made {
    revision: Object,
    collisions: Option<i64>,
}

async fn create(client: &Client, key: &ObjectKey, owner: &Object, marks: Marks, number: i64) -> Result<Made, Error> {
    /// Two templates with one hash are rare; twice in a row never happens.
    const COLLISIONS_MAX: i64 = 16;
    let told = owner.tree()["status"]["collisionCount"].as_i64().unwrap_or(0);
    for collisions in told..told + COLLISIONS_MAX {
        let hash = template_hash::hash(&owner.tree()["spec"]["template"], collisions);
        let name = format!("{}-{hash}", owner.name());
        let mut labels = owner.tree()["spec"]["template"]["metadata"]["labels"].clone();
        if !labels.is_object() {
            labels = json!({});
        }
        labels[marks.hash_label] = json!(hash);
        let body = json!({
            "apiVersion": CONTROLLER_REVISIONS.api_version(), "kind": CONTROLLER_REVISIONS.kind,
            "metadata": {"name": name, "labels": labels,
                "annotations": owner.tree()["metadata"]["annotations"],
                "ownerReferences": [ownership::reference(owner, marks.resource)]},
            "data": data(owner), "revision": number,
        });
        let collisions = (collisions > told).then_some(collisions);
        let revision = match client.create(&CONTROLLER_REVISIONS, key.namespace(), &body).await {
            Ok(revision) => revision,
            Err(error) if error.is_already_exists() => {
                let there = client.get(&CONTROLLER_REVISIONS, key.namespace(), &name).await?;
                let ours = ownership::controller_of(&there).is_some_and(|controller| controller.uid == owner.uid());
                if !ours || !records(&there, owner) {
                    continue;
                }
                there
            }
            Err(error) => return Err(error),
        };
        return Ok(Made { revision, collisions });
    }
    Err(Error::Transport {
        source: format!("no name is free for a revision of {}", owner.name()).into(),
    })
}

/// Deletes the oldest revisions that nothing uses, down to `spec.revisionHistoryLimit`.
pub async fn trim(
    client: &Client,
    key: &ObjectKey,
    owner: &Object,
    others: &[Object],
    in_use: impl Fn(&Object) -> bool,
) -> Result<(), Error> {
    let limit = owner.tree()["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10);
    let history: Vec<&Object> = others.iter().filter(|revision| !in_use(revision)).collect();
    let excess = history
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for revision in history.into_iter().take(excess) {
        let options = DeleteOptions::of_uid(revision.uid());
        match client
            .delete(&CONTROLLER_REVISIONS, key.namespace(), revision.name(), &options)
            .await
        {
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_brings_its_template_back() {
        let owner = |image: &str| {
            Object::from_tree(
                json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}}),
            )
        };
        let revision =
            Object::from_tree(json!({"metadata": {"name": "web-1"}, "data": data(&owner("one")), "revision": 1}));

        assert!(records(&revision, &owner("one")));
        assert!(!records(&revision, &owner("two")));
        assert_eq!(
            at(&owner("two"), &revision).tree()["spec"]["template"],
            owner("one").tree()["spec"]["template"]
        );
    }
}
