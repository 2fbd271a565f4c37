//! `NamespaceLifecycle`: nothing is made in a namespace that is not there or about to go.

use api::{Object, Reason, Status, resource, status::Cause};
use serde_json::{Value, json};

use super::{Attempt, Operation};
use crate::registry::{Kind, Place, refuse_forbidden};

/// Upstream's `immortalNamespaces`.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace that a Pod or what makes Pods is written to, or anything is made in; refused if that may not be.
/// `None` for writes that no namespace decides about.
pub(super) async fn of(attempt: &Attempt<'_>) -> Result<Option<Object>, Status> {
    let needed = attempt.creates() || decides(attempt.place.kind);
    let Some(namespace) = attempt.place.namespace.filter(|_| needed) else {
        return Ok(None);
    };
    let info = api::table::find("", "v1", &resource::NAMESPACES.plural).expect("namespaces are a built-in kind");
    let kind = Kind::BuiltIn(info);
    let place = Place {
        plane: attempt.place.plane,
        kind: &kind,
        namespace: None,
        name: namespace,
    };
    let stored = place.read().await?.stored;
    if !attempt.creates() {
        return Ok(stored.map(|stored| stored.object));
    }
    let Some(stored) = stored else {
        return Err(
            Status::new(Reason::NotFound, format!("namespaces {namespace:?} not found")).about(
                "",
                "namespaces",
                namespace,
            ),
        );
    };
    let tree = stored.object.tree();
    if tree["metadata"]["deletionTimestamp"].is_string() || tree["status"]["phase"] == "Terminating" {
        let mut status = refuse_forbidden(
            attempt.place.kind,
            attempt.place.name,
            &format!("unable to create new content in namespace {namespace} because it is being terminated"),
        );
        status.causes.push(Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
        return Err(status);
    }
    Ok(Some(stored.object))
}

/// Kinds whose updates a namespace's labels are asked about.
fn decides(kind: &Kind) -> bool {
    let storage = kind.storage();
    matches!(
        (&*storage.group, &*storage.plural),
        ("", "pods" | "podtemplates" | "replicationcontrollers")
            | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
            | ("batch", "jobs" | "cronjobs")
    )
}

pub(super) fn check_mortal(attempt: &Attempt<'_>) -> Result<(), Status> {
    let place = &attempt.place;
    if place.kind.is_core("namespaces")
        && matches!(attempt.operation, Operation::Delete)
        && IMMORTAL.contains(&place.name)
    {
        return Err(refuse_forbidden(
            place.kind,
            place.name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// Every namespace can be selected by its name.
pub(super) fn label(tree: &mut Value) {
    let name = tree["metadata"]["name"].clone();
    let labels = &mut tree["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    labels["kubernetes.io/metadata.name"] = name;
}
