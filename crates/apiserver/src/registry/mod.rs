//! Carrying requests out: every verb, generic over the table of resources.
//!
//! [`handle`](Registry::handle) resolves the resource and hands over to a file a verb: [`create`], [`read`] (get),
//! [`list`], [`watch`], [`update`] (also patches and `status`), [`apply`], [`delete`]. What only some kinds have stands in a file
//! of its own: [`scale`], [`pods`] (binding, streams), [`eviction`], [`services`] (addresses), [`definitions`].

pub(crate) mod accepted_names;
mod all_planes;
mod apply;
mod body;
mod claims;
mod convert;
mod create;
pub mod definitions;
mod delete;
mod devices;
mod ending;
mod events;
mod eviction;
mod forms;
mod kind;
mod list;
pub mod meta;
mod objects;
mod owners;
mod patch;
mod pods;
mod projected;
mod read;
mod refusals;
mod scale;
pub(crate) mod scan;
mod schema;
pub(crate) mod services;
pub mod splice;
mod update;
mod watch;

use std::sync::{Arc, RwLock};

use api::{Object, Reason, Resource, Status};
use http::{Request, Response};
use keyspace::Revision;
use streaming::PodBackend;
use tokio_util::sync::CancellationToken;

pub use kind::Kind;
pub use objects::{Beside, Found, Place, Stored};
pub(crate) use refusals::{forbidden as refuse_forbidden, invalid as refuse_invalid};

use crate::{
    Body,
    admission::{BirthFinalizers, Turns},
    context::{Context, PlaneRef, Verb},
    http::Edge,
    planes::{ChangeClass, Plane, Planes},
    projection::Projections,
};
use events::Leases;

/// What carries requests out. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    planes: Planes,
    pod_backend: Arc<RwLock<Option<Arc<dyn PodBackend>>>>,
    edge: Arc<Edge>,
    stop: CancellationToken,
    leases: Leases,
    projections: Projections,
    quota_turns: Turns,
    birth_finalizers: BirthFinalizers,
}

impl Registry {
    pub(crate) fn new(
        planes: Planes,
        pod_backend: Arc<RwLock<Option<Arc<dyn PodBackend>>>>,
        edge: Arc<Edge>,
        stop: CancellationToken,
    ) -> Registry {
        Registry(Arc::new(Inner {
            planes,
            pod_backend,
            edge,
            stop,
            leases: Leases::default(),
            projections: Projections::default(),
            quota_turns: Turns::default(),
            birth_finalizers: BirthFinalizers::default(),
        }))
    }

    pub fn planes(&self) -> &Planes {
        &self.0.planes
    }

    pub(crate) fn quota_turns(&self) -> &Turns {
        &self.0.quota_turns
    }

    pub(crate) fn birth_finalizers(&self) -> &BirthFinalizers {
        &self.0.birth_finalizers
    }

    /// Lets every object of this resource that is made in the super plane have the finalizer from the start, so that whoever holds
    /// such objects by it has nothing to write first.
    pub fn hold_from_birth(&self, resource: &Resource, finalizer: &str) {
        self.0.birth_finalizers.add(resource, finalizer);
    }

    fn edge(&self) -> &Edge {
        &self.0.edge
    }

