//! Generic ephemeral volumes: a claim for each, made for its Pod and gone with it.

use std::sync::Arc;

use api::{
    Object,
    resource::{PERSISTENT_VOLUME_CLAIMS, PODS},
};
use client::{Error, EventRecorder, EventType, Informer, ObjectKey, Outcome, Sources, Tasks};
use serde_json::{Value, json};
use world::World;

use crate::{fairness, informers::Informers, ownership};

const WORKERS: usize = 2;

struct Ephemeral {
    sources: Sources,
    pods: Informer,
    claims: Informer,
    recorder: EventRecorder,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let shared = Arc::new(Ephemeral {
        sources: sources.clone(),
        pods: informers.pods.clone(),
        claims: informers.claims.clone(),
        recorder: EventRecorder::start(tasks, world, "ephemeral_volume"),
    });
    let of_pod = |key: &ObjectKey, pod: &Object| {
        let has_any = volumes(pod).next().is_some();
        has_any.then(|| key.clone()).into_iter().collect()
    };
    client::enqueue(tasks, &shared.pods, &queue, of_pod, Vec::new);
    let of_claim = |key: &ObjectKey, claim: &Object| ownership::owner_key(key, claim, &PODS.kind).into_iter().collect();
    client::enqueue(tasks, &shared.claims, &queue, of_claim, Vec::new);
    client::run(tasks, "ephemeral volumes", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

/// Name and template of each.
fn volumes(pod: &Object) -> impl Iterator<Item = (&str, &Value)> {
    let volumes = pod.tree()["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| {
        let template = &volume["ephemeral"]["volumeClaimTemplate"];
        Some((volume["name"].as_str()?, template)).filter(|_| template.is_object())
    })
}

fn claim(pod: &Object, volume: &str, template: &Value) -> Value {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": format!("{}-{volume}", pod.name()), "ownerReferences": [ownership::reference(pod, &PODS)]},
        "spec": template["spec"]});
    for map in ["labels", "annotations"] {
        if template["metadata"][map].is_object() {
            claim["metadata"][map] = template["metadata"][map].clone();
        }
    }
    claim
}

impl Ephemeral {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        if !self.claims.synced(&key.plane.source) {
            return Ok(Outcome::Done);
        }
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.is_deleting()) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        for (volume, template) in volumes(&pod) {
            let name = format!("{}-{volume}", pod.name());
            if let Some(there) = self.claims.get(&key.sibling(&name)) {
                let own = ownership::controller_of(&there).is_some_and(|owner| owner.uid == pod.uid());
                if !own {
                    let message = format!(
                        "PVC \"{}/{name}\" was not created for pod \"{}/{}\" (pod is not owner)",
                        pod.namespace(),
                        pod.namespace(),
                        pod.name()
                    );
                    self.recorder
                        .record(&client, &pod, EventType::Warning, "FailedCreate", message);
                }
                continue;
            }
            let body = claim(&pod, volume, template);
            match client.create(&PERSISTENT_VOLUME_CLAIMS, key.namespace(), &body).await {
                Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
                Err(error) => {
                    let message = format!("ephemeral volume {volume}: create PVC {name}: {error}");
                    self.recorder
                        .record(&client, &pod, EventType::Warning, "FailedCreate", message);
                    return Err(error);
                }
                Ok(_) => {}
            }
        }
        Ok(Outcome::Done)
    }
}
