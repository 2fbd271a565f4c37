//! The service `etcdserverpb.Watch`: one stream with any number of watches. The answer's body *is* the session: nothing is
//! read from a watch before the client has room for it, so that a slow client costs a queue of references and no task.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, future::BoxFuture};
use keyspace::{Delivered, Error, Event, KeyRange, Previous, Revision, Watch, Watching, index::Commit};
use prost::Message;

use super::{
    answers::key_value,
    auth::{self, Caller},
    grpc::{Messages, decode, put_framed, put_prefix},
    member::{Member, OVERHEAD_BYTES},
    read,
    ready::{One, Ready},
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
    watches: HashMap<i64, Entry>,
    ready: Arc<Ready>,
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
    watching: Watching,
    one: Arc<One>,
    waker: Waker,
    /// Something was sent since the last notification of progress.
    sent: bool,
    /// It was asked for progress for itself.
    asked: bool,
}

impl Entry {
    fn previous(&self, revision: Revision) -> Previous {
        match revision <= self.compacted {
            true => Previous::Omit,
            false => self.previous,
        }
    }
}

impl Session {
    pub fn new(member: Arc<Member>, caller: Caller, requests: Messages) -> Session {
        member.metrics.watch_streams.add(1);
        Session {
            member,
            caller,
            requests,
            requests_ended: false,
            watches: HashMap::new(),
            ready: Arc::default(),
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
        self.member.metrics.received(message.len());
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
        if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
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
        let one = One::new(response.watch_id, &self.ready);
        let entry = Entry {
            id: response.watch_id,
            keys,
            previous,
            compacted,
            puts: !has(FilterType::Noput),
            deletes: !has(FilterType::Nodelete),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            watching,
            waker: one.waker(),
            one,
            sent: false,
            asked: false,
        };
        if entry.progress_notify && self.timer.is_none() {
            self.timer = Some(self.pause());
        }
        self.member.metrics.watchers.add(1);
        self.watches.insert(entry.id, entry);
    }

    fn new_id(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.watches.contains_key(&self.next_id) {
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
        if self.remove(id) {
            self.tell(&WatchResponse {
                header: Some(self.member.header()),
                watch_id: id,
                canceled: true,
                ..WatchResponse::default()
            });
        }
    }

    fn remove(&mut self, id: i64) -> bool {
        if self.watches.remove(&id).is_none() {
            return false;
        }
        self.member.metrics.watchers.add(-1);
        if let Some((waiting, _)) = &mut self.progress {
            waiting.remove(&id);
        }
        self.tell_progress();
        true
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
        if self.watches.is_empty() {
            return;
        }
        let mut reached = Revision(u64::MAX);
        for entry in self.watches.values() {
            match entry.watching.request_progress() {
                Some(revision) => reached = reached.min(revision),
                // One that begins later than now: etcd gives no answer then.
                None => return,
            }
        }
        self.progress = Some((self.watches.keys().copied().collect(), reached));
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
        for entry in self.watches.values_mut().filter(|entry| entry.progress_notify) {
            if !std::mem::take(&mut entry.sent) {
                entry.asked = entry.watching.request_progress().is_some();
            }
        }
    }

    /// Lets the watch tell what it has, which is one thing at a time: the others have their turn in between.
    fn look_at(&mut self, id: i64) {
        // It may have been cancelled since it was ready.
        let Some(entry) = self.watches.get_mut(&id) else {
            return;
        };
        entry.one.taken();
        let polled = Pin::new(&mut entry.watching).poll_next(&mut Context::from_waker(&entry.waker));
        let Poll::Ready(Some(item)) = polled else {
            return;
        };
        entry.one.again();
        match item {
            Ok(Delivered::Commit(commit)) => self.tell_commit(id, &commit),
            Ok(Delivered::Progress(revision)) => self.reach(id, revision),
            Err(Error::Compacted { .. } | Error::TooSlow) => {
                self.remove(id);
                let oldest = self.member.view().read().compacted();
                let response = WatchResponse {
                    header: Some(self.member.header()),
                    watch_id: id,
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

    fn reach(&mut self, id: i64, revision: Revision) {
        let asked = (self.watches.get_mut(&id)).is_some_and(|entry| std::mem::take(&mut entry.asked));
        if asked {
            self.tell(&WatchResponse {
                header: Some(self.member.header_at(revision)),
                watch_id: id,
                ..WatchResponse::default()
            });
        }
        if let Some((waiting, reached)) = &mut self.progress
            && revision >= *reached
        {
            waiting.remove(&id);
            self.tell_progress();
        }
    }

    fn tell_commit(&mut self, id: i64, commit: &Commit) {
        let Some(entry) = self.watches.get_mut(&id) else {
            return;
        };
        let mut head = WatchResponse {
            header: Some(self.member.header_at(commit.revision)),
            watch_id: id,
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
        let most = self.member.options.request_bytes_max + OVERHEAD_BYTES;
        let is_fragmented = |bytes: usize| entry.fragment && count > 1 && bytes >= most;
        self.member.metrics.events.add(count as u64);
        let previous = entry.previous(commit.revision);
        if count == commit.events.len() {
            let events = commit.made(previous, || encode(commit.events.iter(), previous));
            let bytes = head.encoded_len() + events.len();
            if !is_fragmented(bytes) {
                entry.sent = true;
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
        let is_fragmented = is_fragmented(bytes);
        entry.sent = true;
        if !is_fragmented {
            head.events = events;
            return self.tell(&head);
        }
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
        session.ready.listen(context);
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
            match session.ready.next() {
                Some(id) => session.look_at(id),
                None => break,
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
            session.member.metrics.watchers.add(-(session.watches.len() as i64));
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
        self.member.metrics.watchers.add(-(self.watches.len() as i64));
        self.member.metrics.watch_streams.add(-1);
    }
}
