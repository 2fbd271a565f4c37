//! Update and patch, of an object or of its status.
//!
//! Read, change, compare, put; again if somebody else wrote in between, unless the caller said which version they
//! meant.

use api::{
    Object, Status,
    patch::PatchType,
    strategy::{self, Part},
    validate::{self, pod_parts},
};
use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::{
    Kind, Place, Registry, Stored,
    apply::Configuration,
    body,
    claims::Releases,
    convert,
    create::{check_namespace, default, refuse_invalid},
    definitions, forms, meta,
    owners::{self, Noted},
    patch::Patch,
    read::place,
    refusals::{self, MODIFIED, bad_request},
    services,
};
use crate::{
    Body,
    admission::{self, Attempt, Operation, Overdraft},
    authz::escalation,
    context::{Context, Verb},
};

/// How often a change is tried over when others write at the same time. Each round somebody's write has succeeded, so
/// that many writers in a row would have to be luckier (upstream tries for ever).
const TRIES: usize = 100;

/// Which part of an object a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aspect {
    Main,
    Status,
    /// `namespaces/finalize`.
    Finalize,
    /// `pods/ephemeralcontainers`: nothing else of the Pod.
    EphemeralContainers,
    /// `pods/resize`: the resources of its containers, nothing else of the Pod.
    Resize,
    /// `pods/binding`: the server's own change, of spec and status at once.
    Binding,
}

/// What became of an update.
pub(super) struct Updated {
    pub stored: Stored,
    pub created: bool,
    pub warnings: Vec<String>,
}

/// Makes the wanted object, in its served version and decoded, of the current one (with its `resourceVersion`).
pub(super) type Change<'a> = dyn Fn(&Value) -> Result<body::Read, Status> + Send + Sync + 'a;

impl Registry {
    pub(super) async fn modify(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let aspect = match context.info.subresource.as_str() {
            "" => Aspect::Main,
            "ephemeralcontainers" => Aspect::EphemeralContainers,
            "resize" => Aspect::Resize,
            "finalize" => Aspect::Finalize,
            _ => Aspect::Status,
        };
        let validation = context.query.field_validation;
        let updated = if context.info.verb == Verb::Patch {
            let patch_type = body::patch_type(&request, kind)?;
            owners::check_options(context, Some(patch_type))?;
            let bytes = body::bytes(request).await?;
            if patch_type == PatchType::Apply {
                let config = Configuration::read(bytes, validation)?;
                self.apply(context, kind, aspect, &config).await?
            } else {
                let noted = match patch_type {
                    PatchType::Json => Noted::UpdateOfAll,
                    _ => Noted::change(context, kind, aspect),
                };
                let patch = Patch::read(patch_type, bytes)?;
                self.update_object(context, kind, aspect, noted, &|current| {
                    patch.object(kind, current, validation)
                })
                .await?
            }
        } else {
            owners::check_options(context, None)?;
            let read = body::object(kind, &body::bytes(request).await?, validation)?;
            if aspect == Aspect::Main
                && let Some(created) = self.create_by_update(context, kind, &read).await?
            {
                created
            } else {
                let noted = Noted::change(context, kind, aspect);
                self.update_object(context, kind, aspect, noted, &|_| {
                    Ok(body::Read {
                        tree: read.tree.clone(),
                        warnings: read.warnings.clone(),
                    })
                })
                .await?
            }
        };
        let code = if updated.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let shown = forms::Shown::new(kind, &context.form, &self.planes().world().clock);
        let mut warnings = updated.warnings;
        warnings.extend(definitions::warnings(kind, updated.stored.object.tree()));
        Ok(forms::answer(code, shown.object(&updated.stored), &warnings))
    }

    /// An update of what is not there makes it, for kinds that allow it. `None` if it is there, or may not be made so.
    async fn create_by_update(
        &self,
        context: &Context,
        kind: &Kind,
        read: &body::Read,
    ) -> Result<Option<Updated>, Status> {
        if !strategy::allows_create_on_update(kind.storage())
            || !meta::text(&read.tree, "uid").is_empty()
            || !matches!(meta::text(&read.tree, "resourceVersion"), "" | "0")
            || place(context, kind).read().await?.stored.is_some()
        {
            return Ok(None);
        }
        let mut tree = read.tree.clone();
        check_name(context, &mut tree)?;
        meta::set(&mut tree, "resourceVersion", None);
        self.require_create(context).await?;
        let noted = Noted::creation(context, kind);
        let created = self.create_object(context, kind, tree, noted).await?;
        Ok(Some(Updated {
            stored: created.stored,
            created: true,
            warnings: [read.warnings.clone(), created.warnings].concat(),
        }))
    }

