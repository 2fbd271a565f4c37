//! Watches: what changed, as a stream of frames. Selectors turn transitions into additions and deletions; a watch that
//! can't go on ends with an `ERROR` event in the stream.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use api::{Object, PlaneId, Reason, Status, keys::Layout};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, future::BoxFuture, stream};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use keyspace::{Event, Options, Previous, Revision, Watch, WatchStream, Watched};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Kind, Registry, Stored,
    forms::Shown,
    list, objects,
    scan::{Ask, Item, Scan, Selectors},
};
use crate::{
    Body,
    context::Context,
    planes::{Plane, refuse},
    query::{Query, VersionMatch},
};

/// Without `timeoutSeconds` a watch lasts between this and twice as long (upstream's `--min-request-timeout`).
const WATCH_FOR_SECONDS: u64 = 1800;

/// Initial objects that are encoded at once; the stream waits for its reader between.
const INITIAL_AT_ONCE: usize = 64;

impl Registry {
    pub(super) async fn watch(&self, context: &Context, kind: &Kind) -> Result<Response<Body>, Status> {
        let world = self.planes().world();
        let selectors = Selectors::parse(kind, &context.query)?;
        let scan = Scan::of_plane(&context.plane, kind, context.info.namespace.as_deref());
        let frames = Frames {
            shown: Shown::new(kind, &context.form, &world.clock),
            view: View {
                kind: kind.clone(),
                layout: scan.layout,
                plane: Some(Arc::clone(&context.plane)),
                selectors,
            },
        };
        self.watch_scan(&scan, &context.query, frames).await
    }

