//! Create.

use api::{Object, Status, strategy, validate};
use http::{Request, Response, StatusCode};
use keyspace::Revision;
use serde_json::Value;

use super::{
    Kind, Place, Registry, Stored, body, convert, definitions, forms, meta,
    owners::{self, Noted},
    refusals::{self, bad_request},
    schema, services,
};
use crate::{
    Body,
    admission::{self, Attempt, Operation, Overdraft},
    authz::escalation,
    context::Context,
};

/// How many names are generated before a collision is told (upstream's `maxNameGenerationCreateAttempts`).
const NAME_TRIES: usize = 8;

/// As for updates: each round somebody else's write has succeeded.
const WRITE_TRIES: usize = 100;

/// What was made, and what its maker is to be warned of.
pub(super) struct Created {
    pub stored: Stored,
    pub warnings: Vec<String>,
}

/// What became of a creation.
enum Made {
    New(Created),
    Taken { by_one_that_goes: bool },
}

impl Registry {
    pub(super) async fn create(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        owners::check_options(context, None)?;
        let mut read = body::object(kind, &body::bytes(request).await?, context.query.field_validation)?;
        read.warnings.extend(definitions::warnings(kind, &read.tree));
        let created = self
            .create_object(context, kind, read.tree, Noted::creation(context, kind))
            .await?;
        let shown = forms::Shown::new(kind, &context.form, &self.planes().world().clock);
        let warnings = [read.warnings, created.warnings].concat();
        Ok(forms::answer(
            StatusCode::CREATED,
            shown.object(&created.stored),
            &warnings,
        ))
    }

