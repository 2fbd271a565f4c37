//! A keyspace that is far away, read from a view nearby (D3): the index, fed by one watch of the far one. Ranges and
//! watches are served from the view, however many there are; writes and leases go through.
//!
//! Reads are linearizable: before one is answered, the far keyspace is asked for its revision, once for all reads that
//! wait, and the view waits until it has got there. What was written through this handle is seen by every read after it.
//! What the view has no history of is asked of the far keyspace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use world::{Clock, World};

use crate::{
    Consistency, Content, Error, Event, Granted, KeyRange, Keyspace, LeaseId, LeaseState, OpResult, Options, Previous,
    Range, Ranged, Result, Revision, Txn, Txned, Watch, WatchStream, Watched, check,
    index::{Change, Index, Item, Limits},
    view::View,
};

/// Keys that are asked for at once when the view is filled.
const PAGE_KEYS: usize = 2000;

/// Reads that wait for one answer of the far keyspace. More wait to be let in.
const READS_MAX: usize = 4096;

/// While a read waits, the far keyspace is asked again for progress after this long: it may have dropped the request.
/// The API server of Kubernetes asks as often.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How long a read waits for the view if the caller doesn't say.
const TIMEOUT: Duration = Duration::from_secs(30);

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

pub struct Followed {
    far: Arc<dyn Keyspace>,
    view: Arc<View>,
    clock: Arc<dyn Clock>,
    /// How far the view has got.
    reached: watch::Receiver<Revision>,
    /// What was written through here: the view gets there by itself.
    written: AtomicU64,
    /// Reads that wait for the far keyspace's revision.
    reads: mpsc::Sender<oneshot::Sender<Result<Revision>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Followed {
    /// Reads all of `far` once, and follows it until the handle is dropped.
    pub async fn start(far: Arc<dyn Keyspace>, world: World) -> Result<Followed> {
        Followed::with_limits(far, world, Limits::default()).await
    }

    pub async fn with_limits(far: Arc<dyn Keyspace>, world: World, limits: Limits) -> Result<Followed> {
        let index = read_all(far.as_ref(), limits).await?;
        let (tell, reached) = watch::channel(index.revision());
        let view = View::new(index);
        let (reads, asked) = mpsc::channel(READS_MAX);
        let follower = Follower {
            far: far.clone(),
            view: view.clone(),
            clock: world.clock.clone(),
            limits,
            tell,
        };
        let tasks = [
            tokio::spawn(follower.run()),
            tokio::spawn(answer_reads(far.clone(), asked)),
        ];
        Ok(Followed {
            far,
            view,
            clock: world.clock,
            reached,
            written: AtomicU64::new(0),
            reads,
            tasks,
        })
    }

    /// How far the view has got.
    pub fn revision(&self) -> Revision {
        *self.reached.borrow()
    }

    /// Waits until the view has everything that was acknowledged before this was called.
    async fn catch_up(&self, timeout: Option<Duration>) -> Result<()> {
        let (tell, told) = oneshot::channel();
        let closed = || Error::Unavailable("the keyspace is closed".into());
        self.reads.send(tell).await.map_err(|_| closed())?;
        let current = told.await.map_err(|_| closed())??;
        self.wait_for(current, timeout).await
    }

    async fn wait_for(&self, revision: Revision, timeout: Option<Duration>) -> Result<()> {
        let mut reached = self.reached.clone();
        let mut waited = Duration::ZERO;
        loop {
            if *reached.borrow_and_update() >= revision {
                return Ok(());
            }
            if waited >= timeout.unwrap_or(TIMEOUT) {
                let what = format!("the view is at revision {}, not yet at {revision}", self.revision());
                return Err(Error::Unavailable(what));
            }
            // What was written through here comes as an event. Other revisions may have changed nothing of this
            // keyspace, and only progress tells that they are there.
            if revision.0 > self.written.load(Ordering::Acquire) || waited > Duration::ZERO {
                self.far.request_progress().await?;
            }
            let there = async { reached.wait_for(|reached| *reached >= revision).await.map(|_| ()) };
            tokio::select! {
                there = there => there.map_err(|_| Error::Unavailable("the keyspace is closed".into()))?,
                () = self.clock.sleep(ASK_AGAIN) => waited += ASK_AGAIN,
            }
        }
    }

    async fn settle(&self, options: &Options) -> Result<()> {
        match options.consistency {
            Consistency::Linearizable => self.catch_up(options.timeout).await,
            Consistency::Serializable => {
                let written = Revision(self.written.load(Ordering::Acquire));
                self.wait_for(written, options.timeout).await
            }
        }
    }

    /// Whether the view has the events of this revision.
    fn has_history_of(&self, revision: Revision) -> bool {
        let index = self.view.read();
        revision > index.base() && revision >= index.compacted()
    }
}

/// Whether the transaction changed something; its revision is then one of this keyspace's.
fn changed(results: &[OpResult]) -> bool {
    results.iter().any(|result| match result {
        OpResult::Put { .. } => true,
        OpResult::Delete { deleted, .. } => *deleted > 0,
        OpResult::Txn(nested) => changed(&nested.results),
        OpResult::Range(_) => false,
    })
}

fn everything() -> KeyRange {
    KeyRange::prefix("")
}

async fn read_all(far: &dyn Keyspace, limits: Limits) -> Result<Index> {
    let mut items = Vec::new();
    let mut revision = None;
    loop {
        let start = items.last().map_or(Bytes::new(), |kv: &crate::KeyValue| {
            [&kv.key[..], b"\0"].concat().into()
        });
        let page = Range {
            keys: KeyRange { start, ..everything() },
            revision,
            limit: Some(PAGE_KEYS),
            content: Content::Full,
        };
        let page = far.range(page, Options::default()).await?;
        let at = *revision.get_or_insert(page.revision);
        items.extend(page.items);
        if !page.more {
            // Which change of its revision each was, the far side doesn't tell; nobody asks a view for it.
            let items = items.into_iter().map(|kv| Item { kv, sub: 0 });
            return Ok(Index::restored(limits, at, [], Duration::ZERO, items));
        }
    }
}

/// Answers all reads that wait with one question.
async fn answer_reads(far: Arc<dyn Keyspace>, mut asked: mpsc::Receiver<oneshot::Sender<Result<Revision>>>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, READS_MAX).await > 0 {
        let range = Range {
            content: Content::CountOnly,
            ..Range::of(KeyRange::one("revision"))
        };
        let revision = far.range(range, Options::default()).await.map(|ranged| ranged.revision);
        for tell in waiting.drain(..) {
            let _ = tell.send(revision.clone());
        }
    }
}