    pub(super) async fn update_object(
        &self,
        context: &Context,
        kind: &Kind,
        aspect: Aspect,
        noted: Noted,
        change: &Change<'_>,
    ) -> Result<Updated, Status> {
        let place = place(context, kind);
        let family = self.family(&context.plane, kind).await?;
        for _ in 0..TRIES {
            let found = place.read().await?;
            let current = found.stored.ok_or_else(|| refusals::not_found(kind, place.name))?;
            let shown = forms::Shown::new(kind, &crate::Form::Object, &self.planes().world().clock);
            let mut live = shown.tree(&current);
            let hidden = match noted {
                Noted::Update | Noted::Never => meta::take(&mut live, "managedFields"),
                Noted::UpdateOfAll | Noted::Already => None,
            };
            let body::Read { mut tree, mut warnings } = change(&live)?;
            check_name(context, &mut tree)?;
            check_namespace(context, kind, &mut tree)?;
            let pinned = check_preconditions(context, kind, &current, &tree)?;

            default(kind, &mut tree);
            if noted == Noted::Never {
                meta::set(&mut tree, "managedFields", hidden);
            } else if noted != Noted::Already {
                if hidden.is_some() {
                    meta::set(&mut live, "managedFields", hidden);
                }
                self.write_of(context, &family, |write| write.updated(&live, &mut tree));
            }
            convert::to_storage(kind, &mut tree);
            meta::strip_on_write(&mut tree);
            // Whatever part of the object a door keeps: who owns it has been said.
            let owners = meta::take(&mut tree, "managedFields");
            warnings.extend(self.prepare(&place, aspect, &mut tree, current.object.tree()).await?);
            if kind.is_core("resourcequotas") && aspect == Aspect::Status {
                // What is used is the server's own to say; asked to change it, it counts anew.
                tree["status"] = self.count_quota(&place, &tree, found.now).await?;
            }

            meta::set(&mut tree, "managedFields", owners);
            api::apply::keep_times(current.object.tree(), &mut tree);
            let object = Object::from_tree(tree);
            let done = |stored| Updated {
                stored,
                created: false,
                warnings: warnings.clone(),
            };
            if object == current.object {
                return Ok(done(current));
            }
            escalation::check(
                &self.edge().authorizer,
                self.planes(),
                context,
                Some(&current.object),
                &object,
            )
            .await?;
            if context.dry_run() {
                return Ok(done(Stored {
                    object,
                    revision: current.revision,
                }));
            }
            if is_over(kind, object.tree()) {
                match self.remove_object(&place, found.guard, &current.object).await? {
                    Some(revision) => return Ok(done(Stored { object, revision })),
                    None if pinned => return Err(refusals::conflict(kind, place.name, MODIFIED)),
                    None => continue,
                }
            }
            let lease = self.lease(&place).await?;
            let (object, claims) =
                services::allocate(self.planes(), &place, object, Some(current.object.tree())).await?;
            let put = async {
                let (old, new) = (current.object.tree(), object.tree());
                let releases = Releases::of(self.planes(), &place, old, Some(new)).await?;
                let charge = self.charge(&place, Some(old), Some(new), overdraft(aspect)).await?;
                let beside = claims.beside().and(releases.beside).and(charge.beside);
                let written = place.put(self.planes(), found.guard, &object, lease, beside).await?;
                if written.is_some() {
                    releases.after.carry_out(self.planes()).await?;
                }
                Ok(written)
            };
            match put.await {
                Ok(Some(revision)) => {
                    if kind.is_core("resourcequotas") && aspect == Aspect::Main {
                        self.settle_quota(&place).await;
                    }
                    return Ok(done(Stored { object, revision }));
                }
                Ok(None) => {
                    claims.give_back(self.planes()).await;
                    if pinned {
                        return Err(refusals::conflict(kind, place.name, MODIFIED));
                    }
                }
                Err(status) => {
                    claims.give_back(self.planes()).await;
                    return Err(status);
                }
            }
        }
        Err(refusals::conflict(kind, place.name, MODIFIED))
    }