    /// Creates an object that was decoded in its served version.
    pub(super) async fn create_object(
        &self,
        context: &Context,
        kind: &Kind,
        mut tree: Value,
        noted: Noted,
    ) -> Result<Created, Status> {
        let world = self.planes().world();
        if kind.custom().is_some_and(|custom| custom.terminating) {
            let mut refusal = refusals::method_not_allowed();
            "create not allowed while custom resource definition is terminating".clone_into(&mut refusal.message);
            return Err(refusal);
        }
        check_namespace(context, kind, &mut tree)?;
        if !meta::text(&tree, "resourceVersion").is_empty() {
            return Err(bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        default(kind, &mut tree);
        match noted {
            Noted::Update => {
                let family = self.family(&context.plane, kind).await?;
                self.write_of(context, &family, |write| write.created(&mut tree));
            }
            Noted::Never => meta::set(&mut tree, "managedFields", None),
            Noted::UpdateOfAll | Noted::Already => {}
        }
        // They take no part in what follows, and are as large as the rest.
        let owners = meta::take(&mut tree, "managedFields");
        convert::to_storage(kind, &mut tree);
        meta::strip_on_write(&mut tree);
        meta::set(&mut tree, "uid", Some(meta::random_uid(&*world.random).into()));
        meta::set(&mut tree, "creationTimestamp", Some(meta::now(&*world.clock).into()));
        let base = meta::text(&tree, "generateName").to_owned();
        let generated = meta::text(&tree, "name").is_empty() && !base.is_empty();
        for attempt in 1.. {
            let mut tree = tree.clone();
            if generated {
                let name = meta::generate_name(&base, &*world.random);
                meta::set(&mut tree, "name", Some(name.into()));
            }
            let name = meta::text(&tree, "name").to_owned();
            match self.create_named(context, kind, &name, tree, owners.as_ref()).await? {
                Made::New(created) => return Ok(created),
                Made::Taken { .. } if generated && attempt < NAME_TRIES => {}
                Made::Taken { by_one_that_goes } => {
                    let mut refusal = refusals::already_exists(kind, &name);
                    if by_one_that_goes {
                        refusal.message = format!("object is being deleted: {}", refusal.message);
                    }
                    return Err(refusal);
                }
            }
        }
        unreachable!("the loop ends by its own count")
    }

    async fn create_named(
        &self,
        context: &Context,
        kind: &Kind,
        name: &str,
        mut tree: Value,
        owners: Option<&Value>,
    ) -> Result<Made, Status> {
        let place = Place {
            plane: &context.plane,
            kind,
            namespace: context.info.namespace.as_deref(),
            name,
        };
        let attempt = Attempt {
            registry: self,
            place,
            operation: Operation::Create,
        };
        let warnings = admission::mutate(&attempt, &mut tree).await?;
        strategy::prepare_create(&kind.storage_info(), &mut tree);
        if kind.is_core("services") {
            services::complete(&mut tree);
        }
        refuse_invalid(kind, &tree, validate::create(kind.storage(), &tree))?;
        if definitions::is_definition(kind) {
            definitions::prepare(self.planes(), &context.plane, &mut tree, None).await?;
        }
        for _ in 0..WRITE_TRIES {
            let found = place.read().await?;
            if let Some(stored) = &found.stored {
                return Ok(Made::Taken {
                    by_one_that_goes: stored.object.is_deleting(),
                });
            }
            if context.dry_run() {
                meta::set(&mut tree, "managedFields", owners.cloned());
                let object = Object::from_tree(tree);
                escalation::check(&self.edge().authorizer, self.planes(), context, None, &object).await?;
                self.charge(&place, None, Some(object.tree()), Overdraft::Refused)
                    .await?;
                let stored = Stored {
                    object,
                    revision: Revision(0),
                };
                return Ok(Made::New(Created { stored, warnings }));
            }
            if let Some(stored) = self
                .write_new(context, &place, found.guard, tree.clone(), owners)
                .await?
            {
                if kind.is_core("resourcequotas") {
                    self.settle_quota(&place).await;
                }
                return Ok(Made::New(Created { stored, warnings }));
            }
        }
        Err(refusals::conflict(kind, name, refusals::MODIFIED))
    }

    /// `None` if something changed meanwhile: the place, or what is claimed or charged with it.
    async fn write_new(
        &self,
        context: &Context,
        place: &Place<'_>,
        guard: Revision,
        mut tree: Value,
        owners: Option<&Value>,
    ) -> Result<Option<Stored>, Status> {
        meta::set(&mut tree, "managedFields", owners.cloned());
        let object = Object::from_tree(tree);
        let (object, claims) = services::allocate(self.planes(), place, object, None).await?;
        let outcome = async {
            escalation::check(&self.edge().authorizer, self.planes(), context, None, &object).await?;
            let charge = self
                .charge(place, None, Some(object.tree()), Overdraft::Refused)
                .await?;
            let lease = self.lease(place).await?;
            let beside = claims.beside().and(charge.beside);
            place.put(self.planes(), guard, &object, lease, beside).await
        };
        match outcome.await {
            Ok(Some(revision)) => {
                let stored = Stored { object, revision };
                self.after_custom_creation(place, &stored).await?;
                Ok(Some(stored))
            }
            refused => {
                claims.give_back(self.planes()).await;
                refused.map(|_| None)
            }
        }
    }
}

/// Fills in defaults of an object in its served version.
pub(super) fn default(kind: &Kind, tree: &mut Value) {
    match kind {
        Kind::BuiltIn(info) => api::default::apply(&info.resource, tree),
        Kind::Custom(custom) => schema::default(custom, tree),
    }
}

/// Puts the request's namespace into the object, or refuses another one.
pub(super) fn check_namespace(context: &Context, kind: &Kind, tree: &mut Value) -> Result<(), Status> {
    let Some(wanted) = context.info.namespace.as_deref() else {
        if !kind.is_namespaced() && meta::text(tree, "namespace").is_empty() {
            meta::set(tree, "namespace", None);
        }
        return Ok(());
    };
    match meta::text(tree, "namespace") {
        "" => {
            meta::set(tree, "namespace", Some(wanted.into()));
            Ok(())
        }
        given if given == wanted => Ok(()),
        given => Err(bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {given} != {wanted}"
        ))),
    }
}

/// Upstream's 422, if there is anything to refuse; what a schema refuses included.
pub(super) fn refuse_invalid(kind: &Kind, tree: &Value, mut causes: Vec<api::status::Cause>) -> Result<(), Status> {
    if let Kind::Custom(custom) = kind {
        causes.extend(schema::validate(custom, tree));
    }
    match validate::refusal(kind.info(), tree, causes) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}
