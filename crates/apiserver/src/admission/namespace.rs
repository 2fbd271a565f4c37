//! `NamespaceLifecycle`: nothing is made in a namespace that is not there or about to go.

use api::{Reason, Status, resource, status::Cause};
use serde_json::{Value, json};

use super::{Attempt, Operation};
use crate::registry::{Kind, Place, refuse_forbidden};

/// Upstream's `immortalNamespaces`.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) async fn check_open(attempt: &Attempt<'_>) -> Result<(), Status> {
    let Some(namespace) = attempt.place.namespace.filter(|_| attempt.creates()) else {
        return Ok(());
    };
    let info = api::table::find("", "v1", &resource::NAMESPACES.plural).expect("namespaces are a built-in kind");
    let kind = Kind::BuiltIn(info);
    let place = Place {
        plane: attempt.place.plane,
        kind: &kind,
        namespace: None,
        name: namespace,
    };
    let Some(stored) = place.read().await?.stored else {
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
    Ok(())
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
