//! ReplicaSets: as many Pods of one template as are asked for.

mod plan;

use std::{sync::Arc, time::Duration};

use api::{Object, resource::PODS, resource::REPLICA_SETS, selector::LabelSelector};
use client::{
    Client, DeleteOptions, Error, EventRecorder, EventType, Informer, ObjectKey, Outcome, Patch, Sources, Tasks,
};
use serde_json::json;
use world::World;

use crate::{
    expectations::Expectations,
    fairness,
    informers::Informers,
    ownership::{self, BY_CONTROLLER, ORPHANS},
    time,
};
use plan::{Failure, Step};

const WORKERS: usize = 5;
/// Creations begin with one and double while they succeed: a template that is always refused costs few requests.
const SLOW_START_FIRST: usize = 1;

struct ReplicaSets {
    sources: Sources,
    sets: Informer,
    pods: Informer,
    expectations: Expectations,
    recorder: EventRecorder,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let (sets, pods) = (&informers.replica_sets, &informers.pods);
    let queue = fairness::by_plane(world);
    let shared = Arc::new(ReplicaSets {
        sources: sources.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        expectations: Expectations::default(),
        recorder: EventRecorder::start(tasks, world, "replicaset-controller"),
        world: world.clone(),
    });
    client::enqueue(tasks, sets, &queue, |key, _| vec![key.clone()], Vec::new);
    let (concerned, all) = (sets.clone(), sets.clone());
    let of_pod = move |key: &ObjectKey, pod: &Object| sets_of(&concerned, key, pod);
    client::enqueue(tasks, pods, &queue, of_pod, move || all.keys());
    client::run(tasks, "replicasets", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

/// The sets that a Pod may matter to: its controller, or all that might adopt it.
fn sets_of(sets: &Informer, key: &ObjectKey, pod: &Object) -> Vec<ObjectKey> {
    if ownership::controller_of(pod).is_some() {
        return ownership::owner_key(key, pod, &REPLICA_SETS.kind).into_iter().collect();
    }
    let matching = sets
        .list(&key.plane, key.namespace())
        .into_iter()
        .filter(|set| selector(set).is_some_and(|selector| selector.matches_object(pod)));
    matching.map(|set| key.sibling(set.name())).collect()
}

fn selector(set: &Object) -> Option<LabelSelector> {
    let selector = LabelSelector::from_json(&set.tree()["spec"]["selector"]).ok()?;
    // An empty selector would own every Pod of the namespace; upstream refuses it on writing.
    (!selector.is_everything()).then_some(selector)
}

impl ReplicaSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        // Before all Pods are known, those that are missing prove nothing; the loop comes by again when they are.
        if !self.pods.synced(&key.plane.source) || !self.sets.synced(&key.plane.source) {
            return Ok(Outcome::Done);
        }
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector(&set) else {
            return Ok(Outcome::Done);
        };
        let now = self.world.clock.monotonic();
        let unmet = self
            .expectations
            .unmet(key, &self.pods, &PODS, &self.sources, now)
            .await?;
        let client = self.sources.client(&key.plane)?;
        let mut owned = self.claim(&client, key, &set, &selector).await?;
        let mut failure = None;
        if unmet.is_none() {
            let related = self.related(key, &set);
            failure = match plan::plan(&set, &owned, &related, time::now(&self.world)) {
                Step::Nothing => None,
                Step::Create(count) => self.create(&client, key, &set, count, &mut owned).await,
                Step::Delete(pods) => self.delete(&client, key, &set, pods, &mut owned).await,
            };
        }
        let again = self.tell(&client, &set, &owned, failure.as_ref()).await?;
        match (failure, unmet.into_iter().chain(again).min()) {
            (Some(failure), _) => Err(Error::Transport {
                source: failure.message.into(),
            }),
            (None, Some(delay)) => Ok(Outcome::After(delay)),
            (None, None) => Ok(Outcome::Done),
        }
    }