    pub(super) async fn watch_scan(
        &self,
        scan: &Scan<'_>,
        query: &Query,
        frames: Frames,
    ) -> Result<Response<Body>, Status> {
        check(query)?;
        let world = self.planes().world();
        let mut initial = VecDeque::new();
        let mut end_of_initial = None;
        let wanted = list::revision(&query.resource_version)?;
        let with_state = match (query.send_initial_events, wanted) {
            (Some(with), _) => with,
            // As of old: no version, or "any", begins with what is there.
            (None, None | Some(Revision(0))) => true,
            (None, Some(_)) => false,
        };
        let from = match wanted {
            Some(wanted) if !with_state && wanted.0 > 0 => {
                initial.extend(born_since(scan, &frames.view, wanted));
                Some(wanted)
            }
            _ if with_state => {
                let ask = Ask {
                    selectors: frames.view.selectors.clone(),
                    ..Ask::everything()
                };
                let page = scan.page(ask).await?;
                if let Some(wanted) = wanted.filter(|wanted| *wanted > page.now) {
                    return Err(refuse(keyspace::Error::Future {
                        wanted,
                        current: page.now,
                    }));
                }
                initial.extend(page.items);
                if query.send_initial_events == Some(true) && query.allow_watch_bookmarks {
                    end_of_initial = Some(page.revision);
                }
                Some(page.revision)
            }
            _ => None,
        };
        let watch = Watch {
            keys: scan.keys(&frames.view.selectors),
            from: from.map(|from| Revision(from.0 + 1)),
            previous: Previous::Return,
        };
        let (source, failed) = match scan.keyspace.watch(watch, Options::default()).await {
            Ok(source) => (source, None),
            Err(error) => (stream::empty().boxed(), Some(refuse(error))),
        };
        let seconds = query.timeout_seconds.unwrap_or_else(|| {
            let mut random = [0; 2];
            world.random.fill(&mut random);
            WATCH_FOR_SECONDS + u64::from(u16::from_le_bytes(random)) % WATCH_FOR_SECONDS
        });
        let state = State {
            frames,
            source,
            initial,
            end_of_initial,
            failed,
            bookmarks: query.allow_watch_bookmarks,
            told: from.unwrap_or_default(),
            deadline: world.clock.sleep(Duration::from_secs(seconds)),
            stop: self.0.stop.clone(),
            ended: false,
        };
        let frames = stream::unfold(state, |mut state| async move {
            let bytes = state.next().await?;
            Some((Ok(Frame::data(bytes)), state))
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

/// What the plane got at birth after `since`: its template came with its record.
fn born_since(scan: &Scan<'_>, view: &View, since: Revision) -> Vec<Item> {
    let Some(plane) = scan.plane.filter(|plane| since < plane.revision) else {
        return Vec::new();
    };
    let keys = scan.keys(&view.selectors);
    scan.templates()
        .into_iter()
        .filter(|(key, _)| keys.contains(key.as_bytes()))
        .map(|(key, entry)| Item {
            key: key.into(),
            plane: None,
            stored: objects::rendered(entry, plane),
        })
        .filter(|item| view.selectors.matches(&item.stored.object))
        .collect()
}

/// Upstream's rules on which options go together.
fn check(query: &Query) -> Result<(), Status> {
    let forbidden = |field: &str, why: &str| {
        Err(Status::new(
            Reason::Invalid,
            format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {why}"),
        ))
    };
    match (query.send_initial_events, query.resource_version_match) {
        (Some(_), None) => forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (Some(_), Some(VersionMatch::Exact)) => forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (None, Some(_)) => forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        _ => Ok(()),
    }
}

/// How a watch's events are written.
pub(super) struct Frames {
    pub shown: Shown,
    pub view: View,
}

/// What a watcher sees of the keyspace.
pub(super) struct View {
    pub kind: Kind,
    pub layout: Layout,
    /// `None` for all planes: then frames name the plane, and what planes have by birth does not appear.
    pub plane: Option<Arc<Plane>>,
    pub selectors: Selectors,
}

/// One event as a watcher sees it.
struct Seen {
    kind: &'static str,
    plane: Option<PlaneId>,
    stored: Stored,
}

/// What was there before.
enum Before {
    Nothing,
    Object(Stored),
    /// Compaction has taken it.
    Unknown,
}

impl View {
    fn see(&self, event: Event) -> Option<Seen> {
        let revision = event.revision();
        let key = event.key().clone();
        let (now, before) = match event {
            Event::Put { kv, previous } => {
                let before = match previous {
                    Some(previous) => objects::stored(previous).map_or(Before::Nothing, Before::Object),
                    None if kv.version == 1 => self.at_birth(&key),
                    None => Before::Unknown,
                };
                (objects::stored(kv), before)
            }
            Event::Delete { previous, .. } => {
                let before = match previous {
                    Some(previous) => objects::stored(previous).map_or(Before::Nothing, Before::Object),
                    None => Before::Unknown,
                };
                (None, before)
            }
        };
        let seen = |kind, object| {
            let plane = match self.plane {
                Some(_) => None,
                None => Some(self.parse(&key)?.plane?),
            };
            let stored = Stored { object, revision };
            Some(Seen { kind, plane, stored })
        };
        let matches = |stored: &Stored| self.selectors.matches(&stored.object);
        match (before, now) {
            (Before::Nothing, None) => None,
            (Before::Nothing, Some(now)) => matches(&now).then(|| seen("ADDED", now.object))?,
            (Before::Object(before), None) => matches(&before).then(|| seen("DELETED", before.object))?,
            (Before::Object(before), Some(now)) => match (matches(&before), matches(&now)) {
                (true, true) => seen("MODIFIED", now.object),
                (false, true) => seen("ADDED", now.object),
                (true, false) => seen("DELETED", before.object),
                (false, false) => None,
            },
            // Told too much rather than too little: to delete what one does not have changes nothing.
            (Before::Unknown, Some(now)) => {
                let kind = if matches(&now) { "MODIFIED" } else { "DELETED" };
                seen(kind, now.object)
            }
            (Before::Unknown, None) => seen("DELETED", self.gravestone(&key)?),
        }
    }

    /// What was at a key before its first write.
    fn at_birth(&self, key: &[u8]) -> Before {
        let Some(plane) = self.plane.as_ref().filter(|plane| plane.is_templated()) else {
            return Before::Nothing;
        };
        if self.kind.custom().is_some() {
            return Before::Nothing;
        }
        let entry = self
            .parse(key)
            .and_then(|parsed| crate::template::find(self.kind.storage(), parsed.namespace, parsed.name));
        entry.map_or(Before::Nothing, |entry| Before::Object(objects::rendered(entry, plane)))
    }

    fn parse<'k>(&self, key: &'k [u8]) -> Option<api::keys::Parsed<'k>> {
        self.layout.parse(self.kind.storage(), self.kind.definition(), key)
    }

    /// All that is known of an object whose last state is lost.
    fn gravestone(&self, key: &[u8]) -> Option<Object> {
        let parsed = self.parse(key)?;
        let storage = self.kind.storage();
        let mut metadata = json!({"name": parsed.name});
        if let Some(namespace) = parsed.namespace {
            metadata["namespace"] = namespace.into();
        }
        Some(Object::from_tree(json!({
            "apiVersion": storage.api_version(), "kind": storage.kind, "metadata": metadata,
        })))
    }
}

/// What a frame has around its object, at most.
const FRAME_BYTES: usize = 96;

impl Frames {
    fn event(&self, out: &mut BytesMut, kind: &str, plane: Option<PlaneId>, object: &[u8]) {
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_bytes());
        if let Some(plane) = plane {
            out.put_slice(b"\",\"plane\":\"");
            out.put_slice(plane.as_str().as_bytes());
        }
        out.put_slice(b"\",\"object\":");
        out.put_slice(object);
        out.put_slice(b"}\n");
    }

    fn events(&self, events: Vec<Event>) -> Bytes {
        let mut out = BytesMut::new();
        for seen in events.into_iter().filter_map(|event| self.view.see(event)) {
            let object = self.shown.object(&seen.stored);
            out.reserve(object.len() + FRAME_BYTES);
            self.event(&mut out, seen.kind, seen.plane, &object);
        }
        out.freeze()
    }

    fn error(&self, status: &Status) -> Bytes {
        let mut out = BytesMut::new();
        self.event(&mut out, "ERROR", None, status.to_tree().to_string().as_bytes());
        out.freeze()
    }

    fn bookmark(&self, revision: Revision, initial: bool) -> Bytes {
        let annotations = initial.then(|| json!({"k8s.io/initial-events-end": "true"}));
        let mut out = BytesMut::new();
        self.event(&mut out, "BOOKMARK", None, &self.shown.bookmark(revision, annotations));
        out.freeze()
    }
}

/// A watch under way; each poll yields what is due next: the initial objects, their end, then what happens.
struct State {
    frames: Frames,
    source: WatchStream,
    initial: VecDeque<Item>,
    end_of_initial: Option<Revision>,
    failed: Option<Status>,
    bookmarks: bool,
    /// The last revision the watcher knows of.
    told: Revision,
    deadline: BoxFuture<'static, ()>,
    stop: CancellationToken,
    ended: bool,
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.initial.is_empty() {
            let mut out = BytesMut::new();
            for _ in 0..INITIAL_AT_ONCE {
                let Some(item) = self.initial.pop_front() else { break };
                let object = self.frames.shown.object(&item.stored);
                self.frames.event(&mut out, "ADDED", item.plane, &object);
            }
            return Some(out.freeze());
        }
        if let Some(status) = self.failed.take() {
            self.ended = true;
            return Some(self.frames.error(&status));
        }
        if let Some(revision) = self.end_of_initial.take() {
            return Some(self.frames.bookmark(revision, true));
        }
        loop {
            let watched = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                watched = self.source.next() => watched,
                () = &mut self.deadline => return None,
            };
            match watched {
                None => return None,
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(self.frames.error(&refuse(error)));
                }
                Some(Ok(Watched::Progress { revision })) => {
                    // The first one comes with the beginning of the watch and tells nothing new.
                    let news = revision > self.told && self.told.0 > 0;
                    self.told = self.told.max(revision);
                    if news && self.bookmarks {
                        return Some(self.frames.bookmark(revision, false));
                    }
                }
                Some(Ok(Watched::Events { revision, events })) => {
                    self.told = self.told.max(revision);
                    let bytes = self.frames.events(events);
                    if !bytes.is_empty() {
                        return Some(bytes);
                    }
                }
            }
        }
    }
}
