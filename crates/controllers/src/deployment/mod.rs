//! Deployments: one ReplicaSet a template, and the way from one to the next.

mod plan;
mod scale;
mod set;
mod spec;
mod status;
mod template;

use std::sync::Arc;

use api::{
    Object,
    resource::{DEPLOYMENTS, REPLICA_SETS},
};
use client::{
    Client, DeleteOptions, Error, EventRecorder, EventType, Informer, ObjectKey, Outcome, Patch, Sources, Tasks,
};
use serde_json::{Value, json};
use world::World;

use crate::{
    claims, fairness,
    informers::Informers,
    ownership::{self, BY_CONTROLLER},
    pods, time,
};
use plan::{Observed, Step};
use set::{REVISION, Set};

const WORKERS: usize = 5;

struct Deployments {
    sources: Sources,
    deployments: Informer,
    sets: Informer,
    pods: Informer,
    recorder: EventRecorder,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let (deployments, sets, pods) = (&informers.deployments, &informers.replica_sets, &informers.pods);
    let shared = Arc::new(Deployments {
        sources: sources.clone(),
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        recorder: EventRecorder::start(tasks, world, "deployment-controller"),
        world: world.clone(),
    });
    client::enqueue(tasks, deployments, &queue, |key, _| vec![key.clone()], Vec::new);
    let (concerned, all) = (deployments.clone(), deployments.clone());
    let of_set = move |key: &ObjectKey, set: &Object| claims::owners_of(&concerned, key, set);
    client::enqueue(tasks, sets, &queue, of_set, move || all.keys());
    // Only `Recreate` waits for Pods themselves: for the last old one to end.
    let (watched, all) = (shared.clone(), deployments.clone());
    let of_pod = move |key: &ObjectKey, pod: &Object| watched.recreated_by(key, pod).into_iter().collect();
    client::enqueue(tasks, pods, &queue, of_pod, move || all.keys());
    client::run(tasks, "deployments", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

fn recreates(deployment: &Object) -> bool {
    deployment.tree()["spec"]["strategy"]["type"] == "Recreate"
}

impl Deployments {
    /// The Deployment whose next step may have waited for this Pod.
    fn recreated_by(&self, key: &ObjectKey, pod: &Object) -> Option<ObjectKey> {
        if pods::is_active(pod) && !pod.is_deleting() {
            return None;
        }
        let set = self.sets.get(&ownership::owner_key(key, pod, &REPLICA_SETS.kind)?)?;
        let deployment = ownership::owner_key(key, &set, &DEPLOYMENTS.kind)?;
        self.deployments.get(&deployment).filter(recreates).map(|_| deployment)
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        if ![&self.deployments, &self.sets, &self.pods]
            .iter()
            .all(|informer| informer.synced(source))
        {
            return Ok(Outcome::Done);
        }
        let Some(deployment) = self.deployments.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(selector) = claims::selector(&deployment) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        let owner = (&deployment, &DEPLOYMENTS);
        let sets = claims::claimed(&client, key, owner, &selector, (&self.sets, &REPLICA_SETS)).await?;
        let sets: Vec<Set> = sets.iter().map(Set::of).collect();
        let observed = Observed {
            old_pods_run: recreates(&deployment) && self.old_pods_run(key, &deployment, &sets),
            sets,
        };
        let plan = plan::plan(&deployment, observed, time::now(&self.world));
        let mut status = plan.status;
        for step in plan.steps {
            if let Some(collided) = self.take(&client, &deployment, step).await? {
                status.get_or_insert_with(|| json!({}))["collisionCount"] = json!(collided);
            }
        }
        if let Some(revision) = plan.revision {
            let patch = json!({"metadata": {"uid": deployment.uid(), "annotations": {REVISION: revision.to_string()}}});
            let name = deployment.name();
            changed(
                client
                    .patch(&DEPLOYMENTS, key.namespace(), name, &Patch::Merge(patch))
                    .await,
            )?;
        }
        if let Some(status) = status {
            let patch = Patch::Merge(json!({"metadata": {"uid": deployment.uid()}, "status": status}));
            changed(
                client
                    .patch_sub(&DEPLOYMENTS, key.namespace(), deployment.name(), "status", &patch)
                    .await,
            )?;
        }
        Ok(plan.look_again.map_or(Outcome::Done, Outcome::After))
    }

    fn old_pods_run(&self, key: &ObjectKey, deployment: &Object, sets: &[Set]) -> bool {
        let new = template::find_new(deployment, sets).map(|set| set.object.uid().to_owned());
        let old = sets.iter().filter(|set| Some(set.object.uid()) != new.as_deref());
        let mut pods = old.flat_map(|set| {
            self.pods
                .by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, set.object.uid()))
        });
        pods.any(|(_, pod)| !matches!(pods::phase(&pod), "Succeeded" | "Failed"))
    }

