//! The service `etcdserverpb.Watch`: one stream with any number of watches. The answer's body *is* the session: nothing is
//! read from a watch before the client has room for it, so that a slow client costs a queue of references and no task.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, future::BoxFuture, stream::SelectAll, task::AtomicWaker};
use keyspace::{Delivered, Error, Event, KeyRange, Previous, Revision, Watch, Watching, index::Commit};
use prost::Message;

use super::{
    answers::key_value,
    auth::{self, Caller},
    grpc::{Messages, decode, put_framed, put_prefix},
    member::{Member, OVERHEAD_BYTES},
    read,
    status::{self, Status},
};
use crate::wire::{
    etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType, watch_request::RequestUnion,
    },
    mvccpb,
};

/// What is gathered before it is handed to HTTP: enough that a system call carries many events.
const GATHER_BYTES: usize = 64 << 10;

/// The id of answers that are about no watch.
const NO_WATCH: i64 = -1;

pub struct Session {
    member: Arc<Member>,
    caller: Caller,
    requests: Messages,
    requests_ended: bool,
    watches: SelectAll<Tagged>,
    by_id: HashMap<i64, Arc<Entry>>,
    next_id: i64,
    /// Watches that have not yet got to where they were when progress was asked for, and how far all others are.
    progress: Option<(BTreeSet<i64>, Revision)>,
    /// When watches that want it are told of progress.
    timer: Option<BoxFuture<'static, ()>>,
    out: BytesMut,
    end: Option<Status>,
    /// The alarm that is raised because of the end.
    alarm: Option<BoxFuture<'static, ()>>,
}

struct Entry {
    id: i64,
    keys: KeyRange,
    previous: Previous,
    /// What it was when the watch began: the event of that revision is told without what was before it, which is gone.
    compacted: Revision,
    puts: bool,
    deletes: bool,
    fragment: bool,
    progress_notify: bool,
    state: Mutex<State>,
    waker: AtomicWaker,
}

struct State {
    /// `None` once it is cancelled.
    watching: Option<Watching>,
    /// Something was sent since the last notification of progress.
    sent: bool,
    /// It was asked for progress for itself.
    asked: bool,
}

/// The stream of a watch with its entry.
struct Tagged(Arc<Entry>);

