//! `LimitRanger`: a namespace's defaults and bounds for what its Pods and claims ask for.

use api::{Object, Resource, Status, limits, resource::Scope};
use serde_json::Value;

use super::Attempt;
use crate::registry::refuse_forbidden;

const LIMIT_RANGES: Resource = Resource::built_in("", "v1", "limitranges", "LimitRange", Scope::Namespaced);

pub(super) async fn admit(attempt: &Attempt<'_>, tree: &mut Value) -> Result<(), Status> {
    let place = &attempt.place;
    let of_pod = place.kind.is_core("pods");
    let ranges: Vec<Object> = attempt
        .registry
        .list_objects(place.plane, &LIMIT_RANGES, place.namespace)
        .await?
        .1;
    if of_pod {
        for range in &ranges {
            limits::fill_in(range.tree(), tree);
        }
    }
    for range in &ranges {
        let problems = if of_pod {
            limits::refuse_pod(range.tree(), tree)
        } else {
            limits::refuse_claim(range.tree(), tree)
        };
        let why = match problems.as_slice() {
            [] => continue,
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        return Err(refuse_forbidden(place.kind, place.name, &why));
    }
    Ok(())
}
