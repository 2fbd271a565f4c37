//! Claims get volumes: free ones that will do, or new directories on a node. Only in planes that have nodes of their own:
//! in the others whoever carries their claims to a cluster says what became of them.

mod local_path;
mod plan;
pub mod protection;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex},
};

use api::{
    Object,
    resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES},
};
use client::{
    Client, DeleteOptions, Error, EventRecorder, EventType, Informer, InformerOptions, Notice, ObjectKey, Outcome,
    Patch, PlaneKey, Sources, Tasks,
};
use serde_json::{Value, json};
use world::World;

use crate::{Clusters, fairness, fairness::Queue, informers::Informers};
use plan::{Step, View, VolumeStep};

const WORKERS: usize = 4;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Item {
    Claim(ObjectKey),
    Volume(ObjectKey),
    /// The class that a plane is to have once.
    Class(PlaneKey),
}

impl Item {
    fn plane(&self) -> PlaneKey {
        match self {
            Item::Claim(key) | Item::Volume(key) => key.plane.clone(),
            Item::Class(plane) => plane.clone(),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Claim(key) => write!(f, "claim {key}"),
            Item::Volume(key) => write!(f, "volume {key}"),
            Item::Class(plane) => write!(f, "class of {plane}"),
        }
    }
}

struct Volumes {
    sources: Sources,
    clusters: Clusters,
    claims: Informer,
    volumes: Informer,
    nodes: Informer,
    classes: Informer,
    recorder: EventRecorder,
    queue: Queue<Item>,
    /// Planes whose class was made, so that one that is deleted stays away until the next start.
    classed: Mutex<HashSet<PlaneKey>>,
}

pub fn start(sources: &Sources, informers: &Informers, clusters: &Clusters, world: &World, tasks: &Tasks) {
    let shared = Arc::new(Volumes {
        sources: sources.clone(),
        clusters: clusters.clone(),
        claims: informers.claims.clone(),
        volumes: informers.volumes.clone(),
        nodes: informers.nodes.clone(),
        classes: Informer::start(sources, STORAGE_CLASSES, InformerOptions::default()),
        recorder: EventRecorder::start(tasks, world, "persistentvolume-controller"),
        queue: fairness::by_plane_of(world, Item::plane),
        classed: Mutex::default(),
    });
    let watched = [&shared.claims, &shared.volumes, &shared.nodes, &shared.classes];
    for (place, informer) in watched.into_iter().enumerate() {
        let (shared, informer) = (shared.clone(), informer.clone());
        tasks.spawn(async move { shared.watch(place, &informer).await });
    }
    let queue = shared.queue.clone();
    client::run(tasks, "volumes", &queue, WORKERS, move |item: Item| {
        let shared = shared.clone();
        async move { shared.reconcile(&item).await }
    });
}

