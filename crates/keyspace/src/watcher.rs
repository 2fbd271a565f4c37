//! One watch: a bounded queue that commits are put into, and a stream that takes them out. No task.
//!
//! A watcher that doesn't keep up loses its queue's end, not its place: it goes back to the history of the index
//! ([`Mode::Behind`]) and is done for ([`Error::TooSlow`]) only when compaction has taken that too.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::Stream;

use crate::{
    Error, Event, KeyRange, Previous, Result, Revision, Watch, Watched,
    index::{Commit, Look, Looked},
    view::View,
};

/// Commits are shared with the history, so that this many cost little until compaction gives the history up.
pub const QUEUE_COMMITS_MAX: usize = 1024;

/// What one slow watcher may keep alive after compaction.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;

/// What a watcher looks through of the history before it lets others have a turn.
const CATCH_UP_COMMITS: usize = 1000;

pub(crate) struct Watcher {
    watch: Watch,
    state: Mutex<State>,
}

struct State {
    mode: Mode,
    queue: VecDeque<Delivered>,
    queue_bytes: usize,
    /// Commits before it are not for this watcher.
    next: Revision,
    /// The first progress was not yet told.
    begins: bool,
    progress_wanted: bool,
    waker: Option<Waker>,
}

enum Mode {
    /// Commits are offered to the queue.
    Live,
    /// After the queue, read the history from here on.
    Behind(Revision),
    Ended(Error),
}

/// What a watch is given, before anything is made of it.
#[derive(Debug)]
pub enum Delivered {
    /// Some of its events are for the watch.
    Commit(Arc<Commit>),
    /// As [`Watched::Progress`].
    Progress(Revision),
}

impl Watcher {
    /// `current` is the keyspace's revision; history is read from `from` if that is not ahead of it.
    pub fn new(watch: Watch, current: Revision) -> Watcher {
        // Nothing happened at revision 0, which is etcd's word for "not given".
        let next = watch.from.unwrap_or(Revision(current.0 + 1)).max(Revision(1));
        let mode = if next > current { Mode::Live } else { Mode::Behind(next) };
        Watcher {
            watch,
            state: Mutex::new(State {
                mode,
                queue: VecDeque::new(),
                queue_bytes: 0,
                next,
                begins: true,
                progress_wanted: false,
                waker: None,
            }),
        }
        .begun(current)
    }

    fn begun(self, current: Revision) -> Watcher {
        self.reached(current);
        self
    }