struct Follower {
    far: Arc<dyn Keyspace>,
    view: Arc<View>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    tell: watch::Sender<Revision>,
}

impl Follower {
    async fn run(self) {
        let mut pause = RETRY_MIN;
        loop {
            let before = self.view.read().revision();
            let error = match self.follow().await {
                Err(error) => error,
                Ok(never) => match never {},
            };
            let lost = matches!(error, Error::Compacted { .. });
            tracing::warn!(%error, "the watch that feeds a view has ended");
            if lost {
                match self.read_anew().await {
                    Ok(()) => {
                        pause = RETRY_MIN;
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, "the view can't be read anew"),
                }
            }
            if self.view.read().revision() > before {
                pause = RETRY_MIN;
            }
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible> {
        let from = Revision(self.view.read().revision().0 + 1);
        let watch = Watch {
            keys: everything(),
            from: Some(from),
            // The view knows what was before.
            previous: Previous::Omit,
        };
        let mut stream = self.far.watch(watch, Options::default()).await?;
        loop {
            let item = stream.next().await;
            match item.unwrap_or(Err(Error::Unavailable("the watch has ended".into())))? {
                Watched::Events { revision, events } => self.apply(revision, events),
                Watched::Progress { revision } => self.apply(revision, Vec::new()),
            }
        }
    }

    fn apply(&self, revision: Revision, events: Vec<Event>) {
        let mut index = self.view.write();
        if revision <= index.head() {
            return;
        }
        let changes = events.into_iter().map(|event| match event {
            Event::Put { kv, .. } => Change::Put(kv),
            Event::Delete { key, .. } => Change::Delete(key),
        });
        index.replay(revision, changes);
        index.publish();
        drop(index);
        self.view.dispatch();
        self.tell.send_replace(revision);
    }

    /// What happened in between is not known any more: whoever watches has to begin anew.
    async fn read_anew(&self) -> Result<()> {
        let index = read_all(self.far.as_ref(), self.limits).await?;
        let revision = index.revision();
        self.view.replace(index, Error::TooSlow);
        self.tell.send_replace(revision);
        Ok(())
    }
}

#[async_trait]
impl Keyspace for Followed {
    async fn range(&self, range: Range, options: Options) -> Result<Ranged> {
        check::range(&range)?;
        // The past doesn't change: if the view has it, nobody has to be asked.
        let is_past = range.revision.is_some_and(|revision| revision <= self.revision());
        if is_past {
            let written = Revision(self.written.load(Ordering::Acquire));
            self.wait_for(written, options.timeout).await?;
        } else {
            self.settle(&options).await?;
        }
        match self.view.range(&range) {
            Err(Error::Compacted { .. }) => self.far.range(range, options).await,
            answer => answer,
        }
    }

    async fn txn(&self, txn: Txn, options: Options) -> Result<Txned> {
        let answer = self.far.txn(txn, options).await?;
        if changed(&answer.results) {
            self.written.fetch_max(answer.revision.0, Ordering::AcqRel);
        }
        Ok(answer)
    }

    async fn watch(&self, watch: Watch, options: Options) -> Result<WatchStream> {
        check::watch(&watch)?;
        match watch.from {
            None => self.settle(&options).await?,
            Some(from) if !self.has_history_of(from) => return self.far.watch(watch, options).await,
            Some(_) => {}
        }
        self.view.watch(watch)
    }

    async fn request_progress(&self) -> Result<()> {
        self.catch_up(None).await?;
        self.view.request_progress();
        // Those that history is read for from the far keyspace.
        self.far.request_progress().await
    }

    async fn compact(&self, revision: Revision, options: Options) -> Result<()> {
        let timeout = options.timeout;
        self.far.compact(revision, options).await?;
        // The view may have less history already.
        self.wait_for(revision, timeout).await?;
        let _ = self.view.compact(revision);
        Ok(())
    }

    async fn grant_lease(&self, id: Option<LeaseId>, ttl: Duration) -> Result<Granted> {
        self.far.grant_lease(id, ttl).await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<()> {
        self.far.revoke_lease(id).await
    }

    async fn keep_lease(&self, id: LeaseId) -> Result<Duration> {
        self.far.keep_lease(id).await
    }

    async fn lease_state(&self, id: LeaseId) -> Result<LeaseState> {
        self.far.lease_state(id).await
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.view.close(Error::Unavailable("the keyspace is closed".into()));
    }
}