impl Entry {
    fn previous(&self, revision: Revision) -> Previous {
        match revision <= self.compacted {
            true => Previous::Omit,
            false => self.previous,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Tagged {
    type Item = (Arc<Entry>, Result<Delivered, Error>);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.state();
        let Some(watching) = &mut state.watching else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(watching).poll_next(context);
        drop(state);
        if polled.is_pending() {
            self.0.waker.register(context.waker());
        }
        polled.map(|item| item.map(|item| (self.0.clone(), item)))
    }
}

impl Session {
    pub fn new(member: Arc<Member>, caller: Caller, requests: Messages) -> Session {
        Session {
            member,
            caller,
            requests,
            requests_ended: false,
            watches: SelectAll::new(),
            by_id: HashMap::new(),
            next_id: 0,
            progress: None,
            timer: None,
            out: BytesMut::new(),
            end: None,
            alarm: None,
        }
    }

    fn tell(&mut self, response: &WatchResponse) {
        put_framed(&mut self.out, response);
    }

    fn hear(&mut self, message: Bytes) {
        match decode::<WatchRequest>(message).map(|request| request.request_union) {
            Ok(Some(RequestUnion::CreateRequest(request))) => self.create(request),
            Ok(Some(RequestUnion::CancelRequest(request))) => self.cancel(request.watch_id),
            Ok(Some(RequestUnion::ProgressRequest(_))) => self.request_progress(),
            Ok(None) => {}
            Err(status) => self.end = Some(status),
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let key = if request.key.is_empty() {
            Bytes::from_static(b"\0")
        } else {
            request.key
        };
        let keys = read::keys(key, request.range_end);
        let header = self.member.header();
        let mut response = WatchResponse {
            header: Some(header),
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            ..WatchResponse::default()
        };
        if let Err(status) = auth::reads(&self.member, &self.caller, &keys) {
            response.cancel_reason = status.text.into_owned();
            return self.tell(&response);
        }
        if request.start_revision < 0 {
            response.cancel_reason = status::COMPACTED.text.into_owned();
            return self.tell(&response);
        }
        if request.watch_id != 0 && self.by_id.contains_key(&request.watch_id) {
            response.cancel_reason = "mvcc: duplicate watch ID provided on the WatchStream".into();
            return self.tell(&response);
        }
        let watch = Watch {
            keys: keys.clone(),
            from: (request.start_revision > 0).then_some(Revision(request.start_revision as u64)),
            previous: if request.prev_kv {
                Previous::Return
            } else {
                Previous::Omit
            },
        };
        let previous = watch.previous;
        let view = self.member.view().clone();
        let compacted = view.read().compacted();
        let made = match view.watch_commits(watch) {
            Ok(made) => Ok(made),
            Err(Error::Compacted { oldest, .. }) => Err(oldest),
            Err(Error::Invalid(_)) => {
                response.cancel_reason = "mvcc: watcher range is empty".into();
                return self.tell(&response);
            }
            Err(error) => {
                self.end = Some(error.into());
                return;
            }
        };
        response.watch_id = self.new_id(request.watch_id);
        response.canceled = false;
        let (watching, current) = match made {
            Ok(made) => made,
            Err(oldest) => {
                // It is made first, and then can't be: clients wait for the first to believe the second.
                self.tell(&response);
                response.created = false;
                return self.tell_compacted(response, oldest);
            }
        };
        response.header = Some(self.member.header_at(current));
        self.tell(&response);
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        let entry = Arc::new(Entry {
            id: response.watch_id,
            keys,
            previous,
            compacted,
            puts: !has(FilterType::Noput),
            deletes: !has(FilterType::Nodelete),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            state: Mutex::new(State {
                watching: Some(watching),
                sent: false,
                asked: false,
            }),
            waker: AtomicWaker::new(),
        });
        if entry.progress_notify && self.timer.is_none() {
            self.timer = Some(self.pause());
        }
        self.member.metrics.watchers.add(1);
        self.by_id.insert(entry.id, entry.clone());
        self.watches.push(Tagged(entry));
    }

    fn new_id(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        let interval = self.member.options.progress_interval;
        // All streams of a client were opened at once; their notifications need not come at once.
        let mut byte = [0];
        self.member.world.random.fill(&mut byte);
        let jitter = interval / 10 * u32::from(byte[0]) / 256;
        self.member.world.clock.sleep(interval + jitter)
    }

    fn cancel(&mut self, id: i64) {
        // etcd says nothing of one that it doesn't know.
        if self.remove(id).is_some() {
            self.tell(&WatchResponse {
                header: Some(self.member.header()),
                watch_id: id,
                canceled: true,
                ..WatchResponse::default()
            });
        }
    }

    fn remove(&mut self, id: i64) -> Option<Arc<Entry>> {
        let entry = self.by_id.remove(&id)?;
        let watching = entry.state().watching.take();
        drop(watching);
        entry.waker.wake();
        self.member.metrics.watchers.add(-1);
        if let Some((waiting, _)) = &mut self.progress {
            waiting.remove(&id);
        }
        self.tell_progress();
        Some(entry)
    }

    fn tell_compacted(&mut self, response: WatchResponse, oldest: Revision) {
        self.tell(&WatchResponse {
            canceled: true,
            compact_revision: oldest.0 as i64,
            ..response
        });
    }

    /// Answered when every watch of the stream has told what happened before.
    fn request_progress(&mut self) {
        if self.by_id.is_empty() {
            return;
        }
        let mut reached = Revision(u64::MAX);
        for entry in self.by_id.values() {
            let asked = entry.state().watching.as_ref().and_then(Watching::request_progress);
            match asked {
                Some(revision) => reached = reached.min(revision),
                // One that begins later than now: etcd gives no answer then.
                None => return,
            }
        }
        self.progress = Some((self.by_id.keys().copied().collect(), reached));
    }

    fn tell_progress(&mut self) {
        if let Some((_, reached)) = self.progress.take_if(|(waiting, _)| waiting.is_empty()) {
            self.tell(&WatchResponse {
                header: Some(self.member.header_at(reached)),
                watch_id: NO_WATCH,
                ..WatchResponse::default()
            });
        }
    }

    fn notify(&mut self) {
        for entry in self.by_id.values().filter(|entry| entry.progress_notify) {
            let mut state = entry.state();
            if !std::mem::take(&mut state.sent) {
                state.asked = state.watching.as_ref().and_then(Watching::request_progress).is_some();
            }
        }
    }

    fn deliver(&mut self, entry: &Arc<Entry>, item: Result<Delivered, Error>) {
        match item {
            Ok(Delivered::Commit(commit)) => self.tell_commit(entry, &commit),
            Ok(Delivered::Progress(revision)) => self.reach(entry, revision),
            Err(Error::Compacted { .. } | Error::TooSlow) => {
                self.remove(entry.id);
                let oldest = self.member.view().read().compacted();
                let response = WatchResponse {
                    header: Some(self.member.header()),
                    watch_id: entry.id,
                    ..WatchResponse::default()
                };
                self.tell_compacted(response, oldest);
            }
            Err(error) => {
                let status = Status::from(error);
                let (member, found) = (self.member.clone(), Err::<(), _>(status.clone()));
                self.alarm = Some(Box::pin(async move { member.note(&found).await }));
                self.end = Some(status);
            }
        }
    }

    fn reach(&mut self, entry: &Arc<Entry>, revision: Revision) {
        if std::mem::take(&mut entry.state().asked) {
            self.tell(&WatchResponse {
                header: Some(self.member.header_at(revision)),
                watch_id: entry.id,
                ..WatchResponse::default()
            });
        }
        if let Some((waiting, reached)) = &mut self.progress
            && revision >= *reached
        {
            waiting.remove(&entry.id);
            self.tell_progress();
        }
    }

    fn tell_commit(&mut self, entry: &Entry, commit: &Commit) {
        let mut head = WatchResponse {
            header: Some(self.member.header_at(commit.revision)),
            watch_id: entry.id,
            ..WatchResponse::default()
        };
        let wanted = |event: &&Event| {
            let kind = match event {
                Event::Put { .. } => entry.puts,
                Event::Delete { .. } => entry.deletes,
            };
            kind && entry.keys.contains(event.key())
        };
        let count = commit.events.iter().filter(wanted).count();
        if count == 0 {
            return;
        }
        entry.state().sent = true;
        self.member.metrics.events.add(count as i64);
        let previous = entry.previous(commit.revision);
        if count == commit.events.len() {
            let events = commit.made(previous, || encode(commit.events.iter(), previous));
            let bytes = head.encoded_len() + events.len();
            if !self.is_fragmented(entry, count, bytes) {
                put_prefix(&mut self.out, bytes);
                head.encode_raw(&mut self.out);
                self.out.extend_from_slice(events);
                return;
            }
        }
        let events: Vec<_> = (commit.events.iter().filter(wanted))
            .map(|event| wire(event, previous))
            .collect();
        let bytes = head.encoded_len() + events.iter().map(event_bytes).sum::<usize>();
        if !self.is_fragmented(entry, count, bytes) {
            head.events = events;
            return self.tell(&head);
        }
        let most = self.member.options.request_bytes_max + OVERHEAD_BYTES;
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut part = head.clone();
            let mut bytes = part.encoded_len();
            while let Some(next) = events.next_if(|next| part.events.is_empty() || bytes + event_bytes(next) < most) {
                bytes += event_bytes(&next);
                part.events.push(next);
            }
            part.fragment = events.peek().is_some();
            self.tell(&part);
        }
    }

    fn is_fragmented(&self, entry: &Entry, events: usize, bytes: usize) -> bool {
        entry.fragment && events > 1 && bytes >= self.member.options.request_bytes_max + OVERHEAD_BYTES
    }
}

/// An event with the tag and length it has in a response.
fn event_bytes(event: &mvccpb::Event) -> usize {
    prost::encoding::message::encoded_len(11, event)
}

fn encode<'a>(events: impl Iterator<Item = &'a Event>, previous: Previous) -> Bytes {
    let mut out = BytesMut::new();
    for event in events {
        prost::encoding::message::encode(11, &wire(event, previous), &mut out);
    }
    out.freeze()
}

fn wire(event: &Event, wanted: Previous) -> mvccpb::Event {
    let (kind, kv, previous) = match event {
        Event::Put { kv, previous } => (mvccpb::event::EventType::Put, key_value(kv.clone()), previous),
        Event::Delete {
            key,
            revision,
            previous,
        } => {
            let kv = mvccpb::KeyValue {
                key: key.clone(),
                mod_revision: revision.0 as i64,
                ..mvccpb::KeyValue::default()
            };
            (mvccpb::event::EventType::Delete, kv, previous)
        }
    };
    let previous = previous.as_ref().filter(|_| wanted == Previous::Return);
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(kv),
        prev_kv: previous.cloned().map(key_value),
    }
}

