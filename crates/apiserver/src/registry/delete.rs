//! Delete, of one object or many: at once, after a grace period, or when its finalizers are done.

use std::time::Duration;

use api::{Object, Status, strategy};
use http::{Request, Response, StatusCode};
use keyspace::Revision;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Kind, Place, Registry, Stored, body,
    claims::Releases,
    definitions, forms, meta,
    objects::Beside,
    read::place,
    refusals::{self, MODIFIED, bad_request},
    scan::{Ask, Scan, Selectors},
    update::is_over,
};
use crate::{
    Body,
    admission::{self, Attempt, Operation, Overdraft},
    context::Context,
    query::Query,
};

/// As for updates.
const TRIES: usize = 100;

/// How many objects of a collection are read at once.
const COLLECTION_PAGE: usize = 500;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// `metav1.DeleteOptions`, from the body or, failing that, the query.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Preconditions,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Vec<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    pub fn read(bytes: &[u8], query: &Query) -> Result<DeleteOptions, Status> {
        let mut options = if bytes.is_empty() {
            DeleteOptions::default()
        } else {
            DeleteOptions::of(body::json(bytes)?)?
        };
        options.grace_period_seconds = options.grace_period_seconds.or(query.grace_period_seconds);
        options.orphan_dependents = options.orphan_dependents.or(query.orphan_dependents);
        if options.propagation_policy.is_none() && !query.propagation_policy.is_empty() {
            options.propagation_policy = Some(query.propagation_policy.clone());
        }
        if !query.dry_run.is_empty() {
            options.dry_run = vec![query.dry_run.clone()];
        }
        options.check_values()?;
        Ok(options)
    }

    pub fn of(mut tree: Value) -> Result<DeleteOptions, Status> {
        let wrong = |error: &dyn std::fmt::Display| {
            bad_request(format!(
                "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {error}"
            ))
        };
        let fields = tree.as_object_mut().ok_or_else(|| wrong(&"it is not a JSON object"))?;
        fields.retain(|_, value| !value.is_null());
        serde_json::from_value(tree).map_err(|error| wrong(&error))
    }

    fn check_values(&self) -> Result<(), Status> {
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            return Err(bad_request(
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        match self.propagation_policy.as_deref() {
            None | Some("Orphan" | "Background" | "Foreground") => {}
            Some(other) => return Err(bad_request(format!("invalid value for propagationPolicy: {other:?}"))),
        }
        if let Some(other) = self.dry_run.iter().find(|value| *value != "All") {
            return Err(bad_request(format!("invalid value for dryRun: {other:?}")));
        }
        Ok(())
    }

    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// Refuses what is not the object that the caller meant.
    pub fn check(&self, kind: &Kind, current: &Stored) -> Result<(), Status> {
        check_preconditions(kind, current, &self.preconditions)
    }

    /// Only the object of that uid, if the caller has not named one.
    pub fn require_uid(&mut self, uid: &str) {
        self.preconditions.uid.get_or_insert_with(|| uid.to_owned());
    }

    /// The finalizers by which the garbage collector is told what to do with dependents.
    fn finalizers(&self, mut has: Vec<String>) -> Vec<String> {
        let wanted = match (self.orphan_dependents, self.propagation_policy.as_deref()) {
            (Some(true), _) | (_, Some("Orphan")) => Some(ORPHAN),
            (_, Some("Foreground")) => Some(FOREGROUND),
            (Some(false), _) | (_, Some(_)) => None,
            (None, None) => return has,
        };
        has.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
        has.extend(wanted.map(str::to_owned));
        has
    }
}

/// What became of a deletion.
pub(super) enum Deleted {
    Gone(Stored),
    /// It waits for its grace period or its finalizers.
    Pending(Stored),
}

impl Registry {
    pub(super) async fn delete(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let options = DeleteOptions::read(&body::bytes(request).await?, &context.query)?;
        self.delete_named(context, kind, &options).await
    }

    pub(super) async fn delete_named(
        &self,
        context: &Context,
        kind: &Kind,
        options: &DeleteOptions,
    ) -> Result<Response<Body>, Status> {
        let deleted = self.delete_object(context, &place(context, kind), options).await?;
        let shown = forms::Shown::new(kind, &context.form, &self.planes().world().clock);
        Ok(match deleted {
            // Upstream answers with the object where it has to be read by who deleted it.
            Deleted::Gone(stored) if kind.is_core("pods") || kind.is_core("services") => {
                forms::answer(StatusCode::OK, shown.object(&stored), &[])
            }
            Deleted::Gone(stored) => {
                let resource = kind.resource();
                let mut details =
                    json!({"name": stored.object.name(), "kind": resource.plural, "uid": stored.object.uid()});
                if !resource.group.is_empty() {
                    details["group"] = resource.group.clone().into();
                }
                forms::success(details)
            }
            Deleted::Pending(stored) => forms::answer(StatusCode::OK, shown.object(&stored), &[]),
        })
    }

    pub(super) async fn delete_collection(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let options = DeleteOptions::read(&body::bytes(request).await?, &context.query)?;
        let selectors = Selectors::parse(kind, &context.query)?;
        let now = self.delete_all(context, kind, context.info.namespace.as_deref(), &selectors, &options);
        let metadata = json!({"resourceVersion": now.await?.to_string()});
        let shown = forms::Shown::new(kind, &context.form, &self.planes().world().clock);
        Ok(forms::answer(StatusCode::OK, shown.list(&[], &metadata), &[]))
    }

    /// Deletes what was there at one revision. Gives the last revision that was read.
    pub(super) async fn delete_all(
        &self,
        context: &Context,
        kind: &Kind,
        namespace: Option<&str>,
        selectors: &Selectors,
        options: &DeleteOptions,
    ) -> Result<Revision, Status> {
        let scan = Scan::of_plane(&context.plane, kind, namespace);
        let (mut after, mut revision) = (None, None);
        loop {
            let ask = Ask {
                revision,
                limit: Some(COLLECTION_PAGE),
                after: after.take(),
                selectors: selectors.clone(),
            };
            let page = scan.page(ask).await?;
            for item in &page.items {
                let object = &item.stored.object;
                let place = Place {
                    plane: &context.plane,
                    kind,
                    namespace: Some(object.namespace()).filter(|namespace| !namespace.is_empty()),
                    name: object.name(),
                };
                match self.delete_object(context, &place, options).await {
                    Err(status) if status.code() != 404 => return Err(status),
                    _ => {}
                }
            }
            let Some(next) = page.next else {
                return Ok(page.now);
            };
            after = Some(next.after);
            revision = Some(page.revision);
        }
    }

    async fn delete_object(
        &self,
        context: &Context,
        place: &Place<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let deleted = self.delete_one(context, place, options).await?;
        let dry_run = context.dry_run() || options.is_dry_run();
        match deleted {
            Deleted::Pending(definition) if definitions::is_definition(place.kind) && !dry_run => {
                self.end_definition(context, place.kind, definition).await
            }
            other => Ok(other),
        }
    }

    async fn delete_one(
        &self,
        context: &Context,
        place: &Place<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let kind = place.kind;
        let dry_run = context.dry_run() || options.is_dry_run();
        for _ in 0..TRIES {
            let found = place.read().await?;
            let current = found.stored.ok_or_else(|| refusals::not_found(kind, place.name))?;
            options.check(kind, &current)?;
            let attempt = Attempt {
                registry: self,
                place: *place,
                operation: Operation::Delete,
            };
            admission::check_delete(&attempt)?;
            let Some(tree) = self.mark(kind, &current.object, options) else {
                return Ok(Deleted::Pending(current));
            };
            let object = Object::from_tree(tree);
            if is_over(kind, object.tree()) {
                if dry_run {
                    return Ok(Deleted::Gone(current));
                }
                if let Some(revision) = self.remove_object(place, found.guard, &current.object).await? {
                    return Ok(Deleted::Gone(Stored {
                        object: current.object,
                        revision,
                    }));
                }
                continue;
            }
            if object == current.object || dry_run {
                return Ok(Deleted::Pending(Stored {
                    object,
                    revision: current.revision,
                }));
            }
            if let Some(revision) = place
                .put(
                    self.planes(),
                    found.guard,
                    &object,
                    self.lease(place).await?,
                    Beside::default(),
                )
                .await?
            {
                return Ok(Deleted::Pending(Stored { object, revision }));
            }
        }
        Err(refusals::conflict(kind, place.name, MODIFIED))
    }

    /// The object as it is while it is being deleted; `None` if it is so already and nothing is to be hastened.
    fn mark(&self, kind: &Kind, object: &Object, options: &DeleteOptions) -> Option<Value> {
        let clock = &*self.planes().world().clock;
        let mut tree = object.tree().clone();
        let is_pod = kind.is_core("pods");
        let natural = strategy::default_grace_seconds(kind.storage(), &tree);
        let grace = match options.grace_period_seconds {
            // What has nothing to wind down goes at once, whatever was asked for.
            Some(asked) if is_pod && (natural > 0 || tree["spec"]["terminationGracePeriodSeconds"] == 0) => {
                if asked < 0 { 1 } else { asked }
            }
            Some(_) => 0,
            None => natural,
        };
        let finalizers = options.finalizers(meta::finalizers(&tree));
        if object.is_deleting() {
            let pending = tree["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
            // A deletion under way is only ever hastened.
            let hastened = match options.grace_period_seconds {
                Some(_) => grace < pending,
                None => grace == 0 && pending > 0 && is_pod && natural == 0,
            };
            if !hastened {
                let changed = finalizers != meta::finalizers(&tree);
                if !changed && !is_over(kind, &tree) {
                    return None;
                }
                meta::set_finalizers(&mut tree, finalizers);
                return Some(tree);
            }
        } else if let Some(generation) = tree["metadata"]["generation"]
            .as_i64()
            .filter(|generation| *generation > 0)
        {
            meta::set(&mut tree, "generation", Some((generation + 1).into()));
        }
        meta::set_finalizers(&mut tree, finalizers);
        let at = clock.wall() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        meta::set(&mut tree, "deletionTimestamp", Some(meta::rfc3339(at).into()));
        meta::set(&mut tree, "deletionGracePeriodSeconds", Some(grace.into()));
        if kind.is_core("namespaces") {
            tree["status"]["phase"] = "Terminating".into();
        }
        if definitions::is_definition(kind) {
            definitions::terminate(&mut tree, &meta::now(clock));
        }
        Some(tree)
    }

    /// Takes an object away and gives back what it had; `None` if somebody else wrote in between.
    pub(super) async fn remove_object(
        &self,
        place: &Place<'_>,
        guard: Revision,
        object: &Object,
    ) -> Result<Option<Revision>, Status> {
        let releases = Releases::of(self.planes(), place, object.tree(), None).await?;
        let charge = self
            .charge(place, Some(object.tree()), None, Overdraft::Allowed)
            .await?;
        let beside = releases.beside.and(charge.beside);
        let Some(revision) = place.remove(self.planes(), guard, beside).await? else {
            return Ok(None);
        };
        drop(charge.turn);
        releases.after.carry_out(self.planes()).await?;
        if definitions::is_definition(place.kind) {
            definitions::remove_objects(place.plane, object).await?;
            definitions::reconsider(self.planes(), place.plane, object).await?;
            self.recount_quotas_of(place.plane, object).await;
        }
        if let Some(custom) = place.kind.custom() {
            self.after_custom_removal(place.plane, &custom.definition).await?;
        }
        Ok(Some(revision))
    }
}

fn check_preconditions(kind: &Kind, current: &Stored, wanted: &Preconditions) -> Result<(), Status> {
    let refuse = |what: &str, wanted: &str, has: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {has}");
        Err(refusals::conflict(kind, current.object.name(), &why))
    };
    match &wanted.uid {
        Some(uid) if uid != current.object.uid() => return refuse("UID", uid, current.object.uid()),
        _ => {}
    }
    let revision = current.revision.to_string();
    match &wanted.resource_version {
        Some(version) if *version != revision => refuse("ResourceVersion", version, &revision),
        _ => Ok(()),
    }
}
