//! Who owns what: controller references, adoption by selector, release.

use api::{Object, Resource, selector::LabelSelector};
use client::{Client, Error, InformerOptions, ObjectKey, Patch, PlaneKey};
use serde_json::{Value, json};

/// Found by the uid of the controller.
pub const BY_CONTROLLER: &str = "controller";
/// Found by namespace: what has no controller, and may be adopted.
pub const ORPHANS: &str = "orphans";

/// The one owner that manages an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controller<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
}

pub fn controller_of(object: &Object) -> Option<Controller<'_>> {
    let owners = object.tree()["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some(Controller {
        kind: owner["kind"].as_str()?,
        name: owner["name"].as_str()?,
        uid: owner["uid"].as_str()?,
    })
}

/// The reference by which `owner` controls an object.
pub fn reference(owner: &Object, resource: &Resource) -> Value {
    json!({
        "apiVersion": resource.api_version(), "kind": resource.kind, "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The two indexes by which an informer's objects are claimed.
pub fn indexes(options: InformerOptions) -> InformerOptions {
    options
        .index(BY_CONTROLLER, |key, object| {
            let controller = controller_of(object);
            controller
                .into_iter()
                .map(|controller| of_uid(&key.plane, controller.uid))
                .collect()
        })
        .index(ORPHANS, |key, object| match controller_of(object) {
            None => vec![of_namespace(&key.plane, &key.namespace)],
            Some(_) => Vec::new(),
        })
}

/// A value of [`BY_CONTROLLER`].
pub fn of_uid(plane: &PlaneKey, uid: &str) -> String {
    format!("{plane} {uid}")
}

/// A value of [`ORPHANS`].
pub fn of_namespace(plane: &PlaneKey, namespace: &str) -> String {
    format!("{plane} {namespace}")
}

/// Found by the uid of any owner; what the garbage collector goes by.
pub const BY_OWNER: &str = "owner";

/// The index by which dependents are found.
pub fn owners(options: InformerOptions) -> InformerOptions {
    options.index(BY_OWNER, |key, object| {
        let owners = object.tree()["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        owners
            .filter_map(|owner| Some(of_uid(&key.plane, owner["uid"].as_str()?)))
            .collect()
    })
}

/// What becomes of candidates for one owner.
#[derive(Debug, Default, PartialEq)]
pub struct Claims {
    pub owned: Vec<Object>,
    /// Match, and nobody's yet.
    pub adopt: Vec<Object>,
    /// Owned, but match no longer.
    pub release: Vec<Object>,
}

/// Splits `candidates` (owned ones and orphans). An owner that is being deleted takes and releases nothing.
pub fn claim(owner: &Object, selector: &LabelSelector, candidates: impl IntoIterator<Item = Object>) -> Claims {
    let mut claims = Claims::default();
    for object in candidates {
        let matches = selector.matches_object(&object);
        match controller_of(&object) {
            Some(controller) if controller.uid != owner.uid() => {}
            Some(_) if matches || owner.is_deleting() => claims.owned.push(object),
            Some(_) => claims.release.push(object),
            None if matches && !owner.is_deleting() && !object.is_deleting() => claims.adopt.push(object),
            None => {}
        }
    }
    claims
}

/// Carries claims out; returns what is owned in the end.
pub async fn settle(
    client: &Client,
    owner: &Object,
    owner_resource: &Resource,
    resource: &Resource,
    claims: Claims,
) -> Result<Vec<Object>, Error> {
    let mut owned = claims.owned;
    for object in claims.release {
        let patch = Patch::Strategic(json!({"metadata": {
            "uid": object.uid(), "ownerReferences": [{"$patch": "delete", "uid": owner.uid()}]}}));
        let released = client
            .patch(resource, Some(object.namespace()), object.name(), &patch)
            .await;
        match released {
            // Gone, or made anew: not ours either way.
            Err(error) if error.is_not_found() || error.is_conflict() || error.is_invalid() => {}
            done => drop(done?),
        }
    }
    if !claims.adopt.is_empty() {
        // The cache may show an owner that is gone: what it would adopt would be collected as garbage.
        let live = client
            .get(owner_resource, Some(owner.namespace()), owner.name())
            .await?;
        if live.uid() != owner.uid() || live.is_deleting() {
            return Ok(owned);
        }
    }
    for object in claims.adopt {
        let patch = Patch::Strategic(json!({"metadata": {
            "uid": object.uid(), "ownerReferences": [reference(owner, owner_resource)]}}));
        match client
            .patch(resource, Some(object.namespace()), object.name(), &patch)
            .await
        {
            Ok(adopted) => owned.push(adopted),
            // Gone, or another owner was quicker.
            Err(error) if error.is_not_found() || error.is_conflict() || error.is_invalid() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(owned)
}

/// The owner's key, if the object is controlled by one of `kind`.
pub fn owner_key(key: &ObjectKey, object: &Object, kind: &str) -> Option<ObjectKey> {
    let controller = controller_of(object).filter(|controller| controller.kind == kind)?;
    Some(key.sibling(controller.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, labels: Value, owner: Option<&str>) -> Object {
        let owners = owner.map(|uid| json!([{"kind": "ReplicaSet", "name": "o", "uid": uid, "controller": true}]));
        Object::from_tree(json!({"metadata": {"name": name, "labels": labels, "ownerReferences": owners}}))
    }

    #[test]
    fn what_matches_is_adopted_what_no_longer_does_is_released_and_others_are_left_alone() {
        let owner = Object::from_tree(json!({"metadata": {"name": "o", "uid": "mine"}}));
        let selector = LabelSelector::from_map(&json!({"app": "web"}));
        let web = json!({"app": "web"});

        let claims = claim(
            &owner,
            &selector,
            [
                object("owned", web.clone(), Some("mine")),
                object("strayed", json!({}), Some("mine")),
                object("orphan", web.clone(), None),
                object("others", web, Some("theirs")),
                object("unrelated", json!({}), None),
            ],
        );

        let names = |objects: &[Object]| {
            objects
                .iter()
                .map(|object| object.name().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&claims.owned), ["owned"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["strayed"]);
    }
}
