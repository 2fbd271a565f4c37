//! The server as a whole: what it is given, what it owns, how it ends. How a request goes through it is in the edge.

use std::{
    collections::VecDeque,
    net::SocketAddrV4,
    sync::{Arc, RwLock},
    time::Duration,
};

use keyspace::{KeyRange, Keyspace, Options, Range, Revision};
use streaming::PodBackend;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use world::World;

pub use crate::planes::ServiceRanges;
use crate::{http::Edge, planes::Planes, registry::Registry};

/// How much history is kept at least (upstream's `--etcd-compaction-interval`).
const HISTORY: Duration = Duration::from_secs(300);

/// How often what is older is given up. By fifths and not, as upstream does it, as a whole: memory for a sixth interval
/// instead of a second one, and no heap that swells and is left full of holes each time.
const COMPACT_EVERY: Duration = Duration::from_secs(60);

/// How often watchers that asked for bookmarks get one (upstream's `bookmarkFrequency`).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// A keyspace that can't be reached at the start is asked again after this.
const RESUME_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a server is given.
pub struct ApiServerOptions {
    /// All tenant planes, and the records of planes and addresses.
    pub shared: Arc<dyn Keyspace>,
    /// The super plane alone.
    pub root: Arc<dyn Keyspace>,
    pub world: World,
    /// Who can reach Pods; may be set later ([`ApiServer::set_pod_backend`]).
    pub pod_backend: Option<Arc<dyn PodBackend>>,
    pub ranges: ServiceRanges,
    /// Where the super plane's API is reached on the node's network: the endpoint of its `kubernetes` Service.
    pub advertise: Option<SocketAddrV4>,
}

/// Planes, as one service. Cheap to clone; the last clone's drop ends its tasks.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    planes: Planes,
    registry: Registry,
    edge: Arc<Edge>,
    pod_backend: Arc<RwLock<Option<Arc<dyn PodBackend>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ApiServer {
    /// Has to be called within a tokio runtime: compaction and bookmarks are tasks of the server.
    pub fn new(options: ApiServerOptions) -> ApiServer {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let pod_backend = Arc::new(RwLock::new(options.pod_backend));
        let planes = Planes::new(
            Arc::clone(&options.shared),
            Arc::clone(&options.root),
            options.world.clone(),
            options.ranges,
            options.advertise,
            &tasks,
            &stop,
        );
        let edge = Arc::new(Edge::default());
        let registry = Registry::new(
            planes.clone(),
            Arc::clone(&pod_backend),
            Arc::clone(&edge),
            stop.clone(),
        );
        for keyspace in [options.shared, options.root] {
            let clock = Arc::clone(&options.world.clock);
            let run = async move { tokio::join!(compact(&*keyspace, &*clock), bookmarks(&*keyspace, &*clock)) };
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = run => {}
                }
            });
        }
        let resume = resume_deletions(planes.clone());
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = resume => {}
            }
        });
        tasks.close();
        ApiServer(Arc::new(Inner {
            planes,
            registry,
            edge,
            pod_backend,
            tasks,
            stop,
        }))
    }

    pub fn planes(&self) -> &Planes {
        &self.0.planes
    }

    /// What authenticates, authorizes and counts.
    pub fn edge(&self) -> &Edge {
        &self.0.edge
    }

    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub fn set_pod_backend(&self, backend: Arc<dyn PodBackend>) {
        *self
            .0
            .pod_backend
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(backend);
    }

    /// Cancelled when the server ends; watches end with it.
    pub fn stopped(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Ends watches and the server's tasks, and waits for them.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.wait().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Goes on with what a crash cut short. Ends when nothing is left to do.
async fn resume_deletions(planes: Planes) {
    while let Err(error) = planes.resume_deletions().await {
        tracing::warn!(%error, "the deletion of a plane can't be gone on with yet");
        planes.world().clock.sleep(RESUME_AGAIN_AFTER).await;
    }
}

/// Gives up the history before the revision that was current when what is kept began.
async fn compact(keyspace: &dyn Keyspace, clock: &dyn world::Clock) {
    let mut seen: VecDeque<(Duration, Revision)> = VecDeque::new();
    loop {
        let current = Range {
            content: keyspace::Content::CountOnly,
            ..Range::of(KeyRange::one("/p/root"))
        };
        if let Ok(ranged) = keyspace.range(current, Options::default()).await {
            let now = clock.monotonic();
            seen.push_back((now, ranged.revision));
            let old = seen.partition_point(|(at, _)| *at + HISTORY <= now);
            let newest_old = seen.drain(..old).next_back();
            if let Some((_, before)) = newest_old.filter(|(_, revision)| revision.0 > 1) {
                // Refused if somebody else did it: then it is done.
                if let Err(error) = keyspace.compact(before, Options::default()).await {
                    tracing::debug!(%error, "compaction was refused");
                }
            }
        }
        clock.sleep(COMPACT_EVERY).await;
    }
}

/// Lets every open watch know how far it is.
async fn bookmarks(keyspace: &dyn Keyspace, clock: &dyn world::Clock) {
    loop {
        clock.sleep(BOOKMARK_EVERY).await;
        if let Err(error) = keyspace.request_progress().await {
            tracing::debug!(%error, "progress can't be asked for");
        }
    }
}

#[cfg(test)]
mod tests {
    use keyspace::{Local, MemoryKeyspace, Op, Txn};
    use world::sim::Sim;

    use super::*;

    #[tokio::test]
    async fn history_is_kept_for_its_time_and_given_up_soon_after() {
        const STEP: Duration = Duration::from_secs(10);
        let sim = Sim::new(1);
        let keyspace = Arc::new(MemoryKeyspace::new(sim.world()));
        let clock = sim.world().clock;
        let (of_loop, clock_of_loop) = (Arc::clone(&keyspace), Arc::clone(&clock));
        let running = tokio::spawn(async move { compact(&*of_loop, &*clock_of_loop).await });

        let mut written: Vec<(Duration, Revision)> = Vec::new();
        for _ in 0..200 {
            let put = Txn {
                success: vec![Op::put("a", "b")],
                ..Txn::default()
            };
            let revision = keyspace.txn(put, Options::default()).await.unwrap().revision;
            written.push((clock.monotonic(), revision));
            sim.clock.advance(STEP);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let compacted = keyspace.view().read().compacted();
            for (at, revision) in &written {
                let age = clock.monotonic() - *at;
                if age < HISTORY {
                    assert!(*revision >= compacted, "one of {age:?} is gone");
                }
                if age > HISTORY + COMPACT_EVERY + STEP {
                    assert!(*revision <= compacted, "one of {age:?} is still there");
                }
            }
        }
        running.abort();
    }
}
