//! Follows a selection of one plane's objects: everything there is, then every change, for as long as the returned
//! future is polled. Narrow enough for the Node authorizer (one object by name, Pods by node), which informers over
//! whole resources are not.

use std::time::Duration;

use api::{Object, Resource};
use client::{Backoff, Client, Error, Event, ListOptions, WatchOptions};
use futures::StreamExt;
use world::World;

/// What has become known.
#[derive(Debug)]
pub enum Delta {
    /// All that is selected; whatever was known before and is not in it is gone.
    All(Vec<Object>),
    Set(Object),
    Gone(Object),
}

#[derive(Clone, Debug)]
pub struct Selection {
    pub resource: Resource,
    pub namespace: Option<String>,
    pub fields: Option<String>,
}

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Calls `tell` for each delta, in order; never ends by itself.
pub async fn follow(client: Client, selection: Selection, world: World, mut tell: impl FnMut(Delta) + Send) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    loop {
        let problem = match list(&client, &selection).await {
            Ok((objects, mut revision)) => {
                tell(Delta::All(objects));
                loop {
                    match watch(&client, &selection, &mut revision, &mut backoff, &mut tell).await {
                        // Servers end watches as a matter of course.
                        Ok(()) => {}
                        Err(error) if error.is_gone() => break None,
                        Err(error) => {
                            let delay = backoff.next(&*world.random);
                            tracing::debug!(resource = %selection.resource.plural, %error, "a watch broke");
                            world.clock.sleep(delay).await;
                        }
                    }
                }
            }
            Err(error) => Some(error),
        };
        if let Some(error) = problem {
            tracing::debug!(resource = %selection.resource.plural, %error, "a list failed");
            world.clock.sleep(backoff.next(&*world.random)).await;
        }
    }
}

async fn list(client: &Client, selection: &Selection) -> Result<(Vec<Object>, String), Error> {
    let options = ListOptions {
        field_selector: selection.fields.clone(),
        ..ListOptions::default()
    };
    let list = client
        .list_all(&selection.resource, selection.namespace.as_deref(), &options)
        .await?;
    Ok((list.items, list.resource_version))
}

async fn watch(
    client: &Client,
    selection: &Selection,
    revision: &mut String,
    backoff: &mut Backoff,
    tell: &mut (impl FnMut(Delta) + Send),
) -> Result<(), Error> {
    let options = WatchOptions {
        field_selector: selection.fields.clone(),
        resource_version: Some(revision.clone()),
        ..WatchOptions::default()
    };
    let mut stream = client
        .watch(&selection.resource, selection.namespace.as_deref(), &options)
        .await?;
    while let Some(event) = stream.next().await {
        match event? {
            Event::Added(item) | Event::Modified(item) => {
                *revision = item.resource_version.to_string();
                tell(Delta::Set(item.object));
            }
            Event::Deleted(item) => {
                *revision = item.resource_version.to_string();
                tell(Delta::Gone(item.object));
            }
            Event::Bookmark { resource_version, .. } => *revision = resource_version,
        }
        backoff.reset();
    }
    Ok(())
}
