//! One source of an informer: lists, watches, and finds its way back.

use std::time::Duration;

use api::Object;
use futures::{Stream, StreamExt};
use world::World;

use crate::{
    Backoff, Error, Event, InformerOptions, Item, ListOptions, ObjectKey, Source, WatchOptions, collection::PAGE_ITEMS,
    informer::Shared,
};

/// The first attempt after a failure is soon, later ones spare a server that is down.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// A watch is renewed after five to ten minutes, as upstream's reflectors do, so that connections spread anew over
/// servers and a watch that died without a sign does not last.
const WATCH_SECONDS: std::ops::Range<u32> = 300..600;
/// How long after its own end a watch may still be silent before it counts as dead.
const WATCH_GRACE: Duration = Duration::from_secs(30);
/// A server that ignores `sendInitialEvents` is recognised by its silence.
const INITIAL_SILENCE: Duration = Duration::from_secs(60);
/// A watch that ends sooner than this and told nothing counts as a failure, lest it be reopened in a storm.
const WATCH_SHORTEST: Duration = Duration::from_secs(1);
/// A watch that lasted this long was well, though nothing happened.
const HEALTHY: Duration = Duration::from_secs(10);

pub(crate) struct Feed {
    pub(crate) source: Source,
    pub(crate) options: InformerOptions,
    pub(crate) shared: std::sync::Arc<Shared>,
    pub(crate) world: World,
}

/// Where to go on.
#[derive(Debug)]
enum Position {
    /// Nothing is known, or what was known is too old: everything anew, by one watch.
    Everything,
    /// The same, for servers that refuse `sendInitialEvents`.
    EverythingByList,
    /// All changes up to this revision have been told.
    After(String),
}

/// What a watch that came to its end had done.
struct Progress {
    /// Changes told, after everything was known.
    told: u64,
}

