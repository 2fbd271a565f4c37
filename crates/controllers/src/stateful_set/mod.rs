//! StatefulSets: Pods with names, numbers and claims of their own, one after the other.

mod identity;
mod plan;
#[cfg(test)]
mod plan_tests;
mod spec;

use std::sync::Arc;

use api::{
    Object,
    resource::{PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS},
};
use client::{
    Client, DeleteOptions, Error, EventRecorder, EventType, Informer, ObjectKey, Outcome, Patch, Sources, Tasks,
};
use serde_json::json;
use world::World;

use crate::{
    claims, fairness,
    informers::Informers,
    ownership::{self, BY_CONTROLLER},
    revisions::{self, Marks},
    time,
};
use plan::{Observed, Step, Which, Why};
use spec::Spec;

const WORKERS: usize = 5;

const MARKS: Marks = Marks {
    resource: &STATEFUL_SETS,
    hash_label: "controller.kubernetes.io/hash",
};

struct StatefulSets {
    sources: Sources,
    sets: Informer,
    pods: Informer,
    revisions: Informer,
    claims: Informer,
    recorder: EventRecorder,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let shared = Arc::new(StatefulSets {
        sources: sources.clone(),
        sets: informers.stateful_sets.clone(),
        pods: informers.pods.clone(),
        revisions: informers.controller_revisions.clone(),
        claims: informers.claims.clone(),
        recorder: EventRecorder::start(tasks, world, "statefulset-controller"),
        world: world.clone(),
    });
    client::enqueue(tasks, &shared.sets, &queue, |key, _| vec![key.clone()], Vec::new);
    let (concerned, all) = (shared.sets.clone(), shared.sets.clone());
    let of_pod = move |key: &ObjectKey, pod: &Object| claims::owners_of(&concerned, key, pod);
    client::enqueue(tasks, &shared.pods, &queue, of_pod, move || all.keys());
    let (concerned, all) = (shared.sets.clone(), shared.sets.clone());
    let of_claim = move |key: &ObjectKey, claim: &Object| sets_of_claim(&concerned, key, claim);
    client::enqueue(tasks, &shared.claims, &queue, of_claim, move || all.keys());
    let all = shared.sets.clone();
    let of_revision = |key: &ObjectKey, revision: &Object| {
        ownership::owner_key(key, revision, &STATEFUL_SETS.kind)
            .into_iter()
            .collect()
    };
    client::enqueue(tasks, &shared.revisions, &queue, of_revision, move || all.keys());
    client::run(tasks, "statefulsets", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

/// A claim that is gone may have held up the Pod that waits for its successor.
fn sets_of_claim(sets: &Informer, key: &ObjectKey, claim: &Object) -> Vec<ObjectKey> {
    let sets = sets.list(&key.plane, key.namespace()).into_iter();
    let own = sets.filter(|set| {
        let pod = claim
            .name()
            .find(&format!("-{}-", set.name()))
            .map(|at| &claim.name()[at + 1..]);
        pod.is_some_and(|pod| identity::ordinal(set, pod).is_some())
    });
    own.map(|set| key.sibling(set.name())).collect()
}

/// One pass over one set.
struct Pass<'a> {
    client: &'a Client,
    key: &'a ObjectKey,
    set: &'a Object,
    /// The set as it was at the revision that is rolled out from.
    current: Object,
    current_revision: String,
    update_revision: String,
}

impl StatefulSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        let needed = [&self.sets, &self.pods, &self.revisions, &self.claims];
        if !needed.iter().all(|informer| informer.synced(source)) {
            return Ok(Outcome::Done);
        }
        let Some(set) = self.sets.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(selector) = claims::selector(&set) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        let owner = (&set, &STATEFUL_SETS);
        let named = |pod: &Object| identity::ordinal(&set, pod.name()).is_some();
        let pods = claims::claimed_of(&client, key, owner, &selector, (&self.pods, &PODS), named).await?;
        if set.is_deleting() {
            return Ok(Outcome::Done);
        }
        let known = self
            .revisions
            .by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, set.uid()));
        let known: Vec<Object> = known.into_iter().map(|(_, revision)| revision).collect();
        let revisions = revisions::ensure(&client, key, &set, MARKS, known).await?;
        let told = set.tree()["status"]["currentRevision"].as_str().unwrap_or("");
        let current = revisions.others.iter().find(|revision| revision.name() == told);
        let current = current.unwrap_or(&revisions.update);
        let pass = Pass {
            client: &client,
            key,
            set: &set,
            current: revisions::at(&set, current),
            current_revision: current.name().to_owned(),
            update_revision: revisions.update.name().to_owned(),
        };
        let observed = Observed {
            set: &set,
            pods: &pods,
            current: &pass.current_revision,
            update: &pass.update_revision,
        };
        let now = time::now(&self.world);
        let plan = plan::plan(&observed, now);
        let condemned = |pod: &Object| {
            let is_scaled =
                |step: &Step| matches!(step, Step::Delete { pod: gone, why: Why::Scale } if gone.uid() == pod.uid());
            plan.steps.iter().any(is_scaled)
        };
        for pod in &pods {
            self.retain(&pass, pod, condemned(pod)).await?;
        }
        let taken = futures::future::join_all(plan.steps.iter().map(|step| self.take(&pass, step))).await;
        if let Some(status) = plan::status(&observed, revisions.collisions, now) {
            let patch = Patch::Merge(json!({"metadata": {"uid": set.uid()}, "status": status}));
            match client
                .patch_sub(&STATEFUL_SETS, key.namespace(), set.name(), "status", &patch)
                .await
            {
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                done => drop(done?),
            }
        }
        taken.into_iter().collect::<Result<(), Error>>()?;
        let in_use = |revision: &Object| {
            revision.name() == pass.current_revision
                || pods.iter().any(|pod| identity::revision(pod) == revision.name())
        };
        revisions::trim(&client, key, &set, &revisions.others, in_use).await?;
        Ok(plan.look_again.map_or(Outcome::Done, Outcome::After))
    }

    async fn take(&self, pass: &Pass<'_>, step: &Step) -> Result<(), Error> {
        match step {
            Step::Create { ordinal, which } => self.create(pass, *ordinal, *which).await,
            Step::Delete { pod, why } => self.delete(pass, pod, *why).await,
            Step::Mend { pod, metadata } => {
                let mut patch = json!({"metadata": metadata});
                patch["metadata"]["uid"] = json!(pod.uid());
                let patch = Patch::Merge(patch);
                settled(pass.client.patch(&PODS, pass.key.namespace(), pod.name(), &patch).await)
            }
        }
    }

    async fn create(&self, pass: &Pass<'_>, ordinal: i64, which: Which) -> Result<(), Error> {
        let (set, revision) = match which {
            Which::Current => (&pass.current, &pass.current_revision),
            Which::Update => (pass.set, &pass.update_revision),
        };
        let name = identity::pod_name(set, ordinal);
        let made = match self.make_claims(pass, set, ordinal, &name).await {
            Ok(()) => {
                let body = identity::pod(set, revision, ordinal);
                pass.client.create(&PODS, pass.key.namespace(), &body).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", set.name());
                self.tell(pass, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // Made before, and the cache lags; or another's, which has to go first.
            Err(error) if error.is_already_exists() => {
                let there = pass.client.get(&PODS, pass.key.namespace(), &name).await;
                match there {
                    Ok(pod) if ownership::controller_of(&pod).is_some_and(|owner| owner.uid == pass.set.uid()) => {
                        Ok(())
                    }
                    Err(gone) if gone.is_not_found() => Ok(()),
                    _ => {
                        let message = format!("create Pod {name} in StatefulSet {} failed error: {error}", set.name());
                        self.tell(pass, EventType::Warning, "FailedCreate", message);
                        Err(error)
                    }
                }
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("create Pod {name} in StatefulSet {} failed error: {error}", set.name());
                self.tell(pass, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn make_claims(&self, pass: &Pass<'_>, set: &Object, ordinal: i64, pod: &str) -> Result<(), Error> {
        for claim in identity::claims(set, ordinal) {
            let name = claim["metadata"]["name"].as_str().unwrap_or("");
            match self.claims.get(&pass.key.sibling(name)) {
                Some(there) if there.is_deleting() => {
                    return Err(Error::Transport {
                        source: format!("pvc {name} is being deleted").into(),
                    });
                }
                Some(_) => continue,
                None => {}
            }
            match pass
                .client
                .create(&PERSISTENT_VOLUME_CLAIMS, pass.key.namespace(), &claim)
                .await
            {
                Ok(_) => {
                    let message = format!("create Claim {name} Pod {pod} in StatefulSet {} success", set.name());
                    self.tell(pass, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn delete(&self, pass: &Pass<'_>, pod: &Object, why: Why) -> Result<(), Error> {
        let set = pass.set.name();
        if why == Why::Over {
            let (phase, reason) = match crate::pods::phase(pod) {
                "Failed" => ("failed", "RecreatingFailedPod"),
                _ => ("terminated", "RecreatingTerminatedPod"),
            };
            let message = format!(
                "StatefulSet {}/{set} is recreating {phase} Pod {}",
                pass.set.namespace(),
                pod.name()
            );
            self.tell(pass, EventType::Warning, reason, message);
        }
        let options = DeleteOptions::of_uid(pod.uid());
        match pass
            .client
            .delete(&PODS, pass.key.namespace(), pod.name(), &options)
            .await
        {
            Ok(()) => {
                let message = format!("delete Pod {} in StatefulSet {set} successful", pod.name());
                self.tell(pass, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                let message = format!("delete Pod {} in StatefulSet {set} failed error: {error}", pod.name());
                self.tell(pass, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Has the claims of a Pod belong to whom they go with.
    async fn retain(&self, pass: &Pass<'_>, pod: &Object, condemned: bool) -> Result<(), Error> {
        let Some(ordinal) = identity::ordinal(pass.set, pod.name()) else {
            return Ok(());
        };
        // One that is out of range is on its way out even if it is not its turn yet.
        let spec = Spec::of(pass.set);
        let condemned = condemned || !spec.ordinals().contains(&ordinal);
        for (_, name) in identity::claim_names(pass.set, ordinal) {
            let claim = match self.claims.get(&pass.key.sibling(&name)) {
                Some(claim) => claim,
                // It may have been made a moment ago, and nobody comes back to it once its Pod is gone.
                None if condemned => match pass
                    .client
                    .get(&PERSISTENT_VOLUME_CLAIMS, pass.key.namespace(), &name)
                    .await
                {
                    Err(error) if error.is_not_found() => continue,
                    live => live?,
                },
                None => continue,
            };
            let Some(patch) = identity::owners_patch(&claim, pass.set, spec.retention, condemned.then_some(pod)) else {
                continue;
            };
            let patched = pass
                .client
                .patch(
                    &PERSISTENT_VOLUME_CLAIMS,
                    pass.key.namespace(),
                    &name,
                    &Patch::Strategic(patch),
                )
                .await;
            match patched {
                Err(error) if error.is_not_found() => {}
                // A conflict too: the claim has other owners than were seen, and its Pod stays until it has the right ones.
                done => drop(done?),
            }
        }
        Ok(())
    }

    fn tell(&self, pass: &Pass<'_>, kind: EventType, reason: &str, message: String) {
        self.recorder.record(pass.client, pass.set, kind, reason, message);
    }
}

/// What is gone or was made anew needs nothing more from this pass.
fn settled(result: Result<Object, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}
