//! `Priority`: from a class's name to its number.

use api::{Resource, Status, resource::Scope};
use serde_json::Value;

use super::Attempt;
use crate::registry::refuse_forbidden;

const PRIORITY_CLASSES: Resource = Resource::built_in(
    "scheduling.k8s.io",
    "v1",
    "priorityclasses",
    "PriorityClass",
    Scope::Cluster,
);

/// One class at most is everybody's who names none.
pub(super) async fn check_class(attempt: &Attempt<'_>, tree: &Value) -> Result<(), Status> {
    let place = &attempt.place;
    if tree["globalDefault"] != true {
        return Ok(());
    }
    let (_, classes) = attempt
        .registry
        .list_objects(place.plane, &PRIORITY_CLASSES, None)
        .await?;
    let other = classes
        .iter()
        .find(|class| class.tree()["globalDefault"] == true && class.name() != place.name);
    match other {
        None => Ok(()),
        Some(other) => Err(refuse_forbidden(
            place.kind,
            place.name,
            &format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            ),
        )),
    }
}

pub(super) async fn admit(attempt: &Attempt<'_>, tree: &mut Value) -> Result<(), Status> {
    let place = &attempt.place;
    let asked = tree["spec"]["priorityClassName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let (_, classes) = attempt
        .registry
        .list_objects(place.plane, &PRIORITY_CLASSES, None)
        .await?;
    let class = if asked.is_empty() {
        // Of several defaults the lowest counts, as upstream has it.
        classes
            .iter()
            .filter(|class| class.tree()["globalDefault"] == true)
            .min_by_key(|class| class.tree()["value"].as_i64().unwrap_or(0))
    } else {
        let found = classes.iter().find(|class| class.name() == asked);
        if found.is_none() {
            let why = format!("no PriorityClass with name {asked} was found");
            return Err(refuse_forbidden(place.kind, place.name, &why));
        }
        found
    };
    let value = class.and_then(|class| class.tree()["value"].as_i64()).unwrap_or(0);
    let policy = class
        .and_then(|class| class.tree()["preemptionPolicy"].as_str())
        .unwrap_or("PreemptLowerPriority")
        .to_owned();
    let spec = &mut tree["spec"];
    if !spec.is_object() {
        return Ok(());
    }
    match spec["priority"].as_i64() {
        Some(given) if given != value => {
            return Err(refuse_forbidden(
                place.kind,
                place.name,
                &format!(
                    "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                     controller computed {value} from the given PriorityClass name"
                ),
            ));
        }
        _ => spec["priority"] = value.into(),
    }
    if let Some(class) = class.filter(|_| asked.is_empty()) {
        spec["priorityClassName"] = class.name().into();
    }
    match spec["preemptionPolicy"].as_str() {
        Some(given) if given != policy => Err(refuse_forbidden(
            place.kind,
            place.name,
            &format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            ),
        )),
        _ => {
            spec["preemptionPolicy"] = policy.into();
            Ok(())
        }
    }
}
