//! Resources that tenants' planes do not keep but see: computed on read from the super plane's objects (D7).
//!
//! Who registers a [`Projection`] decides which objects a plane sees and what of them. Reads (get, list, watch, in every form)
//! then go through the same code as those of stored resources, over a keyspace that shows the source's objects through the
//! plane's [`Lens`]. Updates are the lens's to take or, as is usual, to refuse; other writes are refused. Resource versions are
//! the source's, so that a list and the watch after it fit.

mod keyspace_seen;

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use api::{Object, Reason, Resource, Status};
use futures::future::BoxFuture;
use keyspace::Revision;

use crate::planes::Plane;
pub(crate) use keyspace_seen::Seen;

/// How tenants' planes see a resource of the super plane.
pub trait Projection: Send + Sync + 'static {
    /// The lens of a plane as it is now. A refusal is the request's answer.
    fn lens<'a>(&'a self, plane: &'a Plane) -> BoxFuture<'a, Result<Arc<dyn Lens>, Status>>;
}

/// How one plane sees the objects of a projected resource, until that changes.
pub trait Lens: Send + Sync + 'static {
    /// The object in stored form as the plane sees it, under the same name; `None` if it does not.
    fn show(&self, object: &Object) -> Option<Object>;

    /// What was read at an earlier revision of the source may have been seen through another lens, and does not go on.
    fn since(&self) -> Revision;

    /// Takes an update: from the returned revision of the source on, the plane sees `object` (of the source) as it is `wanted`.
    fn change<'a>(&'a self, _object: &'a Object, _wanted: &'a Object) -> BoxFuture<'a, Result<Revision, Status>> {
        let refusal = Status::new(
            Reason::MethodNotAllowed,
            "what is here shows the cluster underneath and can't be changed here",
        );
        Box::pin(async { Err(refusal) })
    }

    /// Ready when this lens does not hold any more; watches through it then end, so that their clients list anew.
    fn replaced(&self) -> BoxFuture<'static, ()>;
}

/// The projections of a server, by group and plural.
#[derive(Default)]
pub(crate) struct Projections(RwLock<HashMap<(String, String), Arc<dyn Projection>>>);

impl Projections {
    pub fn register(&self, resource: &Resource, projection: Arc<dyn Projection>) {
        let key = (resource.group.to_string(), resource.plural.to_string());
        self.0
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .insert(key, projection);
    }

    /// The projection of a resource in a plane: the super plane's own resources are what they are.
    pub fn find(&self, plane: &Plane, resource: &Resource) -> Option<Arc<dyn Projection>> {
        if plane.is_root() {
            return None;
        }
        let projections = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if projections.is_empty() {
            return None;
        }
        let key = (resource.group.to_string(), resource.plural.to_string());
        projections.get(&key).cloned()
    }
}
