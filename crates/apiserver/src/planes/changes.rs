//! Who changed what last: a cheap way to know that nothing has, so that what was computed from a plane's roles or
//! definitions may be kept.
//!
//! One watch a keyspace and resource, for all planes; marks of fixed size, in which two planes may share a slot (then
//! the one's change makes the other compute again, which costs time and nothing else).

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{PlaneId, Resource, keys::Layout, resource};
use futures::StreamExt;
use keyspace::{Keyspace, Options, Previous, Revision, Watch, Watched};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use world::Clock;

/// 32 KiB a class and keyspace.
const SLOTS: usize = 4096;

/// How long to wait before a broken watch is made anew. Until then nothing is taken for unchanged.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Roles, bindings and their cluster-wide kin.
    Rbac,
    /// Custom resource definitions.
    Definitions,
}

impl Class {
    pub fn of(resource: &Resource) -> Option<Class> {
        match &*resource.group {
            "rbac.authorization.k8s.io" => Some(Class::Rbac),
            "apiextensions.k8s.io" => Some(Class::Definitions),
            _ => None,
        }
    }

    fn resources(self) -> &'static [Resource] {
        const RBAC: &[Resource] = &[
            resource::CLUSTER_ROLES,
            resource::CLUSTER_ROLE_BINDINGS,
            resource::ROLES,
            resource::ROLE_BINDINGS,
        ];
        const DEFINITIONS: &[Resource] = &[resource::CUSTOM_RESOURCE_DEFINITIONS];
        match self {
            Class::Rbac => RBAC,
            Class::Definitions => DEFINITIONS,
        }
    }
}

/// The changes of one keyspace.
pub struct Changes {
    rbac: Arc<Marks>,
    definitions: Arc<Marks>,
}

struct Marks {
    slots: Box<[AtomicU64]>,
    /// One a followed resource: its watch is running.
    live: Vec<AtomicBool>,
}

impl Changes {
    /// Follows a keyspace until `stop` is cancelled.
    pub fn follow(
        keyspace: &Arc<dyn Keyspace>,
        layout: Layout,
        clock: &Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Changes {
        let follow = |class: Class| {
            let marks = Arc::new(Marks {
                slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
                live: class.resources().iter().map(|_| AtomicBool::new(false)).collect(),
            });
            for (at, resource) in class.resources().iter().enumerate() {
                let run = run(
                    Arc::clone(keyspace),
                    layout,
                    resource,
                    Arc::clone(clock),
                    Arc::clone(&marks),
                    at,
                );
                let stop = stop.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = run => {}
                    }
                });
            }
            marks
        };
        Changes {
            rbac: follow(Class::Rbac),
            definitions: follow(Class::Definitions),
        }
    }

    /// A revision at or after the plane's last change of that class; what was read at it or later still holds.
    pub fn last(&self, plane: PlaneId, class: Class) -> Revision {
        let marks = self.marks(class);
        if marks.live.iter().all(|live| live.load(Ordering::Acquire)) {
            Revision(marks.slot(plane).load(Ordering::Acquire))
        } else {
            Revision(u64::MAX)
        }
    }

    /// This server's own write, known before the watch tells of it: who has been answered reads what they wrote.
    pub(crate) fn touch(&self, plane: PlaneId, class: Class, revision: Revision) {
        self.marks(class).slot(plane).fetch_max(revision.0, Ordering::AcqRel);
    }

    fn marks(&self, class: Class) -> &Marks {
        match class {
            Class::Rbac => &self.rbac,
            Class::Definitions => &self.definitions,
        }
    }
}

impl Marks {
    fn slot(&self, plane: PlaneId) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        plane.hash(&mut hasher);
        &self.slots[hasher.finish() as usize % SLOTS]
    }

    fn raise_all(&self, revision: Revision) {
        for slot in &self.slots {
            slot.fetch_max(revision.0, Ordering::AcqRel);
        }
    }
}

async fn run(
    keyspace: Arc<dyn Keyspace>,
    layout: Layout,
    resource: &'static Resource,
    clock: Arc<dyn Clock>,
    marks: Arc<Marks>,
    at: usize,
) {
    loop {
        let prefix = layout.resource_prefix(resource, None);
        let watch = Watch {
            keys: keyspace::KeyRange::prefix(prefix),
            from: None,
            previous: Previous::Omit,
        };
        if let Ok(mut stream) = keyspace.watch(watch, Options::default()).await {
            while let Some(Ok(watched)) = stream.next().await {
                match watched {
                    Watched::Progress { revision } => {
                        // The first one: whatever happened before this watch was not seen.
                        if !marks.live[at].load(Ordering::Acquire) {
                            marks.raise_all(revision);
                            marks.live[at].store(true, Ordering::Release);
                        }
                    }
                    Watched::Events { revision, events } => {
                        for event in &events {
                            match layout.parse(resource, None, event.key()).map(|parsed| parsed.plane) {
                                Some(Some(plane)) => {
                                    marks.slot(plane).fetch_max(revision.0, Ordering::AcqRel);
                                }
                                // The keyspace is one plane's.
                                _ => marks.raise_all(revision),
                            }
                        }
                    }
                }
            }
        }
        marks.live[at].store(false, Ordering::Release);
        clock.sleep(RETRY_AFTER).await;
    }
}