    /// From what the caller wants to what would be stored, and what they are to be warned of; refused if it may not be.
    async fn prepare(
        &self,
        place: &Place<'_>,
        aspect: Aspect,
        tree: &mut Value,
        old: &Value,
    ) -> Result<Vec<String>, Status> {
        let kind = place.kind;
        let info = kind.storage_info();
        let part = match aspect {
            Aspect::Status => Part::Status,
            _ => Part::Main,
        };
        if aspect == Aspect::Binding {
            return Ok(Vec::new());
        }
        let attempt = Attempt {
            registry: self,
            place: *place,
            operation: Operation::Update(old),
        };
        if matches!(aspect, Aspect::EphemeralContainers | Aspect::Resize) {
            let causes = if aspect == Aspect::Resize {
                strategy::keep_all_but_resources(tree, old);
                pod_parts::resize(tree, old)
            } else {
                strategy::keep_all_but_ephemeral_containers(tree, old);
                pod_parts::ephemeral_containers(tree, old)
            };
            strategy::bump_generation(&info, tree, old);
            let warnings = admission::mutate(&attempt, tree).await?;
            refuse_invalid(kind, tree, causes)?;
            return Ok(warnings);
        }
        if aspect == Aspect::Finalize {
            let finalizers = tree["spec"]["finalizers"].clone();
            *tree = old.clone();
            match finalizers.as_array().map(Vec::is_empty) {
                Some(false) => tree["spec"]["finalizers"] = finalizers,
                _ => {
                    if let Some(spec) = tree["spec"].as_object_mut() {
                        spec.remove("finalizers");
                    }
                }
            }
            return Ok(Vec::new());
        }
        if kind.is_core("services") && aspect == Aspect::Main {
            services::keep_allocated(tree, old);
            services::complete(tree);
        }
        strategy::prepare_update(&info, part, tree, old);
        let mut warnings = Vec::new();
        if aspect == Aspect::Main {
            warnings = admission::mutate(&attempt, tree).await?;
        }
        refuse_invalid(kind, tree, validate::update(kind.storage(), part, tree, old))?;
        if aspect == Aspect::Main && definitions::is_definition(kind) {
            definitions::prepare(self.planes(), place.plane, tree, Some(old)).await?;
        }
        Ok(warnings)
    }
}

/// What happens to a pod is not refused because of what it costs; only what somebody asks for is.
fn overdraft(aspect: Aspect) -> Overdraft {
    match aspect {
        Aspect::Main | Aspect::EphemeralContainers | Aspect::Resize => Overdraft::Refused,
        Aspect::Status | Aspect::Finalize | Aspect::Binding => Overdraft::Allowed,
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(super) fn is_over(kind: &Kind, tree: &Value) -> bool {
    let metadata = &tree["metadata"];
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && empty(&metadata["finalizers"])
        && (!kind.is_core("namespaces") || empty(&tree["spec"]["finalizers"]))
}

/// Puts the request's name into the object, or refuses another one.
pub(super) fn check_name(context: &Context, tree: &mut Value) -> Result<(), Status> {
    let wanted = context.info.name.as_deref().unwrap_or_default();
    match meta::text(tree, "name") {
        "" => {
            meta::set(tree, "name", Some(wanted.into()));
            Ok(())
        }
        given if given == wanted => Ok(()),
        given => Err(bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({wanted})"
        ))),
    }
}

/// True if the caller said which version they mean.
fn check_preconditions(context: &Context, kind: &Kind, current: &Stored, tree: &Value) -> Result<bool, Status> {
    let name = current.object.name();
    let uid = meta::text(tree, "uid");
    if !uid.is_empty() && uid != current.object.uid() {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            current.object.uid()
        );
        return Err(refusals::conflict(kind, name, &why));
    }
    let version = meta::text(tree, "resourceVersion");
    let is_current = version == current.revision.to_string();
    if context.info.verb == Verb::Patch {
        // A patch that does not name a version carries the current one along.
        return if is_current || version.is_empty() {
            Ok(false)
        } else {
            Err(refusals::conflict(kind, name, MODIFIED))
        };
    }
    if matches!(version, "" | "0") {
        if strategy::allows_unconditional_update(kind.storage()) {
            return Ok(false);
        }
        let cause = api::status::Cause {
            reason: "FieldValueInvalid",
            message: "Invalid value: 0x0: must be specified for an update".to_owned(),
            field: "metadata.resourceVersion".to_owned(),
        };
        return Err(refusals::invalid(kind, name, vec![cause]));
    }
    if is_current {
        Ok(true)
    } else {
        Err(refusals::conflict(kind, name, MODIFIED))
    }
}