impl Volumes {
    /// A claim concerns itself and its volume; a volume itself and its claim, or all claims that wait for one; a node or
    /// class all of them.
    async fn watch(&self, place: usize, informer: &Informer) {
        let mut changes = informer.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => {
                    if !self.clusters.has(&change.key.plane) {
                        continue;
                    }
                    for object in change.old.iter().chain(&change.new) {
                        self.concern(place, &change.key, object);
                    }
                    // A heartbeat provisions nothing.
                    let appeared = change.old.is_none() || change.new.is_none();
                    if place >= 2 && (appeared || place == 3) {
                        self.add_plane(&change.key.plane);
                    }
                }
                Notice::Rescan | Notice::Synced(_) => {
                    let claims = self.claims.keys().into_iter().map(Item::Claim);
                    let volumes = self.volumes.keys().into_iter().map(Item::Volume);
                    claims.chain(volumes).for_each(|item| self.add(item));
                    let planes: HashSet<PlaneKey> = self.nodes.keys().into_iter().map(|key| key.plane).collect();
                    planes.into_iter().for_each(|plane| self.add(Item::Class(plane)));
                }
                Notice::Removed(_) => {}
            }
        }
    }

    fn concern(&self, place: usize, key: &ObjectKey, object: &Object) {
        let spec = &object.tree()["spec"];
        match place {
            0 => {
                self.add(Item::Claim(key.clone()));
                if let Some(volume) = spec["volumeName"].as_str().filter(|name| !name.is_empty()) {
                    self.add(Item::Volume(key.plane.object("", volume)));
                }
            }
            1 => {
                self.add(Item::Volume(key.clone()));
                let owner = &spec["claimRef"];
                match (owner["namespace"].as_str(), owner["name"].as_str()) {
                    (Some(namespace), Some(name)) => self.add(Item::Claim(key.plane.object(namespace, name))),
                    _ => self.add_waiting(&key.plane),
                }
            }
            2 => self.add(Item::Class(key.plane.clone())),
            _ => self.add_waiting(&key.plane),
        }
    }

    fn add(&self, item: Item) {
        if self.clusters.has(&item.plane()) {
            self.queue.add(item);
        }
    }

    fn add_waiting(&self, plane: &PlaneKey) {
        for claim in self.claims.list(plane, None) {
            if !api::volumes::is_bound(&claim) {
                self.add(Item::Claim(plane.object(claim.namespace(), claim.name())));
            }
        }
    }

    fn add_plane(&self, plane: &PlaneKey) {
        self.add_waiting(plane);
        for volume in self.volumes.list(plane, None) {
            self.add(Item::Volume(plane.object("", volume.name())));
        }
    }

    async fn reconcile(&self, item: &Item) -> Result<Outcome, Error> {
        let plane = item.plane();
        let needed = [&self.claims, &self.volumes, &self.nodes, &self.classes];
        if !needed.iter().all(|informer| informer.synced(&plane.source)) {
            return Ok(Outcome::Done);
        }
        let client = self.sources.client(&plane)?;
        match item {
            Item::Claim(key) => self.handle_claim(&client, key).await?,
            Item::Volume(key) => self.handle_volume(&client, key).await?,
            Item::Class(plane) => self.make_class(&client, plane).await?,
        }
        Ok(Outcome::Done)
    }

    async fn handle_claim(&self, client: &Client, key: &ObjectKey) -> Result<(), Error> {
        let Some(claim) = self.claims.get(key) else {
            return Ok(());
        };
        let step = {
            let volumes = self.volumes.list(&key.plane, None);
            let (classes, nodes) = (self.classes.list(&key.plane, None), self.nodes.list(&key.plane, None));
            let view = View {
                volumes: &volumes,
                classes: &classes,
                nodes: &nodes,
                usual_root: self.clusters.volumes_root(),
            };
            plan::plan_claim(&claim, &view)
        };
        match step {
            Step::Nothing => Ok(()),
            Step::Bind { volume } => self.bind(client, &claim, &volume).await,
            Step::Settle { volume } => settled(
                client
                    .patch_sub(
                        &PERSISTENT_VOLUME_CLAIMS,
                        key.namespace(),
                        &key.name,
                        "status",
                        &Patch::Merge(plan::claim_status(&claim, &volume)),
                    )
                    .await,
            ),
            Step::Provision { volume } => self.provision(client, &claim, &volume).await,
            Step::Ask { provisioner } => {
                let annotations = json!({"volume.kubernetes.io/storage-provisioner": provisioner,
                    "volume.beta.kubernetes.io/storage-provisioner": provisioner});
                let patch = json!({"metadata": {"uid": claim.uid(), "annotations": annotations}});
                let patch = Patch::Merge(patch);
                settled(
                    client
                        .patch(&PERSISTENT_VOLUME_CLAIMS, key.namespace(), &key.name, &patch)
                        .await,
                )
            }
            Step::Tell { kind, reason, message } => {
                self.recorder.record(client, &claim, kind, reason, message);
                Ok(())
            }
            Step::Lost if self.volumes.proves_absence(&key.plane.source) => self.lose(client, &claim).await,
            Step::Lost => Ok(()),
        }
    }

    async fn bind(&self, client: &Client, claim: &Object, volume: &Object) -> Result<(), Error> {
        let namespace = Some(claim.namespace());
        // The volume first: it can be one claim's only, and says whose.
        if let Some(patch) = plan::volume_patch(claim, volume) {
            client
                .patch(&PERSISTENT_VOLUMES, None, volume.name(), &Patch::Merge(patch))
                .await?;
        }
        let patch = Patch::Merge(plan::claim_patch(claim, volume));
        settled(
            client
                .patch(&PERSISTENT_VOLUME_CLAIMS, namespace, claim.name(), &patch)
                .await,
        )?;
        let status = Patch::Merge(plan::claim_status(claim, volume));
        settled(
            client
                .patch_sub(&PERSISTENT_VOLUME_CLAIMS, namespace, claim.name(), "status", &status)
                .await,
        )
    }

    async fn provision(&self, client: &Client, claim: &Object, volume: &Value) -> Result<(), Error> {
        let name = volume["metadata"]["name"].as_str().unwrap_or("");
        let made = match client.create(&PERSISTENT_VOLUMES, None, volume).await {
            Ok(made) => {
                let message = format!("Successfully provisioned volume {name}");
                self.recorder
                    .record(client, claim, EventType::Normal, "ProvisioningSucceeded", message);
                made
            }
            // Made before; the cache lags.
            Err(error) if error.is_already_exists() => client.get(&PERSISTENT_VOLUMES, None, name).await?,
            Err(error) => return Err(error),
        };
        self.bind(client, claim, &made).await
    }

    async fn lose(&self, client: &Client, claim: &Object) -> Result<(), Error> {
        if claim.tree()["status"]["phase"] == "Lost" {
            return Ok(());
        }
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        self.recorder
            .record(client, claim, EventType::Warning, "ClaimLost", message);
        let patch = Patch::Merge(json!({"metadata": {"uid": claim.uid()}, "status": {"phase": "Lost"}}));
        settled(
            client
                .patch_sub(
                    &PERSISTENT_VOLUME_CLAIMS,
                    Some(claim.namespace()),
                    claim.name(),
                    "status",
                    &patch,
                )
                .await,
        )
    }

    async fn handle_volume(&self, client: &Client, key: &ObjectKey) -> Result<(), Error> {
        let Some(volume) = self.volumes.get(key) else {
            return Ok(());
        };
        let owner = &volume.tree()["spec"]["claimRef"];
        let claim_key = key.plane.object(
            owner["namespace"].as_str().unwrap_or(""),
            owner["name"].as_str().unwrap_or(""),
        );
        let claim = self.claims.get(&claim_key);
        let nodes = self.nodes.list(&key.plane, None);
        let step = plan::plan_volume(&volume, claim.as_ref(), &nodes);
        let loses = matches!(step, VolumeStep::Delete | VolumeStep::Phase("Released"));
        if loses
            && !self
                .is_gone(client, &claim_key, owner["uid"].as_str().unwrap_or(""))
                .await?
        {
            return Ok(());
        }
        match step {
            VolumeStep::Nothing => Ok(()),
            VolumeStep::Phase(phase) => {
                let patch = Patch::Merge(json!({"metadata": {"uid": volume.uid()}, "status": {"phase": phase}}));
                settled(
                    client
                        .patch_sub(&PERSISTENT_VOLUMES, None, &key.name, "status", &patch)
                        .await,
                )
            }
            VolumeStep::Delete => {
                let options = DeleteOptions::of_uid(volume.uid());
                match client.delete(&PERSISTENT_VOLUMES, None, &key.name, &options).await {
                    Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
                    done => done,
                }
            }
            VolumeStep::GiveUpDirectory => {
                let patch = Patch::Strategic(json!({"metadata": {"uid": volume.uid(),
                    "$deleteFromPrimitiveList/finalizers": [local_path::DIRECTORY]}}));
                settled(client.patch(&PERSISTENT_VOLUMES, None, &key.name, &patch).await)
            }
        }
    }

    /// Data goes with the claim: only a live answer says that it is gone.
    async fn is_gone(&self, client: &Client, claim: &ObjectKey, uid: &str) -> Result<bool, Error> {
        match client
            .get(&PERSISTENT_VOLUME_CLAIMS, claim.namespace(), &claim.name)
            .await
        {
            Ok(there) => Ok(there.uid() != uid),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn make_class(&self, client: &Client, plane: &PlaneKey) -> Result<(), Error> {
        let fresh = self.classed().insert(plane.clone());
        if !fresh || self.classes.get(&plane.object("", local_path::CLASS)).is_some() {
            return Ok(());
        }
        match client.create(&STORAGE_CLASSES, None, &local_path::class()).await {
            Err(error) if !error.is_already_exists() => {
                self.classed().remove(plane);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn classed(&self) -> std::sync::MutexGuard<'_, HashSet<PlaneKey>> {
        self.classed.lock().expect("no one panics while holding it")
    }
}

/// What is gone or has changed needs nothing more from this pass; its event brings us back.
fn settled(result: Result<Object, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}