impl Feed {
    /// Runs until dropped.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST);
        let mut position = Position::Everything;
        let mut streams_lists = true;
        loop {
            let begun = self.world.clock.monotonic();
            let mut progress = Progress { told: 0 };
            let result = self.session(&mut position, &mut progress).await;
            let lasted = self.world.clock.monotonic().saturating_sub(begun);
            // A list alone is no sign of health: it may have to be repeated at once, and again.
            if progress.told > 0 || lasted >= HEALTHY {
                backoff.reset();
            }
            match result {
                Ok(()) if progress.told > 0 || lasted >= WATCH_SHORTEST => continue,
                Ok(()) => {}
                Err(Failure::NoInitialEvents) => {
                    streams_lists = false;
                    position = Position::EverythingByList;
                    continue;
                }
                Err(Failure::Request(error)) => {
                    self.shared.set_live(self.source.id(), false);
                    // Compacted: what is cached stays until the new list is whole, so that nothing seems deleted.
                    if error.is_gone() && matches!(position, Position::After(_)) {
                        position = if streams_lists {
                            Position::Everything
                        } else {
                            Position::EverythingByList
                        };
                    }
                    tracing::debug!(source = %self.source.id(), resource = %self.shared.resource.plural, %error, "watch interrupted");
                }
            }
            self.world.clock.sleep(backoff.next(&*self.world.random)).await;
        }
    }

    /// One watch, from `position` (which it moves on) to the watch's end.
    async fn session(&self, position: &mut Position, progress: &mut Progress) -> Result<(), Failure> {
        let seconds = self.watch_seconds();
        let (mut watch, listing) = match position {
            Position::Everything => (self.watch_everything(seconds).await?, true),
            Position::EverythingByList => {
                let revision = self.list().await?;
                *position = Position::After(revision.clone());
                (self.watch_after(revision, seconds).await?, false)
            }
            Position::After(revision) => (self.watch_after(revision.clone(), seconds).await?, false),
        };
        if listing {
            *position = Position::After(self.initial(&mut watch).await?);
        }
        self.shared.set_live(self.source.id(), true);
        let deadline = self
            .world
            .clock
            .sleep(Duration::from_secs(seconds.into()) + WATCH_GRACE);
        tokio::pin!(deadline);
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = &mut deadline => return Ok(()),
            };
            let Some(event) = event else { return Ok(()) };
            let revision = self.apply(event?);
            progress.told += 1;
            if !revision.is_empty() {
                *position = Position::After(revision);
            }
        }
    }

    fn watch_seconds(&self) -> u32 {
        let mut bytes = [0; 4];
        self.world.random.fill(&mut bytes);
        WATCH_SECONDS.start + u32::from_le_bytes(bytes) % (WATCH_SECONDS.end - WATCH_SECONDS.start)
    }

    fn watch_options(&self, seconds: u32) -> WatchOptions {
        WatchOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            metadata_only: self.options.metadata_only,
            timeout_seconds: Some(seconds),
            ..WatchOptions::default()
        }
    }

    async fn watch(&self, options: WatchOptions) -> Result<Events, Error> {
        let client = self.source.stream_client();
        let watch = client
            .watch(&self.shared.resource, self.options.namespace.as_deref(), &options)
            .await?;
        Ok(Box::pin(watch))
    }

    async fn watch_after(&self, revision: String, seconds: u32) -> Result<Events, Error> {
        let mut options = self.watch_options(seconds);
        options.resource_version = Some(revision);
        self.watch(options).await
    }

    async fn watch_everything(&self, seconds: u32) -> Result<Events, Failure> {
        let mut options = self.watch_options(seconds);
        options.send_initial_events = true;
        self.watch(options).await.map_err(initial_failure)
    }

    /// Reads the initial events into the cache; returns the revision that they were true at.
    async fn initial(&self, watch: &mut Events) -> Result<String, Failure> {
        let mut objects = std::collections::BTreeMap::new();
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = self.world.clock.sleep(INITIAL_SILENCE) => return Err(Failure::NoInitialEvents),
            };
            let Some(event) = event else {
                let source = "the watch ended before all initial events were sent".into();
                return Err(Failure::Request(Error::Transport { source }));
            };
            match event.map_err(initial_failure)? {
                Event::Bookmark {
                    resource_version,
                    initial_events_end: true,
                } => {
                    self.shared.replace(self.source.id(), objects.into_iter().collect());
                    return Ok(resource_version);
                }
                Event::Bookmark { .. } => {}
                Event::Added(item) | Event::Modified(item) => {
                    if let Some((key, object)) = self.keyed(item) {
                        objects.insert(key, object);
                    }
                }
                Event::Deleted(item) => {
                    if let Some((key, _)) = self.keyed(item) {
                        objects.remove(&key);
                    }
                }
            }
        }
    }

    /// Reads all pages into the cache; returns their revision. A list whose continuation expired begins anew.
    async fn list(&self) -> Result<String, Error> {
        let client = self.source.stream_client();
        let mut options = ListOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            metadata_only: self.options.metadata_only,
            limit: Some(PAGE_ITEMS),
            ..ListOptions::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = client
                .page(&self.shared.resource, self.options.namespace.as_deref(), &options)
                .await?;
            objects.extend(page.items.into_iter().filter_map(|item| self.keyed(item)));
            match page.continue_token {
                Some(token) => options.continue_token = Some(token),
                None => {
                    self.shared.replace(self.source.id(), objects);
                    return Ok(page.resource_version);
                }
            }
        }
    }

    /// Carries out one event; returns the revision it brings, if any.
    fn apply(&self, event: Event) -> String {
        match event {
            Event::Added(item) | Event::Modified(item) => {
                let revision = item.resource_version.to_string();
                if let Some((key, object)) = self.keyed(item) {
                    self.shared.put(key, object);
                }
                revision
            }
            Event::Deleted(item) => {
                let revision = item.resource_version.to_string();
                if let Some((key, object)) = self.keyed(item) {
                    self.shared.remove(key, object);
                }
                revision
            }
            Event::Bookmark { resource_version, .. } => resource_version,
        }
    }

    fn keyed(&self, item: Item) -> Option<(ObjectKey, Object)> {
        let plane = self.source.plane_key(item.plane)?;
        let name = match self.options.by_uid {
            true => item.object.uid(),
            false => &item.name,
        };
        Some((plane.object(&item.namespace, name), item.object))
    }
}

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

enum Failure {
    /// The server does not know `sendInitialEvents`.
    NoInitialEvents,
    Request(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Request(error)
    }
}

/// Upstream refuses `sendInitialEvents` with 422 where the feature is off, others with another word for "not so".
fn initial_failure(error: Error) -> Failure {
    match error.refusal().map(|refusal| refusal.code) {
        Some(400 | 405 | 406 | 415 | 422 | 501) => Failure::NoInitialEvents,
        _ => Failure::Request(error),
    }
}
