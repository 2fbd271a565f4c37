//! Custom resource definitions: their names, conditions, and what goes with them when they go.

use api::{
    Object, Status,
    field::{self, Path},
    keys::Layout,
    resource, structural,
};
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
    check(tree, old)?;
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
fn check(tree: &Value, old: Option<&Value>) -> Result<(), Status> {
    let mut causes = structural::check_definition(tree, old);
    let spec = Path::ROOT.field("spec");
    let group = spec_text(tree, "group");
    if api::table::group(group).is_some() {
        causes.push(field::invalid(
            &spec.field("group"),
            group,
            "the group is served by the server itself",
        ));
    }
    let strategy = tree["spec"]["conversion"]["strategy"].as_str().unwrap_or("None");
    if strategy == "Webhook" {
        let conversion = spec.field("conversion");
        causes.push(field::not_supported(&conversion.field("strategy"), strategy, &["None"]));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let info = api::table::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let kind = Kind::BuiltIn(info.expect("definitions are a built-in kind"));
    Err(refusals::invalid(&kind, meta::text(tree, "name"), causes))
}

fn spec_text<'a>(tree: &'a Value, field: &str) -> &'a str {
    tree["spec"][field].as_str().unwrap_or_default()
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