    fn pod_backend(&self) -> Option<Arc<dyn PodBackend>> {
        self.0
            .pod_backend
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// Carries out a request that was authenticated and authorized.
    pub async fn handle(&self, context: Context, request: Request<Body>) -> Result<Response<Body>, Status> {
        let info = &context.info;
        if info.plane == PlaneRef::All {
            return Box::pin(self.handle_all_planes(&context)).await;
        }
        let kind = self
            .kind(&context.plane, &info.group, &info.version, &info.resource)
            .await?
            .ok_or_else(refusals::unknown_resource)?;
        if !kind.is_namespaced() && info.namespace.is_some() {
            return Err(refusals::unknown_resource());
        }
        // A list or watch has a name only by its selector.
        let names_one = info.name.is_some() && !matches!(info.verb, Verb::List | Verb::Watch);
        if kind.is_namespaced() && info.namespace.is_none() && (names_one || info.verb == Verb::Create) {
            return Err(refusals::method_not_allowed());
        }
        if info.name.is_none() && matches!(info.verb, Verb::Update | Verb::Patch) {
            return Err(refusals::method_not_allowed());
        }
        let mut response = self.carry_out(&context, &kind, request).await?;
        if let Some(warning) = deprecation(&kind) {
            crate::http::respond::warn(response.headers_mut(), warning);
        }
        Ok(response)
    }

    async fn carry_out(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let info = &context.info;
        if let Some(projection) = self.projection(&context.plane, kind) {
            return Box::pin(self.handle_projected(context, kind, &*projection, request)).await;
        }
        if !info.subresource.is_empty() {
            return Box::pin(self.handle_subresource(context, kind, request)).await;
        }
        if kind.is_core("bindings") {
            return Box::pin(self.bind(context, kind, request)).await;
        }
        if !kind.info().is_stored() {
            return self.handle_not_stored(context, kind);
        }
        if !kind.info().has_verb(info.verb.as_str()) {
            return Err(refusals::method_not_allowed());
        }
        // Boxed, or each would take as much memory as the largest, and every future around it as well.
        match info.verb {
            Verb::Get => self.get(context, kind).await,
            Verb::List => Box::pin(self.list(context, kind)).await,
            Verb::Watch => Box::pin(self.watch(context, kind)).await,
            Verb::Create => Box::pin(self.create(context, kind, request)).await,
            // Lists are neither replaced nor patched.
            Verb::Update | Verb::Patch if context.info.name.is_none() => Err(refusals::method_not_allowed()),
            Verb::Update | Verb::Patch => Box::pin(self.modify(context, kind, request)).await,
            Verb::Delete => Box::pin(self.delete(context, kind, request)).await,
            Verb::DeleteCollection => Box::pin(self.delete_collection(context, kind, request)).await,
            Verb::NonResource(_) => Err(refusals::unknown_resource()),
        }
    }

    async fn handle_subresource(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let info = &context.info;
        let described = kind
            .info()
            .subresource(&info.subresource)
            .ok_or_else(refusals::unknown_resource)?;
        if !described.verbs.iter().any(|verb| verb == info.verb.as_str()) {
            return Err(refusals::method_not_allowed());
        }
        match (info.subresource.as_str(), &info.verb) {
            ("scale", _) => Box::pin(self.scale(context, kind, request)).await,
            // Discovery gives the log the kind of a Pod, so this comes first.
            ("log" | "exec" | "attach" | "portforward", _) if kind.is_core("pods") => {
                Box::pin(self.stream(context, kind, request)).await
            }
            (_, Verb::Get) if described.kind == kind.resource().kind => self.get(context, kind).await,
            (_, Verb::Update | Verb::Patch) if described.kind == kind.resource().kind => {
                Box::pin(self.modify(context, kind, request)).await
            }
            ("binding", Verb::Create) if kind.is_core("pods") => Box::pin(self.bind(context, kind, request)).await,
            ("eviction", Verb::Create) if kind.is_core("pods") => Box::pin(self.evict(context, kind, request)).await,
            (subresource, _) => Err(Status::new(
                Reason::NotFound,
                format!("{}/{subresource} is not served", kind.resource().plural),
            )),
        }
    }

    /// Built-in kinds of which nothing is kept.
    fn handle_not_stored(&self, context: &Context, kind: &Kind) -> Result<Response<Body>, Status> {
        match context.info.verb {
            // There are no components that could have a status: they are this process.
            Verb::List if kind.is_core("componentstatuses") => forms::empty_list(kind),
            Verb::Get if kind.is_core("componentstatuses") => Err(refusals::not_found(
                kind,
                context.info.name.as_deref().unwrap_or_default(),
            )),
            _ => Err(refusals::method_not_allowed()),
        }
    }

    /// A resource as that plane serves it; `None` if it does not.
    pub async fn kind(&self, plane: &Plane, group: &str, version: &str, plural: &str) -> Result<Option<Kind>, Status> {
        if let Some(info) = api::table::find(group, version, plural) {
            return Ok(Some(Kind::BuiltIn(info)));
        }
        // Custom groups have a dot in their name; what has none is no group of ours and costs no look-up.
        if !group.contains('.') {
            return Ok(None);
        }
        let custom = self.planes().custom_resources(plane).await?;
        Ok(custom.find(group, version, plural).cloned().map(Kind::Custom))
    }

    /// All objects of a resource, also those a plane has by birth, and the revision at which they were read.
    pub async fn list_objects(
        &self,
        plane: &Plane,
        resource: &Resource,
        namespace: Option<&str>,
    ) -> Result<(Revision, Vec<Object>), Status> {
        let kind = self
            .kind(plane, &resource.group, &resource.version, &resource.plural)
            .await?
            .ok_or_else(refusals::unknown_resource)?;
        let seen = match self.projection(plane, &kind) {
            Some(projection) => Some(self.seen(plane, &*projection).await?),
            None => None,
        };
        let scan = scan::Scan::of_plane(seen.as_ref().unwrap_or(plane), &kind, namespace);
        let page = scan.page(scan::Ask::everything()).await?;
        let objects = page.items.into_iter().map(|item| item.stored.object).collect();
        Ok((page.revision, objects))
    }

    /// A revision at or after the last change of that class in the plane; what was read at it or later still holds.
    pub fn last_change(&self, plane: &Plane, class: ChangeClass) -> Revision {
        self.planes().changes(plane).last(plane.id, class)
    }
}

/// What upstream says of kinds that are on their way out.
fn deprecation(kind: &Kind) -> Option<&'static str> {
    let resource = kind.resource();
    match (&*resource.group, &*resource.plural) {
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}
