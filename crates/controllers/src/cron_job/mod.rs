//! CronJobs: a Job at each time of a schedule.

mod plan;
mod schedule;

use std::sync::Arc;

use api::{
    Object,
    resource::{CRON_JOBS, JOBS},
};
use client::{
    Client, DeleteOptions, Error, EventRecorder, EventType, Informer, ObjectKey, Outcome, Patch, Propagation, Sources,
    Tasks,
};
use serde_json::{Value, json};
use world::World;

use crate::{
    fairness,
    informers::Informers,
    ownership::{self, BY_CONTROLLER},
    time,
    written::Written,
};
use plan::Start;

const WORKERS: usize = 5;

struct CronJobs {
    sources: Sources,
    cron_jobs: Informer,
    jobs: Informer,
    recorder: EventRecorder,
    written: Written,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let shared = Arc::new(CronJobs {
        sources: sources.clone(),
        cron_jobs: informers.cron_jobs.clone(),
        jobs: informers.jobs.clone(),
        recorder: EventRecorder::start(tasks, world, "cronjob-controller"),
        written: Written::default(),
        world: world.clone(),
    });
    client::enqueue(tasks, &shared.cron_jobs, &queue, |key, _| vec![key.clone()], Vec::new);
    let all = shared.cron_jobs.clone();
    let of_job = |key: &ObjectKey, job: &Object| ownership::owner_key(key, job, &CRON_JOBS.kind).into_iter().collect();
    client::enqueue(tasks, &shared.jobs, &queue, of_job, move || all.keys());
    client::run(tasks, "cronjobs", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

impl CronJobs {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        if !self.cron_jobs.synced(source) || !self.jobs.synced(source) {
            return Ok(Outcome::Done);
        }
        let Some(cron_job) = self.cron_jobs.get(key) else {
            self.written.forget(key);
            return Ok(Outcome::Done);
        };
        if self.written.outdates(key, &cron_job) {
            // The event that brings the newer one brings us back.
            return Ok(Outcome::Done);
        }
        let client = self.sources.client(&key.plane)?;
        let jobs = self
            .jobs
            .by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, cron_job.uid()));
        let jobs: Vec<Object> = jobs.into_iter().map(|(_, job)| job).collect();
        let plan = plan::plan(&cron_job, &jobs, time::now(&self.world));
        for (kind, reason, message) in plan.tell {
            self.recorder.record(&client, &cron_job, kind, reason, message);
        }
        for job in plan.forget.iter().chain(&plan.replace) {
            self.delete(&client, &cron_job, job).await?;
        }
        let mut status = plan.status;
        if let Some(start) = &plan.start
            && let Some(job) = self.start_job(&client, &cron_job, start).await?
        {
            let status = status.get_or_insert_with(|| json!({}));
            let mut active: Vec<Value> = jobs
                .iter()
                .filter(|job| crate::job::Conditions::of(job).finished().is_none() && !plan.replace.contains(job))
                .map(plan::reference)
                .collect();
            active.retain(|known| known["uid"] != job.uid());
            active.push(plan::reference(&job));
            status["active"] = json!(active);
            status["lastScheduleTime"] = json!(time::text(start.scheduled));
        }
        if let Some(status) = status {
            self.write(&client, key, &cron_job, status).await?;
        }
        Ok(plan.look_again.map_or(Outcome::Done, Outcome::After))
    }

    /// `None`: its namespace is going away.
    async fn start_job(&self, client: &Client, cron_job: &Object, start: &Start) -> Result<Option<Object>, Error> {
        let namespace = Some(cron_job.namespace());
        match client.create(&JOBS, namespace, &start.body).await {
            Ok(job) => {
                let message = format!("Created job {}", job.name());
                self.recorder
                    .record(client, cron_job, EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(job))
            }
            Err(error) if error.is_namespace_terminating() => Ok(None),
            Err(error) => {
                if error.is_already_exists() {
                    let name = start.body["metadata"]["name"].as_str().unwrap_or("");
                    let there = client.get(&JOBS, namespace, name).await?;
                    // Started before, by a pass whose end was not seen.
                    if ownership::controller_of(&there).is_some_and(|owner| owner.uid == cron_job.uid()) {
                        return Ok(Some(there));
                    }
                }
                let message = format!("Error creating job: {error}");
                self.recorder
                    .record(client, cron_job, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn delete(&self, client: &Client, cron_job: &Object, job: &Object) -> Result<(), Error> {
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..DeleteOptions::of_uid(job.uid())
        };
        match client.delete(&JOBS, Some(job.namespace()), job.name(), &options).await {
            Ok(()) => {
                let message = format!("Deleted job {}", job.name());
                self.recorder
                    .record(client, cron_job, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, client: &Client, key: &ObjectKey, cron_job: &Object, status: Value) -> Result<(), Error> {
        let patch = Patch::Merge(json!({"metadata": {"uid": cron_job.uid()}, "status": status}));
        match client
            .patch_sub(&CRON_JOBS, key.namespace(), cron_job.name(), "status", &patch)
            .await
        {
            Ok(written) => {
                self.written.note(key, &written);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
