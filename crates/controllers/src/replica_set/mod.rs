//! ReplicaSets and ReplicationControllers: as many Pods of one template as are asked for.

mod plan;

use std::{sync::Arc, time::Duration};

use api::{
    Object, Resource,
    resource::{REPLICA_SETS, REPLICATION_CONTROLLERS},
    selector::LabelSelector,
};
use client::{Client, Error, Informer, ObjectKey, Outcome, Patch, Sources, Tasks};
use serde_json::json;
use world::World;

use crate::{
    claims, fairness,
    informers::Informers,
    ownership::{self, BY_CONTROLLER},
    pod_control::{Failure, Owner, PodControl},
    time,
};
use plan::Step;

const WORKERS: usize = 5;

/// The two kinds differ in how they select, and in nothing else that matters here.
#[derive(Clone, Copy)]
struct Flavour {
    resource: &'static Resource,
    component: &'static str,
    selector: fn(&Object) -> Option<LabelSelector>,
}

static SETS: Flavour = Flavour {
    resource: &REPLICA_SETS,
    component: "replicaset-controller",
    selector: |set| LabelSelector::from_json(&set.tree()["spec"]["selector"]).ok(),
};

static CONTROLLERS: Flavour = Flavour {
    resource: &REPLICATION_CONTROLLERS,
    component: "replication-controller",
    selector: |set| Some(LabelSelector::from_map(&set.tree()["spec"]["selector"])),
};

impl Flavour {
    fn selector(&self, set: &Object) -> Option<LabelSelector> {
        // An empty selector would own every Pod of the namespace; upstream refuses it on writing.
        (self.selector)(set).filter(|selector| !selector.is_everything())
    }
}

struct ReplicaSets {
    flavour: &'static Flavour,
    sources: Sources,
    sets: Informer,
    pods: Informer,
    control: PodControl,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    start_one(&SETS, &informers.replica_sets, sources, informers, world, tasks);
    start_one(
        &CONTROLLERS,
        &informers.replication_controllers,
        sources,
        informers,
        world,
        tasks,
    );
}

fn start_one(
    flavour: &'static Flavour,
    sets: &Informer,
    sources: &Sources,
    informers: &Informers,
    world: &World,
    tasks: &Tasks,
) {
    let pods = &informers.pods;
    let queue = fairness::by_plane(world);
    let shared = Arc::new(ReplicaSets {
        flavour,
        sources: sources.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        control: PodControl::start(tasks, world, flavour.component),
        world: world.clone(),
    });
    client::enqueue(tasks, sets, &queue, |key, _| vec![key.clone()], Vec::new);
    let (concerned, all) = (sets.clone(), sets.clone());
    let of_pod = move |key: &ObjectKey, pod: &Object| sets_of(flavour, &concerned, key, pod);
    client::enqueue(tasks, pods, &queue, of_pod, move || all.keys());
    client::run(tasks, flavour.component, &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

/// The sets that a Pod may matter to: its controller, or all that might adopt it.
fn sets_of(flavour: &Flavour, sets: &Informer, key: &ObjectKey, pod: &Object) -> Vec<ObjectKey> {
    if ownership::controller_of(pod).is_some() {
        return ownership::owner_key(key, pod, &flavour.resource.kind)
            .into_iter()
            .collect();
    }
    let matching = sets.list(&key.plane, key.namespace()).into_iter().filter(|set| {
        flavour
            .selector(set)
            .is_some_and(|selector| selector.matches_object(pod))
    });
    matching.map(|set| key.sibling(set.name())).collect()
}

impl ReplicaSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        // Before all Pods are known, those that are missing prove nothing; the loop comes by again when they are.
        if !self.pods.synced(&key.plane.source) || !self.sets.synced(&key.plane.source) {
            return Ok(Outcome::Done);
        }
        let Some(set) = self.sets.get(key) else {
            self.control.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = self.flavour.selector(&set) else {
            return Ok(Outcome::Done);
        };
        let unmet = self.control.unmet(key, &self.pods, &self.sources).await?;
        let client = self.sources.client(&key.plane)?;
        let owner = (&set, self.flavour.resource);
        let mut owned = claims::pods(&client, key, owner, &selector, &self.pods).await?;
        let owner = Owner {
            client: &client,
            key,
            object: &set,
        };
        let mut failure = None;
        if unmet.is_none() {
            let related = self.related(key, &set);
            failure = match plan::plan(&set, &owned, &related, time::now(&self.world)) {
                Step::Nothing => None,
                Step::Create(count) => {
                    let body = plan::pod(&set, ownership::reference(&set, self.flavour.resource));
                    let (created, failure) = self.control.create(owner, &vec![body; count]).await;
                    owned.extend(created);
                    failure
                }
                Step::Delete(pods) => {
                    let (gone, failure) = self.control.delete(owner, &pods).await;
                    owned.retain(|pod| !gone.iter().any(|uid| uid == pod.uid()));
                    failure
                }
            };
        }
        let again = self.tell(&client, &set, &owned, failure.as_ref()).await?;
        match (failure, unmet.into_iter().chain(again).min()) {
            (Some(failure), _) => Err(failure.into()),
            (None, Some(delay)) => Ok(Outcome::After(delay)),
            (None, None) => Ok(Outcome::Done),
        }
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
            let resource = self.flavour.resource;
            match client
                .patch_sub(resource, Some(set.namespace()), set.name(), "status", &patch)
                .await
            {
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                done => drop(done?),
            }
        }
        Ok(again)
    }
}
