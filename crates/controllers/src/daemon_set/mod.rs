//! DaemonSets: one Pod on every node that it fits.

mod plan;
#[cfg(test)]
mod plan_tests;
mod pod;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    Object,
    resource::{DAEMON_SETS, NODES},
};
use client::{Client, Error, EventType, Informer, ListOptions, Notice, ObjectKey, Outcome, Patch, Sources, Tasks};
use futures::StreamExt;
use serde_json::json;
use world::World;

use crate::{
    Clusters, Reshown, claims,
    fairness::{self, Queue},
    informers::Informers,
    ownership::{self, BY_CONTROLLER},
    pod_control::{Owner, PodControl},
    revisions::{self, Marks},
    time,
};
use plan::Observed;

const WORKERS: usize = 5;

const MARKS: Marks = Marks {
    resource: &DAEMON_SETS,
    hash_label: pod::HASH_LABEL,
};

/// A Pod that fails on a node is made anew after this, and twice that the next time; upstream's numbers.
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_LONGEST: Duration = Duration::from_secs(900);

struct DaemonSets {
    sources: Sources,
    sets: Informer,
    pods: Informer,
    nodes: Informer,
    revisions: Informer,
    control: PodControl,
    failures: Mutex<HashMap<(ObjectKey, String), Failures>>,
    world: World,
}

/// How often a set's Pod failed on a node, and when last. Forgotten with the set, or when twice the longest wait went by.
#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

