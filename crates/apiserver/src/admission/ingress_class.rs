//! `DefaultIngressClass`: an Ingress that names no class gets the plane's default one.

use api::{Object, Resource, Status, resource::Scope};
use serde_json::Value;

use super::Attempt;

const INGRESS_CLASSES: Resource = Resource::built_in(
    "networking.k8s.io",
    "v1",
    "ingressclasses",
    "IngressClass",
    Scope::Cluster,
);

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

pub(super) async fn admit(attempt: &Attempt<'_>, tree: &mut Value) -> Result<(), Status> {
    let place = &attempt.place;
    let named = !tree["spec"]["ingressClassName"].is_null()
        || tree["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_string();
    if named || !tree["spec"].is_object() {
        return Ok(());
    }
    let (_, classes) = attempt
        .registry
        .list_objects(place.plane, &INGRESS_CLASSES, None)
        .await?;
    let created = |class: &&Object| {
        class.tree()["metadata"]["creationTimestamp"]
            .as_str()
            .map(str::to_owned)
    };
    let mut defaults: Vec<&Object> = classes
        .iter()
        .filter(|class| class.annotation(IS_DEFAULT) == Some("true"))
        .collect();
    // The newest counts, and of those made at once the first by name.
    defaults.sort_by(|one, other| {
        let newest = created(other).cmp(&created(one));
        newest.then_with(|| one.name().cmp(other.name()))
    });
    if let Some(class) = defaults.first() {
        tree["spec"]["ingressClassName"] = class.name().into();
    }
    Ok(())
}
