//! Planes that are shown other nodes than before, as controllers want to be told of it.

use client::{PlaneKey, SourceId};
use controllers::Reshown;
use futures::stream::{self, BoxStream, StreamExt};
use tenancy::nodes::NodeViews;
use tokio::sync::broadcast::error::RecvError;

/// Tells, each time from when it is called, of the planes of the shared keyspace.
pub fn reshown(views: &NodeViews, shared: &SourceId) -> impl Fn() -> BoxStream<'static, Reshown> + Send + Sync + use<> {
    let (changes, shared) = (views.changes(), shared.clone());
    move || {
        let shared = shared.clone();
        stream::unfold(changes(), move |mut changes| {
            let source = shared.clone();
            async move {
                match changes.recv().await {
                    Ok(plane) => Some((Reshown::To(PlaneKey { source, plane }), changes)),
                    Err(RecvError::Lagged(_)) => Some((Reshown::ToMany, changes)),
                    Err(RecvError::Closed) => None,
                }
            }
        })
        .boxed()
    }
}
