//! Get.

use api::Status;
use http::{Response, StatusCode};

use super::{Kind, Place, Registry, forms, list, refusals};
use crate::{Body, context::Context, planes::refuse};

impl Registry {
    pub(super) async fn get(&self, context: &Context, kind: &Kind) -> Result<Response<Body>, Status> {
        let place = place(context, kind);
        let found = place.read().await?;
        if let Some(wanted) = list::revision(&context.query.resource_version)?.filter(|wanted| *wanted > found.now) {
            return Err(refuse(keyspace::Error::Future {
                wanted,
                current: found.now,
            }));
        }
        let stored = found.stored.ok_or_else(|| refusals::not_found(kind, place.name))?;
        let shown = forms::Shown::new(kind, &context.form, &self.planes().world().clock);
        Ok(forms::answer(StatusCode::OK, shown.object(&stored), &[]))
    }
}

/// The object that a request names.
pub(super) fn place<'a>(context: &'a Context, kind: &'a Kind) -> Place<'a> {
    Place {
        plane: &context.plane,
        kind,
        namespace: context.info.namespace.as_deref(),
        name: context.info.name.as_deref().unwrap_or_default(),
    }
}
