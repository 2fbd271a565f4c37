//! Pods made and deleted for an owner: told in Events, remembered until the cache shows them.

use api::{Object, resource::PODS};
use client::{Client, DeleteOptions, EventRecorder, EventType, Informer, ObjectKey, Sources, Tasks};
use serde_json::Value;
use std::time::Duration;
use world::World;

use crate::expectations::Expectations;

/// Creations begin with one and double while they succeed: a template that is always refused costs few requests.
const SLOW_START_FIRST: usize = 1;

/// Why a pass failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    pub message: String,
}

impl From<Failure> for client::Error {
    /// So that the queue comes back to it.
    fn from(failure: Failure) -> client::Error {
        client::Error::Transport {
            source: failure.message.into(),
        }
    }
}

pub struct PodControl {
    expectations: Expectations,
    recorder: EventRecorder,
    world: World,
}

/// For whom.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub client: &'a Client,
    pub key: &'a ObjectKey,
    pub object: &'a Object,
}

impl PodControl {
    pub fn start(tasks: &Tasks, world: &World, component: &'static str) -> PodControl {
        PodControl {
            expectations: Expectations::default(),
            recorder: EventRecorder::start(tasks, world, component),
            world: world.clone(),
        }
    }

    pub fn tell(&self, owner: Owner<'_>, kind: EventType, reason: &str, message: impl Into<String>) {
        self.recorder.record(owner.client, owner.object, kind, reason, message);
    }

    pub fn forget(&self, key: &ObjectKey) {
        self.expectations.forget(key);
    }

    /// How long to wait for what was done before to come back; `None` if it has.
    pub async fn unmet(
        &self,
        key: &ObjectKey,
        pods: &Informer,
        sources: &Sources,
    ) -> Result<Option<Duration>, client::Error> {
        let now = self.world.clock.monotonic();
        self.expectations.unmet(key, pods, &PODS, sources, now).await
    }

    /// Makes Pods; returns those made, and what went wrong with the rest.
    pub async fn create(&self, owner: Owner<'_>, bodies: &[Value]) -> (Vec<Object>, Option<Failure>) {
        let pods = &PODS;
        let mut created = Vec::new();
        let mut left = bodies;
        let mut batch = SLOW_START_FIRST;
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let requests = now
                .iter()
                .map(|body| owner.client.create(pods, owner.key.namespace(), body));
            let mut failed = None;
            for made in futures::future::join_all(requests).await {
                match made {
                    Ok(pod) => {
                        self.expectations.made(owner.key, &pod, self.world.clock.monotonic());
                        let message = format!("Created pod: {}", pod.name());
                        self.tell(owner, EventType::Normal, "SuccessfulCreate", message);
                        created.push(pod);
                    }
                    // Nothing can be made there any more, and the owner goes too.
                    Err(error) if error.is_namespace_terminating() => return (created, None),
                    Err(error) => failed = Some(error.to_string()),
                }
            }
            if let Some(message) = failed {
                let event = format!("Error creating: {message}");
                self.tell(owner, EventType::Warning, "FailedCreate", event);
                let reason = "FailedCreate";
                return (created, Some(Failure { reason, message }));
            }
            left = later;
            batch *= 2;
        }
        (created, None)
    }

    /// Deletes Pods; returns the uids of those that go, and what went wrong with the rest.
    pub async fn delete(&self, owner: Owner<'_>, pods: &[Object]) -> (Vec<String>, Option<Failure>) {
        let requests = pods.iter().map(|pod| async move {
            let options = DeleteOptions::of_uid(pod.uid());
            let deleted = owner
                .client
                .delete(&PODS, owner.key.namespace(), pod.name(), &options)
                .await;
            (pod, deleted)
        });
        let (mut gone, mut failure) = (Vec::new(), None);
        for (pod, deleted) in futures::future::join_all(requests).await {
            match deleted {
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    let message = error.to_string();
                    let event = format!("Error deleting: {message}");
                    self.tell(owner, EventType::Warning, "FailedDelete", event);
                    let reason = "FailedDelete";
                    failure = Some(Failure { reason, message });
                    continue;
                }
                Ok(()) => {
                    let message = format!("Deleted pod: {}", pod.name());
                    self.tell(owner, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(_) => {}
            }
            self.expectations.deleted(owner.key, pod, self.world.clock.monotonic());
            gone.push(pod.uid().to_owned());
        }
        (gone, failure)
    }
}