    /// Carries out one step; returns the new collision count if a name was taken by something else.
    async fn take(&self, client: &Client, deployment: &Object, step: Step) -> Result<Option<i64>, Error> {
        let namespace = Some(deployment.namespace());
        match step {
            Step::Create { body } => return self.create(client, deployment, &body).await,
            Step::Renew { set, patch } => {
                let patch = Patch::Merge(precisely(&set, patch));
                client.patch(&REPLICA_SETS, namespace, set.name(), &patch).await?;
            }
            Step::Scale { set, from, to, patch } => {
                let patch = Patch::Merge(precisely(&set, patch));
                client.patch(&REPLICA_SETS, namespace, set.name(), &patch).await?;
                self.tell_scaled(client, deployment, set.name(), from, to);
            }
            Step::Forget { set } => {
                let options = DeleteOptions::of_uid(set.uid());
                match client.delete(&REPLICA_SETS, namespace, set.name(), &options).await {
                    Err(error) if error.is_not_found() || error.is_conflict() => {}
                    done => done?,
                }
            }
        }
        Ok(None)
    }

    async fn create(&self, client: &Client, deployment: &Object, body: &Value) -> Result<Option<i64>, Error> {
        let namespace = Some(deployment.namespace());
        let name = body["metadata"]["name"].as_str().unwrap_or("");
        match client.create(&REPLICA_SETS, namespace, body).await {
            Ok(_) => {
                let replicas = body["spec"]["replicas"].as_i64().unwrap_or(0);
                self.tell_scaled(client, deployment, name, 0, replicas);
                Ok(None)
            }
            Err(error) if error.is_already_exists() => {
                let there = client.get(&REPLICA_SETS, namespace, name).await?;
                let ours = ownership::controller_of(&there).is_some_and(|owner| owner.uid == deployment.uid());
                // Ours and not in the cache yet: the event that brings it brings us back.
                if ours && template::find_new(deployment, &[Set::of(&there)]).is_some() {
                    return Ok(None);
                }
                let collisions = deployment.tree()["status"]["collisionCount"].as_i64().unwrap_or(0);
                Ok(Some(collisions + 1))
            }
            Err(error) if error.is_namespace_terminating() => Ok(None),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{name}\": {error}");
                self.recorder
                    .record(client, deployment, EventType::Warning, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    fn tell_scaled(&self, client: &Client, deployment: &Object, set: &str, from: i64, to: i64) {
        if from == to {
            return;
        }
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder
            .record(client, deployment, EventType::Normal, "ScalingReplicaSet", message);
    }
}

/// Only if the set is as it was when the plan was made: sizes depend on one another.
fn precisely(set: &Object, mut patch: Value) -> Value {
    patch["metadata"]["uid"] = json!(set.uid());
    patch["metadata"]["resourceVersion"] = json!(set.resource_version());
    patch
}

/// A Deployment that is gone or was made anew needs nothing more from this pass.
fn changed(result: Result<Object, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}
