//! One source into one informer's cache: everything first, then changes; resumed where it broke off.

use std::{sync::Arc, time::Duration};

use api::Object;
use futures::StreamExt;
use world::World;

use crate::{Backoff, Client, Error, Event, Item, ListOptions, ObjectKey, Source, WatchOptions, informer::Held};

const RETRY_FIRST: Duration = Duration::from_millis(50);

/// client-go's reflectors go to 30 s.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// What the next step does.
enum State {
    /// Take everything anew, by a watch that begins with all there is (`WatchList`).
    WatchList,
    /// The same for a server that knows no `WatchList`.
    List,
    /// Go on after this revision.
    Resume(String),
}

/// Runs until dropped.
pub(crate) async fn run(source: Source, held: Arc<Held>, world: World) {
    let feed = Feed {
        client: source.stream_client(),
        source,
        held,
    };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    let mut state = State::WatchList;
    loop {
        let mut progress = Progress { resume: None };
        let ended = feed.step(state, &mut progress).await;
        state = match (progress.resume, &ended) {
            (_, Err(error)) if error.is_gone() => State::WatchList,
            // No `WatchList` here (upstream before 1.32, or switched off): refused with a 4xx.
            (None, Err(Error::Api(refusal))) if matches!(refusal.code, 400 | 422) => State::List,
            (Some(revision), _) => {
                backoff.reset();
                State::Resume(revision)
            }
            (None, _) => State::WatchList,
        };
        match ended {
            // The server ends watches from time to time: no failure, but never a tight loop.
            Ok(()) => world.clock.sleep(RETRY_FIRST).await,
            Err(error) => {
                let delay = backoff.next(&*world.random);
                tracing::debug!(source = %feed.source.id(), resource = %feed.held.resource.plural, %error, ?delay, "a watch broke off");
                world.clock.sleep(delay).await;
            }
        }
    }
}

/// How far a step came.
struct Progress {
    resume: Option<String>,
}

struct Feed {
    client: Client,
    source: Source,
    held: Arc<Held>,
}

impl Feed {
    async fn step(&self, state: State, progress: &mut Progress) -> Result<(), Error> {
        let options = &self.held.options;
        let mut watch = WatchOptions {
            label_selector: options.label_selector.clone(),
            field_selector: options.field_selector.clone(),
            metadata_only: options.metadata_only,
            ..WatchOptions::default()
        };
        let mut gathering = None;
        match state {
            State::WatchList => {
                watch.send_initial_events = true;
                gathering = Some(Vec::new());
            }
            State::List => {
                let revision = self.list().await?;
                progress.resume = Some(revision.clone());
                watch.resource_version = Some(revision);
            }
            State::Resume(revision) => {
                progress.resume = Some(revision.clone());
                watch.resource_version = Some(revision);
            }
        }
        let mut events = self.client.watch(&self.held.resource, None, &watch).await?;
        while let Some(event) = events.next().await {
            match event? {
                Event::Added(item) | Event::Modified(item) => {
                    let revision = item.resource_version.to_string();
                    let Some((key, object)) = self.entry(item) else {
                        continue;
                    };
                    match &mut gathering {
                        Some(gathered) => gathered.push((key, object)),
                        None => {
                            self.held.set(key, Some(object), None);
                            progress.resume = Some(revision);
                        }
                    }
                }
                Event::Deleted(item) => {
                    let revision = item.resource_version.to_string();
                    let Some((key, object)) = self.entry(item) else {
                        continue;
                    };
                    match &mut gathering {
                        // Of the beginning nothing is deleted; what follows it comes after the bookmark.
                        Some(gathered) => gathered.retain(|(known, _)| *known != key),
                        None => {
                            self.held.set(key, None, Some(&object));
                            progress.resume = Some(revision);
                        }
                    }
                }
                Event::Bookmark {
                    resource_version,
                    initial_events_end,
                } => {
                    if initial_events_end && let Some(gathered) = gathering.take() {
                        self.held.replace(self.source.id(), gathered);
                    }
                    if gathering.is_none() && !resource_version.is_empty() {
                        progress.resume = Some(resource_version);
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything, page by page; returns the revision to watch from.
    async fn list(&self) -> Result<String, Error> {
        let informer = &self.held.options;
        let mut options = ListOptions {
            label_selector: informer.label_selector.clone(),
            field_selector: informer.field_selector.clone(),
            metadata_only: informer.metadata_only,
            limit: Some(crate::client::PAGE_ITEMS),
            ..ListOptions::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = self.client.page(&self.held.resource, None, &options).await?;
            for item in page.items {
                objects.extend(self.entry(item));
            }
            match page.continue_token {
                Some(token) => options.continue_token = Some(token),
                None => {
                    self.held.replace(self.source.id(), objects);
                    return Ok(page.resource_version);
                }
            }
        }
    }

    fn entry(&self, item: Item) -> Option<(ObjectKey, Object)> {
        let plane = self.source.plane_key(item.plane)?;
        Some((plane.object(&item.namespace, &item.name), item.object))
    }
}
