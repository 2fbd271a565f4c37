//! Claims that Pods use and volumes that claims have are not deleted from under them: finalizers, as upstream's. Volumes only
//! where they are a plane's own: those that a plane is shown go when whoever shows them says so.

use std::{fmt, sync::Arc};

use api::{
    Object, Resource,
    resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES},
};
use client::{Client, Error, Informer, Notice, ObjectKey, Outcome, Patch, PlaneKey, Sources, Tasks};
use serde_json::json;
use world::World;

use crate::{Clusters, fairness, informers::Informers, pods};

const WORKERS: usize = 2;
const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Item {
    Claim(ObjectKey),
    Volume(ObjectKey),
}

impl Item {
    fn key(&self) -> &ObjectKey {
        match self {
            Item::Claim(key) | Item::Volume(key) => key,
        }
    }

    fn plane(&self) -> PlaneKey {
        self.key().plane.clone()
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key())
    }
}

struct Protection {
    sources: Sources,
    claims: Informer,
    volumes: Informer,
    pods: Informer,
}

pub fn start(sources: &Sources, informers: &Informers, clusters: &Clusters, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane_of(world, Item::plane);
    let shared = Arc::new(Protection {
        sources: sources.clone(),
        claims: informers.claims.clone(),
        volumes: informers.volumes.clone(),
        pods: informers.pods.clone(),
    });
    let claim = |key: &ObjectKey, _: &Object| vec![Item::Claim(key.clone())];
    client::enqueue(tasks, &shared.claims, &queue, claim, Vec::new);
    let own = clusters.clone();
    let volume = move |key: &ObjectKey, _: &Object| {
        let is_own = own.has(&key.plane);
        is_own.then(|| Item::Volume(key.clone())).into_iter().collect()
    };
    client::enqueue(tasks, &shared.volumes, &queue, volume, Vec::new);
    // A Pod that is gone or over may have been the last that a deleted claim waits for.
    let (watched, ready) = (shared.clone(), queue.clone());
    tasks.spawn(async move {
        let mut changes = watched.pods.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => {
                    if change.new.as_ref().is_none_or(|pod| !pods::is_active(pod)) {
                        let pods = change.old.iter().chain(&change.new);
                        let claims = pods.flat_map(|pod| used(pod).map(str::to_owned).collect::<Vec<_>>());
                        claims.for_each(|name| ready.add(Item::Claim(change.key.sibling(&name))));
                    }
                }
                Notice::Rescan | Notice::Synced(_) => {
                    watched
                        .claims
                        .keys()
                        .into_iter()
                        .for_each(|key| ready.add(Item::Claim(key)));
                }
                Notice::Removed(_) => {}
            }
        }
    });
    client::run(tasks, "volume protection", &queue, WORKERS, move |item: Item| {
        let shared = shared.clone();
        async move { shared.reconcile(&item).await }
    });
}

/// The claims that a Pod uses.
fn used(pod: &Object) -> impl Iterator<Item = &str> {
    let volumes = pod.tree()["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

impl Protection {
    async fn reconcile(&self, item: &Item) -> Result<Outcome, Error> {
        let source = &item.key().plane.source;
        if ![&self.claims, &self.volumes, &self.pods]
            .iter()
            .all(|informer| informer.synced(source))
        {
            return Ok(Outcome::Done);
        }
        let client = self.sources.client(&item.key().plane)?;
        match item {
            Item::Claim(key) => {
                let Some(claim) = self.claims.get(key) else {
                    return Ok(Outcome::Done);
                };
                let in_use = || {
                    let pods = self.pods.list(&key.plane, key.namespace()).into_iter();
                    // Upstream's rule: one that is finished and unbound may still hold it; ours has let go by then.
                    pods.filter(|pod| !matches!(pods::phase(pod), "Succeeded" | "Failed"))
                        .any(|pod| used(&pod).any(|name| *name == *key.name))
                };
                protect(&client, &PERSISTENT_VOLUME_CLAIMS, &claim, CLAIM, in_use).await?;
            }
            Item::Volume(key) => {
                let Some(volume) = self.volumes.get(key) else {
                    return Ok(Outcome::Done);
                };
                let in_use = || volume.tree()["status"]["phase"] == "Bound";
                protect(&client, &PERSISTENT_VOLUMES, &volume, VOLUME, in_use).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// Puts the finalizer on what is there, and takes it off what is deleted and used by nobody.
async fn protect(
    client: &Client,
    resource: &Resource,
    object: &Object,
    finalizer: &str,
    in_use: impl Fn() -> bool,
) -> Result<(), Error> {
    let finalizers = object.tree()["metadata"]["finalizers"].as_array();
    let has = finalizers
        .into_iter()
        .flatten()
        .any(|held| held.as_str() == Some(finalizer));
    let change = match (object.is_deleting(), has) {
        (false, false) => json!({"finalizers": [finalizer]}),
        (true, true) if !in_use() => json!({"$deleteFromPrimitiveList/finalizers": [finalizer]}),
        _ => return Ok(()),
    };
    let mut patch = json!({"metadata": change});
    patch["metadata"]["uid"] = json!(object.uid());
    let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
    match client
        .patch(resource, namespace, object.name(), &Patch::Strategic(patch))
        .await
    {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}
