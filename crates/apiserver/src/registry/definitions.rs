//! Custom resource definitions: their names, conditions, and what goes with them when they go.

use api::{
    Object, Status,
    field::{self, Path},
    keys::Layout,
    resource, structural,
};
use keyspace::{KeyRange, Op, Options, Previous, Range, Txn};
use serde_json::Value;

use super::{
    Kind, Place,
    accepted_names::{self, Taken},
    meta,
    objects::Beside,
    refusals,
    scan::{Ask, Scan},
};
use crate::planes::{Plane, Planes, refuse};

pub fn is_definition(kind: &Kind) -> bool {
    kind.is("apiextensions.k8s.io", "customresourcedefinitions")
}

/// The kind of definitions themselves.
pub fn kind() -> Kind {
    let info = api::table::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    Kind::BuiltIn(info.expect("definitions are a built-in kind"))
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
    let taken = taken(planes, plane, tree).await?;
    if let Some(old) = old {
        // Conditions are the server's, whatever the client sends.
        tree["status"]["conditions"] = old["status"]["conditions"].clone();
    }
    accepted_names::accept(tree, &taken, &now);
    Ok(())
}

/// The names of the other definitions of its group.
async fn taken(planes: &Planes, plane: &Plane, tree: &Value) -> Result<Taken, Status> {
    let (name, group) = (meta::text(tree, "name"), spec_text(tree, "group"));
    let custom = planes.custom_resources(plane).await?;
    let mut taken = Taken::default();
    for other in &custom.served {
        let info = &other.info;
        if other.object.name() != name && info.resource.group == group {
            let resources = [info.resource.plural.to_string(), info.singular.clone()];
            taken.resources.extend(resources);
            taken.resources.extend(info.short_names.iter().cloned());
            taken
                .kinds
                .extend([info.resource.kind.to_string(), other.list_kind.clone()]);
        }
    }
    Ok(taken)
}

/// Names have become free: definitions of the group that wait for some are looked at again.
pub(super) async fn reconsider(planes: &Planes, plane: &Plane, gone: &Object) -> Result<(), Status> {
    let definitions = kind();
    let page = Scan::of_plane(plane, &definitions, None)
        .page(Ask::everything())
        .await?;
    let group = spec_text(gone.tree(), "group");
    for item in page.items {
        let object = item.stored.object;
        if spec_text(object.tree(), "group") != group || !accepted_names::waits(object.tree()) {
            continue;
        }
        let mut tree = object.tree().clone();
        let taken = taken(planes, plane, &tree).await?;
        accepted_names::accept(&mut tree, &taken, &meta::now(&*planes.world().clock));
        let place = Place {
            plane,
            kind: &definitions,
            namespace: None,
            name: object.name(),
        };
        // Whoever writes it at the same time looks at its names too.
        place
            .put(
                planes,
                item.stored.revision,
                &Object::from_tree(tree),
                None,
                Beside::default(),
            )
            .await?;
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
    Err(refusals::invalid(&kind(), meta::text(tree, "name"), causes))
}

/// What a definition asks for and does not get.
pub fn warnings(kind: &Kind, tree: &Value) -> Vec<String> {
    if !is_definition(kind) {
        return Vec::new();
    }
    let versions = tree["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let with_rules = versions
        .iter()
        .enumerate()
        .filter(|(_, version)| has_rules(&version["schema"]));
    with_rules
        .map(|(at, _)| {
            format!("spec.versions[{at}].schema: rules in x-kubernetes-validations are kept and not evaluated yet")
        })
        .collect()
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| (name == "x-kubernetes-validations" && field.is_array()) || has_rules(field)),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn spec_text<'a>(tree: &'a Value, field: &str) -> &'a str {
    tree["spec"][field].as_str().unwrap_or_default()
}

/// Upstream's finalizer of definitions whose objects have to go first.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Makes a definition wait for its objects to go.
pub fn terminate(tree: &mut Value, now: &str) {
    let mut finalizers = meta::finalizers(tree);
    if !finalizers.iter().any(|has| has == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
    }
    meta::set_finalizers(tree, finalizers);
    accepted_names::set_condition(
        tree,
        "Terminating",
        "True",
        "InstanceDeletionInProgress",
        "CustomResource deletion is in progress",
        now,
    );
}

/// The keys of a definition's objects, which have its uid, so that a definition made anew under the same name begins
/// empty. `None` for what is no complete definition.
fn keys_of_objects(plane: &Plane, definition: &Object) -> Option<KeyRange> {
    let spec = &definition.tree()["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural, uid) = (text(&spec["group"]), text(&spec["names"]["plural"]), definition.uid());
    if group.is_empty() || plural.is_empty() || uid.is_empty() {
        return None;
    }
    let resource = api::Resource {
        group: group.into(),
        version: "".into(),
        plural: plural.into(),
        kind: "".into(),
        scope: resource::Scope::Cluster,
    };
    debug_assert!(plane.layout == Layout::Shared || api::table::group(&resource.group).is_none());
    Some(KeyRange::prefix(plane.layout.prefix(
        plane.id,
        &resource,
        Some(uid),
        None,
    )))
}

/// Whether there is any object of that definition.
pub(super) async fn has_objects(plane: &Plane, definition: &Object) -> Result<bool, Status> {
    let Some(keys) = keys_of_objects(plane, definition) else {
        return Ok(false);
    };
    let range = Range {
        limit: Some(1),
        ..Range::of(keys)
    };
    let ranged = plane.keyspace.range(range, Options::default()).await.map_err(refuse)?;
    Ok(!ranged.items.is_empty())
}

/// Takes away what is left of a definition that is gone.
pub(super) async fn remove_objects(plane: &Plane, definition: &Object) -> Result<(), Status> {
    let Some(keys) = keys_of_objects(plane, definition) else {
        return Ok(());
    };
    let txn = Txn {
        success: vec![Op::Delete {
            keys,
            previous: Previous::Omit,
        }],
        ..Txn::default()
    };
    plane.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
    Ok(())
}