impl Stream for Session {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let session = &mut *self;
        while !session.requests_ended && session.out.len() < GATHER_BYTES {
            match session.requests.poll_next(context) {
                Poll::Ready(Some(Ok(message))) => session.hear(message),
                Poll::Ready(Some(Err(status))) => {
                    session.requests_ended = true;
                    session.end = Some(status);
                }
                Poll::Ready(None) => session.requests_ended = true,
                Poll::Pending => break,
            }
        }
        if let Some(timer) = &mut session.timer
            && timer.as_mut().poll(context).is_ready()
        {
            session.notify();
            let mut timer = session.pause();
            if timer.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
            session.timer = Some(timer);
        }
        while session.out.len() < GATHER_BYTES && session.end.is_none() {
            match Pin::new(&mut session.watches).poll_next(context) {
                Poll::Ready(Some((entry, item))) => session.deliver(&entry, item),
                // None are left for now; whoever creates one is heard first.
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if !session.out.is_empty() {
            return Poll::Ready(Some(Ok(session.out.split().freeze())));
        }
        if let Some(alarm) = &mut session.alarm {
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            session.alarm = None;
        }
        if let Some(status) = session.end.take() {
            session.requests_ended = true;
            session.member.metrics.watchers.add(-(session.by_id.len() as i64));
            session.by_id.clear();
            session.watches.clear();
            return Poll::Ready(Some(Err(status)));
        }
        if session.requests_ended {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.member.metrics.watchers.add(-(self.by_id.len() as i64));
    }
}
