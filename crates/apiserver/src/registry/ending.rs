//! The end of a definition: its objects go first, each as if it were deleted by itself, and it waits for those that have
//! finalizers. Whoever takes the last of them away takes the definition away too.
//!
//! A process that ends in between leaves a definition that says `Terminating`; to delete it again goes on from there, as the
//! controllers do when they start.

use api::Status;
use futures::future::BoxFuture;

use super::{
    Kind, Place, Registry, Stored, definitions,
    delete::{DeleteOptions, Deleted},
    meta,
    objects::Beside,
    refusals,
    scan::Selectors,
    update::is_over,
};
use crate::{context::Context, planes::Plane};

/// As for updates.
const TRIES: usize = 100;

impl Registry {
    /// Goes on with the deletion of a definition that is marked.
    pub(super) fn end_definition<'a>(
        &'a self,
        context: &'a Context,
        kind: &'a Kind,
        definition: Stored,
    ) -> BoxFuture<'a, Result<Deleted, Status>> {
        Box::pin(async move {
            let plane = &*context.plane;
            let custom = self.planes().custom_resources(plane).await?;
            if let Some(custom) = custom.of_definition(definition.object.uid()) {
                let objects = Kind::Custom(custom.clone());
                let (all, options) = (Selectors::default(), DeleteOptions::default());
                self.delete_all(context, &objects, None, &all, &options).await?;
            }
            self.finish_definition(plane, definition.object.name()).await?;
            let place = Place {
                plane,
                kind,
                namespace: None,
                name: definition.object.name(),
            };
            Ok(match place.read().await?.stored {
                Some(stored) if stored.object.uid() == definition.object.uid() => Deleted::Pending(stored),
                _ => Deleted::Gone(definition),
            })
        })
    }

    /// An object was taken away: perhaps the last that its definition waits for.
    pub(super) async fn after_custom_removal(&self, plane: &Plane, definition: &str) -> Result<(), Status> {
        // Not as of the request's beginning: the definition may have been deleted since.
        let custom = self.planes().custom_resources(plane).await?;
        match custom.of_definition(definition).filter(|custom| custom.terminating) {
            Some(custom) => self.finish_definition(plane, custom.object.name()).await,
            None => Ok(()),
        }
    }

    /// An object was made while its definition went: it goes too.
    pub(super) async fn after_custom_creation(&self, place: &Place<'_>, made: &Stored) -> Result<(), Status> {
        let Some(custom) = place.kind.custom() else {
            return Ok(());
        };
        let served = self.planes().custom_resources(place.plane).await?;
        if served.of_definition(&custom.definition).is_some() {
            return Ok(());
        }
        self.remove_object(place, made.revision, &made.object).await?;
        Err(refusals::unknown_resource())
    }

    /// Takes a definition that is being deleted away, if nothing of it is left.
    fn finish_definition<'a>(&'a self, plane: &'a Plane, name: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let kind = definitions::kind();
            let place = Place {
                plane,
                kind: &kind,
                namespace: None,
                name,
            };
            for _ in 0..TRIES {
                let found = place.read().await?;
                let Some(current) = found.stored.filter(|stored| stored.object.is_deleting()) else {
                    return Ok(());
                };
                let mut tree = current.object.tree().clone();
                let mut finalizers = meta::finalizers(&tree);
                finalizers.retain(|has| has != definitions::CLEANUP);
                if finalizers == meta::finalizers(&tree) || definitions::has_objects(plane, &current.object).await? {
                    return Ok(());
                }
                meta::set_finalizers(&mut tree, finalizers);
                let object = api::Object::from_tree(tree);
                if is_over(&kind, object.tree()) {
                    if self.remove_object(&place, found.guard, &object).await?.is_some() {
                        return Ok(());
                    }
                } else {
                    let kept = place.put(self.planes(), found.guard, &object, None, Beside::default());
                    if kept.await?.is_some() {
                        return Ok(());
                    }
                }
            }
            Err(refusals::conflict(&kind, name, refusals::MODIFIED))
        })
    }
}
