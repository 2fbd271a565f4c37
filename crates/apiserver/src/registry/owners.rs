//! Who owns which fields of an object (`metadata.managedFields`): the versions of a kind as `api::apply` asks for
//! them, and the name under which a request writes.

use std::sync::Arc;

use api::{
    Status,
    apply::{Element, Filter, MANAGER_CHARS_MAX, Shape, Versions, Write, scale::ReplicasPaths},
    field::{self, Path},
    patch::PatchType,
};
use serde_json::Value;

use super::{Kind, Registry, convert, meta, scale::paths_of, update::Aspect};
use crate::{
    context::{Context, Verb},
    planes::{CustomResource, Plane},
};

/// How a write is noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Noted {
    /// Whoever asks owns what changes. The change does not see who owns what, which is half of many an object.
    Update,
    /// As `Update`, of a change that may look at any field.
    UpdateOfAll,
    /// The changed object says already who owns what.
    Already,
    /// The server's own doing, which nobody owns.
    Never,
}

impl Noted {
    /// Of an object that is created. What loops write by the thousand and nobody applies to is not noted: such an
    /// object gets owners when somebody does.
    pub(super) fn creation(context: &Context, kind: &Kind) -> Noted {
        let transient = kind.is_core("events") || kind.is("coordination.k8s.io", "leases");
        if context.in_process && transient {
            Noted::Never
        } else {
            Noted::Update
        }
    }

    /// Of an object that is changed, or its part. The status that our own loops give a definition's objects is theirs
    /// alone: nobody could conflict with it.
    pub(super) fn change(context: &Context, kind: &Kind, aspect: Aspect) -> Noted {
        if context.in_process && aspect == Aspect::Status && kind.definition().is_some() {
            Noted::Never
        } else {
            Noted::Update
        }
    }
}

/// All versions of a kind.
pub(super) struct Family {
    kind: Kind,
    /// The served versions of a definition.
    custom: Vec<Arc<CustomResource>>,
}

impl Registry {
    pub(super) async fn family(&self, plane: &Plane, kind: &Kind) -> Result<Family, Status> {
        let custom = match kind.definition() {
            Some(uid) => {
                let all = self.planes().custom_resources(plane).await?;
                let of_definition = all.served.iter().filter(|custom| custom.definition == uid);
                of_definition.cloned().collect()
            }
            None => Vec::new(),
        };
        Ok(Family {
            kind: kind.clone(),
            custom,
        })
    }

    /// Does something with a write by the request's manager, through the request's door.
    pub(super) fn write_of<T>(&self, context: &Context, family: &Family, work: impl FnOnce(&Write<'_>) -> T) -> T {
        let kind = &family.kind;
        let subresource = &context.info.subresource;
        work(&Write {
            versions: family,
            filter: &Filter::of(kind.storage(), kind.has_status(), subresource),
            resource: kind.resource(),
            subresource,
            manager: &context.manager,
            now: &meta::now(&*self.planes().world().clock),
        })
    }
}

impl Family {
    fn version(&self, api_version: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        match &self.kind {
            Kind::BuiltIn(info) => api::table::find(group, version, &info.resource.plural).map(Kind::BuiltIn),
            Kind::Custom(_) => self.custom(group, version).cloned().map(Kind::Custom),
        }
    }

    fn custom(&self, group: &str, version: &str) -> Option<&Arc<CustomResource>> {
        self.custom.iter().find(|custom| {
            let resource = &custom.info.resource;
            resource.group == group && resource.version == version
        })
    }
}

impl Versions for Family {
    fn shape(&self, api_version: &str) -> Option<Shape<'_>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        match &self.kind {
            Kind::BuiltIn(info) => api::schema::of_kind(group, version, &info.resource.kind).map(Shape::of_type),
            Kind::Custom(_) => self
                .custom(group, version)
                .map(|custom| Shape::of_schema(&custom.compiled)),
        }
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let from = self.version(object["apiVersion"].as_str()?)?;
        let to = self.version(api_version)?;
        let mut object = object.clone();
        convert::to_storage(&from, &mut object);
        convert::from_storage(&to, &mut object);
        Some(object)
    }
}

impl ReplicasPaths for Family {
    fn path(&self, api_version: &str) -> Option<Vec<Element>> {
        let kind = self.version(api_version)?;
        let paths = paths_of(&kind);
        let steps = paths.iter().flat_map(|paths| paths.spec_replicas.split('.'));
        Some(steps.filter(|step| !step.is_empty()).map(Element::field).collect())
    }
}

/// The one version of `Scale`.
pub(super) struct Scales;

impl Versions for Scales {
    fn shape(&self, api_version: &str) -> Option<Shape<'_>> {
        let (group, version) = api_version.split_once('/')?;
        api::schema::of_kind(group, version, "Scale").map(Shape::of_type)
    }

    fn convert(&self, _: &Value, _: &str) -> Option<Value> {
        None
    }
}

/// Refuses names of managers, and options of patches, that upstream refuses.
pub(super) fn check_options(context: &Context, patch: Option<PatchType>) -> Result<(), Status> {
    let mut causes = Vec::new();
    let manager = &context.query.field_manager;
    let path = Path::ROOT.field("fieldManager");
    if context.query.option("force").is_some() && !matches!(patch, None | Some(PatchType::Apply)) {
        causes.push(field::forbidden(
            &Path::ROOT.field("force"),
            "may not be specified for non-apply patch",
        ));
    }
    if patch == Some(PatchType::Apply) && manager.is_empty() {
        causes.push(field::required(&path, "is required for apply patch"));
    }
    // In bytes, as upstream counts.
    if manager.len() > MANAGER_CHARS_MAX {
        causes.push(field::too_long(&path, MANAGER_CHARS_MAX));
    }
    if manager.chars().any(char::is_control) {
        causes.push(field::invalid(
            &path,
            manager.as_str(),
            "should only contain printable characters",
        ));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let kind = match context.info.verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        _ => "PatchOptions",
    };
    Err(field::invalid_status("meta.k8s.io", kind, "", causes))
}