pub fn start(sources: &Sources, informers: &Informers, clusters: &Clusters, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let shared = Arc::new(DaemonSets {
        sources: sources.clone(),
        sets: informers.daemon_sets.clone(),
        pods: informers.pods.clone(),
        nodes: informers.nodes.clone(),
        revisions: informers.controller_revisions.clone(),
        control: PodControl::start(tasks, world, "daemonset-controller"),
        failures: Mutex::default(),
        world: world.clone(),
    });
    client::enqueue(tasks, &shared.sets, &queue, |key, _| vec![key.clone()], Vec::new);
    let (concerned, all) = (shared.sets.clone(), shared.sets.clone());
    let of_pod = move |key: &ObjectKey, pod: &Object| claims::owners_of(&concerned, key, pod);
    client::enqueue(tasks, &shared.pods, &queue, of_pod, move || all.keys());
    let all = shared.sets.clone();
    let of_revision = |key: &ObjectKey, revision: &Object| {
        ownership::owner_key(key, revision, &DAEMON_SETS.kind)
            .into_iter()
            .collect()
    };
    client::enqueue(tasks, &shared.revisions, &queue, of_revision, move || all.keys());
    let (watcher, nodes) = (shared.clone(), queue.clone());
    tasks.spawn(async move { watcher.watch_nodes(&nodes).await });
    let (watcher, nodes, mut reshown) = (shared.clone(), queue.clone(), clusters.reshown());
    tasks.spawn(async move {
        while let Some(change) = reshown.next().await {
            watcher.look_at_nodes_again(&change, &nodes);
        }
    });
    client::run(tasks, "daemonsets", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

impl DaemonSets {
    fn look_at_nodes_again(&self, change: &Reshown, queue: &Queue<ObjectKey>) {
        let keys = match change {
            Reshown::To(plane) => {
                let sets = self.sets.list(plane, None);
                sets.iter()
                    .map(|set| plane.object(set.namespace(), set.name()))
                    .collect()
            }
            Reshown::ToMany => self.sets.keys(),
        };
        keys.into_iter().for_each(|key| queue.add(key));
    }

    /// A node concerns all sets: those of its own plane, and those of planes that are shown it.
    async fn watch_nodes(&self, queue: &Queue<ObjectKey>) {
        let mut changes = self.nodes.subscribe();
        while let Some(notice) = changes.next().await {
            let matters = match &notice {
                // A heartbeat moves nobody.
                Notice::Change(change) => match (&change.old, &change.new) {
                    (Some(old), Some(new)) => {
                        old.tree()["spec"] != new.tree()["spec"]
                            || old.tree()["metadata"]["labels"] != new.tree()["metadata"]["labels"]
                    }
                    _ => true,
                },
                Notice::Removed(_) => false,
                Notice::Rescan | Notice::Synced(_) => true,
            };
            if matters {
                self.sets.keys().into_iter().for_each(|key| queue.add(key));
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        let needed = [&self.sets, &self.pods, &self.nodes, &self.revisions];
        if !needed.iter().all(|informer| informer.synced(source)) {
            return Ok(Outcome::Done);
        }
        let Some(set) = self.sets.get(key) else {
            self.control.forget(key);
            self.failures().retain(|(of, _), _| of != key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = claims::selector(&set) else {
            return Ok(Outcome::Done);
        };
        let unmet = self.control.unmet(key, &self.pods, &self.sources).await?;
        let client = self.sources.client(&key.plane)?;
        let pods = claims::pods(&client, key, (&set, &DAEMON_SETS), &selector, &self.pods).await?;
        if set.is_deleting() {
            return Ok(Outcome::Done);
        }
        let nodes = self.nodes_of(&client, key).await?;
        let known = self
            .revisions
            .by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, set.uid()));
        let known: Vec<Object> = known.into_iter().map(|(_, revision)| revision).collect();
        let revisions = revisions::ensure(&client, key, &set, MARKS, known).await?;
        let hash = hash_of(&revisions.update).to_owned();
        let observed = Observed {
            set: &set,
            nodes: &nodes,
            pods: &pods,
            hash: &hash,
        };
        let plan = plan::plan(&observed, revisions.collisions, time::now(&self.world));
        let owner = Owner {
            client: &client,
            key,
            object: &set,
        };
        let (mut failure, mut again) = (None, plan.look_again.into_iter().chain(unmet).min());
        if unmet.is_none() {
            let mut doomed = plan.delete;
            for pod in plan.failed {
                match self.backs_off(key, &pod) {
                    Some(left) => again = again.into_iter().chain([left]).min(),
                    None => {
                        let node = pod::node_of(&pod).unwrap_or("");
                        let message = format!(
                            "Found failed daemon pod {}/{} on node {node}, will try to kill it",
                            pod.namespace(),
                            pod.name()
                        );
                        self.control.tell(owner, EventType::Warning, "FailedDaemonPod", message);
                        doomed.push(pod);
                    }
                }
            }
            let bodies: Vec<_> = plan.create.iter().map(|node| pod::pod(&set, &hash, node)).collect();
            let (_, not_created) = self.control.create(owner, &bodies).await;
            let (_, not_deleted) = self.control.delete(owner, &doomed).await;
            failure = not_created.or(not_deleted);
        }
        if let Some(status) = plan.status {
            let patch = Patch::Merge(json!({"metadata": {"uid": set.uid()}, "status": status}));
            match client
                .patch_sub(&DAEMON_SETS, key.namespace(), set.name(), "status", &patch)
                .await
            {
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                done => drop(done?),
            }
        }
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        let in_use = |revision: &Object| {
            let hash = hash_of(revision);
            pods.iter()
                .any(|pod| pod.tree()["metadata"]["labels"][pod::HASH_LABEL] == hash)
        };
        revisions::trim(&client, key, &set, &revisions.others, in_use).await?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    /// A plane's own nodes, or what it is shown of others'.
    async fn nodes_of(&self, client: &Client, key: &ObjectKey) -> Result<Vec<Object>, Error> {
        let own = self.nodes.list(&key.plane, None);
        if !own.is_empty() {
            return Ok(own);
        }
        Ok(client.list_all(&NODES, None, &ListOptions::default()).await?.items)
    }

    /// How long a failed Pod still has to wait for its successor; `None` if it has waited.
    fn backs_off(&self, key: &ObjectKey, pod: &Object) -> Option<Duration> {
        let now = self.world.clock.monotonic();
        let mut all = self.failures();
        all.retain(|_, failures| now.saturating_sub(failures.last) < 2 * FAILED_LONGEST);
        let node = pod::node_of(pod).unwrap_or("").to_owned();
        let failures = all
            .entry((key.clone(), node))
            .or_insert(Failures { count: 0, last: now });
        if failures.count > 0 {
            let wait = FAILED_FIRST
                .saturating_mul(1 << (failures.count - 1).min(16))
                .min(FAILED_LONGEST);
            let left = (failures.last + wait).saturating_sub(now);
            if !left.is_zero() {
                return Some(left);
            }
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        None
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<(ObjectKey, String), Failures>> {
        self.failures.lock().expect("no one panics while holding it")
    }
}

fn hash_of(revision: &Object) -> &str {
    revision.tree()["metadata"]["labels"][pod::HASH_LABEL]
        .as_str()
        .unwrap_or("")
}