    pub fn keys(&self) -> &KeyRange {
        &self.watch.keys
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn waits_to_begin(&self) -> bool {
        self.state().begins
    }

    /// The first progress is told when the revision that the watch begins after is there.
    pub fn reached(&self, current: Revision) {
        let mut state = self.state();
        if state.begins && state.next.0 <= current.0 + 1 {
            state.begins = false;
            // Nothing can have been queued before: commits before `next` are not taken.
            let after = state.before_next();
            state.queue.push_front(Delivered::Progress(after));
            state.wake();
        }
    }

    pub fn offer(&self, commit: &Arc<Commit>) {
        let mut state = self.state();
        if !matches!(state.mode, Mode::Live) || commit.revision < state.next {
            return;
        }
        if state.begins {
            state.begins = false;
            let after = state.before_next();
            state.queue.push_back(Delivered::Progress(after));
        }
        if state.queue.len() >= QUEUE_COMMITS_MAX || state.queue_bytes >= QUEUE_BYTES_MAX {
            state.mode = Mode::Behind(commit.revision);
            return;
        }
        state.next = Revision(commit.revision.0 + 1);
        state.queue_bytes += commit.bytes;
        state.queue.push_back(Delivered::Commit(commit.clone()));
        state.wake();
    }

    pub fn offer_progress(&self, revision: Revision) {
        let mut state = self.state();
        match state.mode {
            Mode::Ended(_) => {}
            Mode::Behind(_) => state.progress_wanted = true,
            // What the watcher has not begun with, it can't have got to.
            Mode::Live if state.begins => {}
            Mode::Live => {
                let revision = revision.max(state.before_next());
                // Those that nobody has taken would only pile up. The first one, which is alone in saying where the
                // watch begins, is taken before anything else.
                if state.queue.len() > 1 && matches!(state.queue.back(), Some(Delivered::Progress(_))) {
                    state.queue.pop_back();
                }
                state.queue.push_back(Delivered::Progress(revision));
                state.wake();
            }
        }
    }

    pub fn end(&self, error: Error) {
        let mut state = self.state();
        if !matches!(state.mode, Mode::Ended(_)) {
            state.mode = Mode::Ended(error);
            state.wake();
        }
    }
}

impl Delivered {
    /// As the verbs tell it.
    pub(crate) fn told(self, watch: &Watch) -> Watched {
        let commit = match self {
            Delivered::Progress(revision) => return Watched::Progress { revision },
            Delivered::Commit(commit) => commit,
        };
        let events = (commit.events.iter())
            .filter(|event| watch.keys.contains(event.key()))
            .map(|event| match watch.previous {
                Previous::Return => event.clone(),
                Previous::Omit => without_previous(event),
            })
            .collect();
        Watched::Events {
            revision: commit.revision,
            events,
        }
    }
}

fn without_previous(event: &Event) -> Event {
    match event {
        Event::Put { kv, .. } => Event::Put {
            kv: kv.clone(),
            previous: None,
        },
        Event::Delete { key, revision, .. } => Event::Delete {
            key: key.clone(),
            revision: *revision,
            previous: None,
        },
    }
}

impl State {
    fn before_next(&self) -> Revision {
        Revision(self.next.0 - 1)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What the stream found when it looked.
enum Found {
    Item(Result<Delivered>),
    Nothing,
    /// Nothing queued; the history is to be read from here.
    History(Revision),
}

/// The stream of one watch.
pub struct Watching {
    view: Arc<View>,
    watcher: Arc<Watcher>,
    id: u64,
    done: bool,
}

impl Watching {
    pub(crate) fn new(view: Arc<View>, watcher: Arc<Watcher>, id: u64) -> Watching {
        Watching {
            view,
            watcher,
            id,
            done: false,
        }
    }

    /// It yields [`Delivered::Progress`] with at least the answer's revision soon, behind the events before it. `None` if
    /// the watch is to begin later than now: it can tell nothing yet.
    pub fn request_progress(&self) -> Option<Revision> {
        let hub = self.view.hub();
        let dispatched = hub.dispatched();
        if self.watcher.waits_to_begin() {
            return None;
        }
        self.watcher.offer_progress(dispatched);
        Some(dispatched)
    }

    fn take(&self, context: &mut Context<'_>) -> Found {
        let mut state = self.watcher.state();
        if let Some(item) = state.queue.pop_front() {
            if let Delivered::Commit(commit) = &item {
                state.queue_bytes -= commit.bytes;
            }
            return Found::Item(Ok(item));
        }
        match &state.mode {
            Mode::Ended(error) => Found::Item(Err(error.clone())),
            Mode::Behind(next) => Found::History(*next),
            Mode::Live => {
                state.waker = Some(context.waker().clone());
                Found::Nothing
            }
        }
    }

    /// With the values that the watch tells. Those that are not in memory are read, under no lock.
    fn whole(&self, item: Delivered) -> Result<Delivered> {
        match item {
            Delivered::Commit(commit) => Ok(Delivered::Commit(commit.read(self.watcher.watch.previous)?)),
            Delivered::Progress(_) => Ok(item),
        }
    }

    /// Reads on in the history; what is for this watcher goes into its queue.
    fn catch_up(&self, from: Revision) -> Result<()> {
        let look = Look {
            commits_max: CATCH_UP_COMMITS,
            bytes_max: QUEUE_BYTES_MAX,
            keys: Some(self.watcher.keys()),
        };
        let Looked { commits, through } = self.view.history(from, &look)?;
        let mut state = self.watcher.state();
        // Ended meanwhile: what is queued is told first, the end after.
        let ended = matches!(state.mode, Mode::Ended(_));
        let mut next = Revision(through.0 + 1);
        for commit in commits {
            if state.queue_bytes >= QUEUE_BYTES_MAX {
                next = commit.revision;
                break;
            }
            if commit
                .events
                .iter()
                .any(|event| self.watcher.keys().contains(event.key()))
            {
                state.queue_bytes += commit.bytes;
                state.queue.push_back(Delivered::Commit(commit));
            }
        }
        state.next = next;
        if !ended {
            state.mode = Mode::Behind(next);
        }
        Ok(())
    }

    /// True if there was nothing left to read, and commits are offered from now on.
    fn go_live(&self, next: Revision) -> bool {
        let hub = self.view.hub();
        if hub.dispatched() >= next {
            return false;
        }
        let mut state = self.watcher.state();
        if matches!(state.mode, Mode::Behind(_)) {
            state.mode = Mode::Live;
            state.next = next;
            if std::mem::take(&mut state.progress_wanted) {
                state.queue.push_back(Delivered::Progress(Revision(next.0 - 1)));
            }
        }
        true
    }
}

impl Stream for Watching {
    type Item = Result<Delivered>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Delivered>>> {
        if self.done {
            return Poll::Ready(None);
        }
        loop {
            let next = match self.take(context) {
                Found::Nothing => return Poll::Pending,
                Found::Item(item) => {
                    let item = item.and_then(|item| self.whole(item));
                    self.done = item.is_err();
                    return Poll::Ready(Some(item));
                }
                Found::History(next) => next,
            };
            if self.go_live(next) {
                continue;
            }
            if let Err(error) = self.catch_up(next) {
                self.done = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.view.hub().remove(self.id, self.watcher.keys());
    }
}
