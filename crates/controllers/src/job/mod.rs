//! Jobs: Pods that come to an end, counted.

mod conditions;
mod failure_policy;
mod indexes;
mod plan;
#[cfg(test)]
mod plan_tests;
mod pod;
mod spec;
mod success_policy;
mod tally;

use std::sync::Arc;

use api::{
    Object,
    resource::{JOBS, PODS},
};
use client::{Client, DeleteOptions, Error, Informer, ObjectKey, Outcome, Patch, Propagation, Sources, Tasks};
use serde_json::{Value, json};
use world::World;

use crate::{
    claims, fairness,
    informers::Informers,
    ownership,
    pod_control::{Owner, PodControl},
    time,
    written::Written,
};
use plan::Plan;
use spec::FINALIZER;

pub use conditions::Conditions;

const WORKERS: usize = 5;

struct Jobs {
    sources: Sources,
    jobs: Informer,
    pods: Informer,
    control: PodControl,
    written: Written,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let shared = Arc::new(Jobs {
        sources: sources.clone(),
        jobs: informers.jobs.clone(),
        pods: informers.pods.clone(),
        control: PodControl::start(tasks, world, "job-controller"),
        written: Written::default(),
        world: world.clone(),
    });
    client::enqueue(tasks, &shared.jobs, &queue, |key, _| vec![key.clone()], Vec::new);
    let (concerned, all) = (shared.jobs.clone(), shared.jobs.clone());
    let of_pod = move |key: &ObjectKey, pod: &Object| claims::owners_of(&concerned, key, pod);
    client::enqueue(tasks, &shared.pods, &queue, of_pod, move || all.keys());
    client::run(tasks, "jobs", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

impl Jobs {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        if !self.jobs.synced(source) || !self.pods.synced(source) {
            return Ok(Outcome::Done);
        }
        let client = self.sources.client(&key.plane)?;
        let Some(job) = self.jobs.get(key) else {
            self.control.forget(key);
            self.written.forget(key);
            return self.release(&client, key).await.map(|()| Outcome::Done);
        };
        if !spec::is_ours(&job) || self.written.outdates(key, &job) {
            // The event that brings the newer one brings us back.
            return Ok(Outcome::Done);
        }
        let Some(selector) = claims::selector(&job) else {
            return Ok(Outcome::Done);
        };
        let unmet = self.control.unmet(key, &self.pods, &self.sources).await?;
        let pods = claims::pods(&client, key, (&job, &JOBS), &selector, &self.pods).await?;
        let plan = plan::plan(&job, &pods, time::now(&self.world));
        let owner = Owner {
            client: &client,
            key,
            object: &job,
        };
        if plan.expired {
            return self.expire(&client, key, &job).await.map(|()| Outcome::Done);
        }
        if let Some(status) = &plan.status
            && !self.write(&client, key, &job, status).await?
        {
            return Ok(Outcome::Done);
        }
        for (kind, reason, message) in &plan.tell {
            self.control.tell(owner, *kind, reason, message.clone());
        }
        for pod in &plan.strip {
            strip(&client, pod).await?;
        }
        if unmet.is_none() {
            self.act(owner, &plan).await?;
        }
        let again = plan.look_again.into_iter().chain(unmet).min();
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    async fn act(&self, owner: Owner<'_>, plan: &Plan) -> Result<(), Error> {
        // Without the finalizer first, so that they are not counted as failures.
        for pod in &plan.remove {
            strip(owner.client, pod).await?;
        }
        let (_, not_created) = self.control.create(owner, &plan.create).await;
        let doomed: Vec<Object> = plan.remove.iter().chain(&plan.kill).cloned().collect();
        let (_, not_deleted) = self.control.delete(owner, &doomed).await;
        match not_created.or(not_deleted) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Writes what was counted, on what it was counted from and nothing newer. Returns whether it went through.
    async fn write(&self, client: &Client, key: &ObjectKey, job: &Object, status: &Value) -> Result<bool, Error> {
        let metadata = json!({"uid": job.uid(), "resourceVersion": job.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
        match client
            .patch_sub(&JOBS, key.namespace(), job.name(), "status", &patch)
            .await
        {
            Ok(written) => {
                self.written.note(key, &written);
                Ok(true)
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn expire(&self, client: &Client, key: &ObjectKey, job: &Object) -> Result<(), Error> {
        let options = DeleteOptions {
            resource_version: Some(job.resource_version().to_owned()),
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::of_uid(job.uid())
        };
        match client.delete(&JOBS, key.namespace(), &key.name, &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            done => done,
        }
    }

    /// The Pods of a Job that is gone are counted by nobody: nothing is to hold them.
    async fn release(&self, client: &Client, key: &ObjectKey) -> Result<(), Error> {
        if !self.jobs.proves_absence(&key.plane.source) {
            return Ok(());
        }
        let pods = self.pods.list(&key.plane, key.namespace()).into_iter();
        let orphans = pods.filter(|pod| {
            let of_job = |owner: ownership::Controller<'_>| owner.kind == JOBS.kind && *owner.name == *key.name;
            spec::is_tracked(pod) && ownership::controller_of(pod).is_some_and(of_job)
        });
        for pod in orphans {
            strip(client, &pod).await?;
        }
        Ok(())
    }
}

async fn strip(client: &Client, pod: &Object) -> Result<(), Error> {
    let patch = Patch::Strategic(json!({"metadata": {
        "uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}}));
    match client.patch(&PODS, Some(pod.namespace()), pod.name(), &patch).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}
