//! Custom resource definitions: their names, conditions, and what goes with them when they go.

use api::{Object, Status, keys::Layout, resource, status::Cause};
use keyspace::{KeyRange, Op, Options, Previous, Txn};
use serde_json::{Value, json};

use super::{Kind, meta, refusals};
use crate::planes::{Plane, Planes, refuse};

/// What a definition's status says once it is accepted; set with the write itself, so that what it defines is served
/// when its maker has the answer.
pub fn establish(tree: &mut Value, now: &str) {
    let names = tree["spec"]["names"].clone();
    let mut accepted = names;
    if accepted["listKind"].is_null() {
        accepted["listKind"] = format!("{}List", accepted["kind"].as_str().unwrap_or_default()).into();
    }
    if accepted["singular"].is_null() {
        accepted["singular"] = accepted["kind"].as_str().unwrap_or_default().to_lowercase().into();
    }
    tree["status"]["acceptedNames"] = accepted;
    set_condition(tree, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
    set_condition(
        tree,
        "Established",
        "True",
        "InitialNamesAccepted",
        "the initial names have been accepted",
        now,
    );
    let mut stored: Vec<Value> = tree["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    let storage = tree["spec"]["versions"]
        .as_array()
        .and_then(|versions| versions.iter().find(|version| version["storage"] == true))
        .map(|version| version["name"].clone());
    if let Some(storage) = storage.filter(|storage| !stored.contains(storage)) {
        stored.push(storage);
    }
    tree["status"]["storedVersions"] = stored.into();
}

fn set_condition(tree: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let conditions = &mut tree["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let new = json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(condition) if condition["status"] == status => {}
        Some(condition) => *condition = new,
        None => conditions.push(new),
    }
}

/// Checks a definition's names against the plane's others and sets its status.
pub(super) async fn prepare(
    planes: &Planes,
    plane: &Plane,
    tree: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let now = meta::now(&*planes.world().clock);
    check(tree)?;
    let name = meta::text(tree, "name").to_owned();
    let spec = &tree["spec"];
    let (group, names) = (spec["group"].as_str().unwrap_or_default(), &spec["names"]);
    let custom = planes.custom_resources(plane).await?;
    let others = custom
        .served
        .iter()
        .filter(|other| other.object.name() != name && other.info.resource.group == group);
    let mut clash = None;
    for other in others {
        let taken = [
            ("kind", &*other.info.resource.kind),
            ("plural", &*other.info.resource.plural),
            ("singular", &*other.info.singular),
            ("listKind", &*other.list_kind),
        ];
        for (field, value) in taken {
            if !value.is_empty() && names[field] == value {
                clash = Some(format!("{value:?} is already in use"));
            }
        }
    }
    if let Some(old) = old {
        // Conditions are the server's, whatever the client sends.
        tree["status"]["conditions"] = old["status"]["conditions"].clone();
    }
    match clash {
        None => establish(tree, &now),
        Some(message) => {
            set_condition(tree, "NamesAccepted", "False", "NameConflict", &message, &now);
            if old.is_none() {
                set_condition(
                    tree,
                    "Established",
                    "False",
                    "NotAccepted",
                    "not all names are accepted",
                    &now,
                );
            }
        }
    }
    Ok(())
}

/// What has to hold for a definition to be served at all.
fn check(tree: &Value) -> Result<(), Status> {
    let mut causes = Vec::new();
    let mut refuse = |reason: &'static str, field: &str, message: String| {
        causes.push(Cause {
            reason,
            message,
            field: field.to_owned(),
        });
    };
    let spec = &tree["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let name = meta::text(tree, "name");
    for (field, value) in [
        ("spec.group", &group),
        ("spec.names.plural", &plural),
        ("spec.names.kind", &text(&spec["names"]["kind"])),
        ("spec.scope", &text(&spec["scope"])),
    ] {
        if value.is_empty() {
            refuse("FieldValueRequired", field, "Required value".to_owned());
        }
    }
    if !group.is_empty() && !plural.is_empty() && name != format!("{plural}.{group}") {
        refuse(
            "FieldValueInvalid",
            "metadata.name",
            format!("Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group"),
        );
    }
    if !group.is_empty() && !group.contains('.') {
        refuse(
            "FieldValueInvalid",
            "spec.group",
            format!("Invalid value: {group:?}: should be a domain with at least one dot"),
        );
    }
    if api::table::group(&group).is_some() {
        refuse(
            "FieldValueInvalid",
            "spec.group",
            format!("Invalid value: {group:?}: the group is served by the server itself"),
        );
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.is_empty() {
        refuse("FieldValueRequired", "spec.versions", "Required value".to_owned());
    } else if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        refuse(
            "FieldValueInvalid",
            "spec.versions",
            format!(
                "Invalid value: {}: must have exactly one version marked as storage version",
                spec["versions"]
            ),
        );
    }
    for (at, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            refuse(
                "FieldValueRequired",
                &format!("spec.versions[{at}].schema.openAPIV3Schema"),
                "Required value: schemas are required".to_owned(),
            );
        }
    }
    if spec["conversion"]["strategy"] == "Webhook" {
        refuse(
            "FieldValueNotSupported",
            "spec.conversion.strategy",
            "Unsupported value: \"Webhook\": supported values: \"None\"".to_owned(),
        );
    }
    if causes.is_empty() {
        return Ok(());
    }
    let info = api::table::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let kind = Kind::BuiltIn(info.expect("definitions are a built-in kind"));
    Err(refusals::invalid(&kind, name, causes))
}

/// Deletes the objects of a definition that is gone. They are found by its uid, so that a definition made anew under
/// the same name begins empty.
pub(super) async fn remove_objects(plane: &Plane, definition: &Object) -> Result<(), Status> {
    let spec = &definition.tree()["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural, uid) = (text(&spec["group"]), text(&spec["names"]["plural"]), definition.uid());
    if group.is_empty() || plural.is_empty() || uid.is_empty() {
        return Ok(());
    }
    let resource = api::Resource {
        group: group.into(),
        version: "".into(),
        plural: plural.into(),
        kind: "".into(),
        scope: resource::Scope::Cluster,
    };
    debug_assert!(plane.layout == Layout::Shared || api::table::group(&resource.group).is_none());
    let txn = Txn {
        success: vec![Op::Delete {
            keys: KeyRange::prefix(plane.layout.prefix(plane.id, &resource, Some(uid), None)),
            previous: Previous::Omit,
        }],
        ..Txn::default()
    };
    plane.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
    Ok(())
}
