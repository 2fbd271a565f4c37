//! Requests for resources that a plane sees and does not keep.

use std::sync::Arc;

use api::{Resource, Status};
use http::{Request, Response};

use super::{Kind, Registry, refusals};
use crate::{
    Body,
    context::{Context, Verb},
    planes::Plane,
    projection::{Projection, Seen},
};

impl Registry {
    /// From now on all tenants' planes see the super plane's objects of that resource as `projection` has it.
    pub fn project(&self, resource: &Resource, projection: Arc<dyn Projection>) {
        self.0.projections.register(resource, projection);
    }

    pub(super) fn projection(&self, plane: &Plane, kind: &Kind) -> Option<Arc<dyn Projection>> {
        self.0.projections.find(plane, kind.storage())
    }

    pub(super) async fn handle_projected(
        &self,
        context: &Context,
        kind: &Kind,
        projection: &dyn Projection,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let info = &context.info;
        let plural = &kind.resource().plural;
        if !matches!(info.subresource.as_str(), "" | "status") {
            let name = info.name.as_deref().unwrap_or_default();
            let why = format!(
                "{plural}/{} of the cluster underneath can't be reached from here",
                info.subresource
            );
            return Err(refusals::forbidden(kind, name, &why));
        }
        let is_change = matches!(info.verb, Verb::Update | Verb::Patch);
        let may_be = info.verb.is_read() || is_change && info.subresource.is_empty();
        if !may_be || (info.subresource == "status" && info.verb != Verb::Get) {
            let mut refusal = refusals::method_not_allowed();
            refusal.message = format!("{plural} show the cluster underneath and can't be changed here");
            return Err(refusal);
        }
        let context = Context {
            plane: Arc::new(self.seen(&context.plane, projection).await?),
            ..context.clone()
        };
        match info.verb {
            Verb::List => self.list(&context, kind).await,
            Verb::Watch => self.watch(&context, kind).await,
            Verb::Update | Verb::Patch => self.modify(&context, kind, request).await,
            _ => self.get(&context, kind).await,
        }
    }

    /// The super plane as `plane` sees it.
    pub(super) async fn seen(&self, plane: &Plane, projection: &dyn Projection) -> Result<Plane, Status> {
        let lens = projection.lens(plane).await?;
        let root = self.planes().root().await?;
        let seen = Arc::new(Seen {
            source: Arc::clone(&root.keyspace),
            lens,
        });
        Ok(Plane {
            id: root.id,
            record: root.record.clone(),
            revision: root.revision,
            keyspace: seen.clone(),
            layout: root.layout,
            seen: Some(seen),
        })
    }
}