    async fn claim(
        &self,
        client: &Client,
        key: &ObjectKey,
        set: &Object,
        selector: &LabelSelector,
    ) -> Result<Vec<Object>, Error> {
        let owned = self
            .pods
            .by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, set.uid()));
        let orphans = self
            .pods
            .by_index(ORPHANS, &ownership::of_namespace(&key.plane, &key.namespace));
        let candidates = owned.into_iter().chain(orphans).map(|(_, pod)| pod);
        let claims = ownership::claim(set, selector, candidates);
        ownership::settle(client, set, &REPLICA_SETS, &PODS, claims).await
    }

    /// Pods of all sets with the same controller.
    fn related(&self, key: &ObjectKey, set: &Object) -> Vec<Object> {
        let siblings = match ownership::controller_of(set) {
            Some(controller) => self
                .sets
                .by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, controller.uid)),
            None => vec![(key.clone(), set.clone())],
        };
        let pods = siblings.iter().flat_map(|(key, set)| {
            self.pods
                .by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, set.uid()))
        });
        pods.map(|(_, pod)| pod).collect()
    }

    async fn create(
        &self,
        client: &Client,
        key: &ObjectKey,
        set: &Object,
        count: usize,
        owned: &mut Vec<Object>,
    ) -> Option<Failure> {
        let (body, pods) = (plan::pod(set, ownership::reference(set, &REPLICA_SETS)), &PODS);
        let mut left = count;
        let mut batch = SLOW_START_FIRST;
        while left > 0 {
            batch = batch.min(left);
            let requests = (0..batch).map(|_| client.create(pods, key.namespace(), &body));
            let mut failed = None;
            for made in futures::future::join_all(requests).await {
                match made {
                    Ok(pod) => {
                        self.expectations.made(key, &pod, self.world.clock.monotonic());
                        let message = format!("Created pod: {}", pod.name());
                        self.recorder
                            .record(client, set, EventType::Normal, "SuccessfulCreate", message);
                        owned.push(pod);
                    }
                    // Nothing can be made there any more, and the set goes too.
                    Err(error) if error.is_namespace_terminating() => return None,
                    Err(error) => failed = Some(error.to_string()),
                }
            }
            if let Some(message) = failed {
                let event = format!("Error creating: {message}");
                self.recorder
                    .record(client, set, EventType::Warning, "FailedCreate", event);
                return Some(Failure {
                    reason: "FailedCreate",
                    message,
                });
            }
            left -= batch;
            batch *= 2;
        }
        None
    }

    async fn delete(
        &self,
        client: &Client,
        key: &ObjectKey,
        set: &Object,
        pods: Vec<Object>,
        owned: &mut Vec<Object>,
    ) -> Option<Failure> {
        let requests = pods.iter().map(|pod| async move {
            let options = DeleteOptions::of_uid(pod.uid());
            (pod, client.delete(&PODS, key.namespace(), pod.name(), &options).await)
        });
        let mut failure = None;
        for (pod, deleted) in futures::future::join_all(requests).await {
            match deleted {
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    let message = error.to_string();
                    let event = format!("Error deleting: {message}");
                    self.recorder
                        .record(client, set, EventType::Warning, "FailedDelete", event);
                    failure = Some(Failure {
                        reason: "FailedDelete",
                        message,
                    });
                    continue;
                }
                Ok(()) => {
                    let message = format!("Deleted pod: {}", pod.name());
                    self.recorder
                        .record(client, set, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(_) => {}
            }
            self.expectations.deleted(key, pod, self.world.clock.monotonic());
            owned.retain(|other| other.uid() != pod.uid());
        }
        failure
    }

    async fn tell(
        &self,
        client: &Client,
        set: &Object,
        owned: &[Object],
        failure: Option<&Failure>,
    ) -> Result<Option<Duration>, Error> {
        let (status, again) = plan::status(set, owned, failure, time::now(&self.world));
        if let Some(status) = status {
            let patch = Patch::Merge(json!({"metadata": {"uid": set.uid()}, "status": status}));
            match client
                .patch_sub(&REPLICA_SETS, Some(set.namespace()), set.name(), "status", &patch)
                .await
            {
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                done => drop(done?),
            }
        }
        Ok(again)
    }
}
