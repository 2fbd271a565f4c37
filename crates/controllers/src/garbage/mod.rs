//! What nobody owns any more goes; what waits for its dependents goes after them.
//!
//! There is no graph of its own: informers are the nodes, and their index by owner is the edges. What the caches say is
//! gone is verified with its plane before anything is deleted. All custom objects of planes that share a keyspace are watched as one;
//! owners of kinds that are not watched are asked for when their dependents are seen, and again from time to time.

mod kinds;
mod verdict;

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{Object, Resource};
use client::{
    Client, DeleteOptions, Error, Informer, Notice, ObjectKey, Outcome, Patch, PlaneKey, Propagation, Sources, Tasks,
};
use serde_json::{Value, json};
use world::World;

use crate::{
    fairness::{self, Queue},
    informers::Informers,
    ownership,
};
use kinds::Kinds;
use verdict::{FOREGROUND, ORPHAN, Owner, State, Verdict};

/// As upstream's `--concurrent-gc-syncs`.
const WORKERS: usize = 20;
/// How soon the deletion of an owner whose kind is not watched is noticed.
const UNWATCHED_AGAIN: Duration = Duration::from_secs(60);
/// Owners known to be gone, as many as upstream remembers. A uid never comes back.
const GONE_MAX: usize = 500;

/// An object of one of the watched kinds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Item {
    kind: usize,
    key: ObjectKey,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kind {} of {}", self.kind, self.key)
    }
}

struct Garbage {
    sources: Sources,
    kinds: Kinds,
    queue: Queue<Item>,
    /// Whom their planes did not have when they were asked.
    absent: Gone,
    /// Custom objects whose deletion was told.
    seen_deleted: Gone,
}

/// How an object is reached in its plane.
struct Target {
    resource: Resource,
    namespace: Option<String>,
    name: String,
}

impl Target {
    async fn get(&self, client: &Client) -> Result<Object, Error> {
        client.get(&self.resource, self.namespace.as_deref(), &self.name).await
    }

    async fn patch(&self, client: &Client, patch: Patch) -> Result<Object, Error> {
        let patched = client.patch(&self.resource, self.namespace.as_deref(), &self.name, &patch);
        patched.await
    }
}

/// What becomes of an object's references to some owners.
#[derive(Clone, Copy)]
enum References {
    Taken,
    Unblocked,
}

/// Uids of what is gone, the last ones.
#[derive(Default)]
struct Gone(Mutex<(HashSet<String>, VecDeque<String>)>);

impl Gone {
    fn add(&self, plane: &PlaneKey, uid: &str) {
        let one = format!("{plane} {uid}");
        let mut all = self.0.lock().expect("no one panics while holding it");
        let (known, order) = &mut *all;
        if known.insert(one.clone()) {
            order.push_back(one);
        }
        if order.len() > GONE_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    fn has(&self, plane: &PlaneKey, uid: &str) -> bool {
        let all = self.0.lock().expect("no one panics while holding it");
        all.0.contains(&format!("{plane} {uid}"))
    }
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let shared = Arc::new(Garbage {
        sources: sources.clone(),
        kinds: Kinds::start(sources, informers),
        queue: fairness::by_plane_of(world, |item: &Item| item.key.plane.clone()),
        absent: Gone::default(),
        seen_deleted: Gone::default(),
    });
    for kind in 0..shared.kinds.informers.len() {
        let shared = shared.clone();
        tasks.spawn(async move { shared.watch(kind).await });
    }
    let queue = shared.queue.clone();
    client::run(tasks, "garbage", &queue, WORKERS, move |item| {
        let shared = shared.clone();
        async move { shared.reconcile(&item).await }
    });
}

impl Garbage {
    async fn watch(&self, kind: usize) {
        let informer = &self.kinds.informers[kind];
        let mut changes = informer.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => {
                    let (old, new) = (change.old.as_ref(), change.new.as_ref());
                    match (old, new) {
                        (Some(old), Some(new)) if !verdict::differs(old, new) => continue,
                        // Gone, or made anew under its name: what it owned has lost an owner.
                        (Some(old), new) if new.is_none_or(|new| new.uid() != old.uid()) => {
                            if kind == self.kinds.customs() {
                                // Its kind may go with it, and then nobody can be asked.
                                self.seen_deleted.add(&change.key.plane, old.uid());
                            }
                            self.dependents(&change.key.plane, old.uid())
                                .into_iter()
                                .for_each(|(item, _)| self.queue.add(item));
                        }
                        _ => {}
                    }
                    for object in old.into_iter().chain(new) {
                        self.look_at_waiting_owners(&change.key, object);
                    }
                    if new.is_some_and(verdict::is_relevant) {
                        self.queue.add(Item { kind, key: change.key });
                    }
                }
                // One kind that was put off for another's sake has to be looked at when that one is whole.
                Notice::Synced(_) => (0..self.kinds.informers.len()).for_each(|kind| self.add_all(kind)),
                Notice::Rescan => {
                    (0..self.kinds.informers.len()).for_each(|kind| self.add_all(kind));
                }
                Notice::Removed(_) => {}
            }
        }
    }

    fn add_all(&self, kind: usize) {
        for (key, object) in self.kinds.informers[kind].all() {
            if verdict::is_relevant(&object) {
                self.queue.add(Item { kind, key });
            }
        }
    }

    /// An owner that waits for its dependents may be done waiting.
    fn look_at_waiting_owners(&self, key: &ObjectKey, object: &Object) {
        for owner in verdict::owners(object) {
            let found = self.cached(key, &owner);
            if let Some((item, _)) = found.filter(|(_, there)| there.is_deleting()) {
                self.queue.add(item);
            }
        }
    }

    /// The owner, if it is of a kind that is watched and there.
    fn cached(&self, dependent: &ObjectKey, owner: &Owner) -> Option<(Item, Object)> {
        let found = |kind: usize, key: ObjectKey| {
            let there = self.kinds.informers[kind].get(&key)?;
            (there.uid() == owner.uid).then_some((Item { kind, key }, there))
        };
        if let Some((kind, informer)) = self.watched(owner) {
            return found(kind, owner_key(informer, dependent, &owner.name)?);
        }
        let customs = self.kinds.customs();
        [dependent.namespace().unwrap_or(""), ""]
            .into_iter()
            .find_map(|namespace| found(customs, dependent.plane.object(namespace, &owner.uid)))
    }

    fn watched(&self, owner: &Owner) -> Option<(usize, &Informer)> {
        let informer = self.kinds.watched(&owner.api_version, &owner.kind)?;
        let kind = self
            .kinds
            .informers
            .iter()
            .position(|other| other.resource() == informer.resource())?;
        Some((kind, informer))
    }

    fn dependents(&self, plane: &PlaneKey, uid: &str) -> Vec<(Item, Object)> {
        let value = ownership::of_uid(plane, uid);
        let all = self.kinds.informers.iter().enumerate().flat_map(|(kind, informer)| {
            let found = informer.by_index(ownership::BY_OWNER, &value);
            found.into_iter().map(move |(key, object)| (Item { kind, key }, object))
        });
        all.collect()
    }

    async fn reconcile(&self, item: &Item) -> Result<Outcome, Error> {
        let source = &item.key.plane.source;
        if !self.kinds.informers.iter().all(|informer| informer.synced(source)) {
            return Ok(Outcome::Done);
        }
        let informer = &self.kinds.informers[item.kind];
        let Some(object) = informer.get(&item.key) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&item.key.plane)?;
        if object.is_deleting() {
            return self.finish(&client, item, &object).await.map(|()| Outcome::Done);
        }
        let mut owners = Vec::new();
        let mut unwatched = false;
        for owner in verdict::owners(&object) {
            let state = self.state(&client, &item.key, &owner).await?;
            unwatched |=
                state == State::Solid && self.watched(&owner).is_none() && self.cached(&item.key, &owner).is_none();
            owners.push((owner, state));
        }
        let dependents = self.dependents(&item.key.plane, object.uid());
        match verdict::judge(&object, &owners, !dependents.is_empty()) {
            Verdict::Keep if unwatched => return Ok(Outcome::After(UNWATCHED_AGAIN)),
            Verdict::Keep => {}
            Verdict::Strip(gone) => self.refer(&client, item, &object, &gone, References::Taken).await?,
            Verdict::Delete(propagation) => {
                // Two that wait for each other would wait for ever: this one stops blocking its owners.
                let circle = dependents
                    .iter()
                    .any(|(_, dependent)| verdict::waits_for_dependents(dependent));
                if propagation == Propagation::Foreground && circle {
                    let owners: Vec<String> = owners.into_iter().map(|(owner, _)| owner.uid).collect();
                    self.refer(&client, item, &object, &owners, References::Unblocked)
                        .await?;
                }
                self.delete(&client, item, &object, propagation).await?;
            }
        }
        Ok(Outcome::Done)
    }

    async fn state(&self, client: &Client, dependent: &ObjectKey, owner: &Owner) -> Result<State, Error> {
        if let Some((_, there)) = self.cached(dependent, owner) {
            return Ok(if verdict::waits_for_dependents(&there) {
                State::Waiting
            } else {
                State::Solid
            });
        }
        if self.absent.has(&dependent.plane, &owner.uid) {
            return Ok(State::Absent);
        }
        let resource = match self.watched(owner) {
            Some((_, informer)) => Some(informer.resource().clone()),
            None => kinds::resolve(client, &owner.api_version, &owner.kind).await?,
        };
        let Some(resource) = resource else {
            // A definition that is gone has taken its objects with it.
            return Ok(match self.seen_deleted.has(&dependent.plane, &owner.uid) {
                true => State::Absent,
                false => State::Unknown,
            });
        };
        let Some(namespace) = kinds::namespace_of_owner(&resource, dependent.namespace()) else {
            return Ok(State::Unknown);
        };
        match client.get(&resource, namespace, &owner.name).await {
            Ok(there) if there.uid() != owner.uid => {}
            Ok(there) if verdict::waits_for_dependents(&there) => return Ok(State::Waiting),
            Ok(_) => return Ok(State::Solid),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        self.absent.add(&dependent.plane, &owner.uid);
        Ok(State::Absent)
    }

    /// How the object is reached; `None` if its plane does not serve its kind any more.
    async fn target(&self, client: &Client, item: &Item, object: &Object) -> Result<Option<Target>, Error> {
        let namespace = item.key.namespace().map(str::to_owned);
        let (resource, name) = if item.kind == self.kinds.customs() {
            let resource = kinds::resolve(client, object.api_version(), object.kind()).await?;
            (resource, object.name().to_owned())
        } else {
            let resource = self.kinds.informers[item.kind].resource();
            (Some(resource.clone()), item.key.name.to_string())
        };
        Ok(resource.map(|resource| Target {
            resource,
            namespace,
            name,
        }))
    }

    /// Changes an object's references to these owners.
    async fn refer(
        &self,
        client: &Client,
        item: &Item,
        object: &Object,
        owners: &[String],
        references: References,
    ) -> Result<(), Error> {
        let Some(target) = self.target(client, item, object).await? else {
            return Ok(());
        };
        if item.kind != self.kinds.customs() {
            let reference = |uid: &String| match references {
                References::Taken => json!({"$patch": "delete", "uid": uid}),
                References::Unblocked => json!({"uid": uid, "blockOwnerDeletion": false}),
            };
            let changed: Vec<Value> = owners.iter().map(reference).collect();
            let patch = json!({"metadata": {"uid": object.uid(), "ownerReferences": changed}});
            return settled(target.patch(client, Patch::Strategic(patch)).await);
        }
        // Custom objects know no strategic patch: the whole list, as it is now.
        let live = match target.get(client).await {
            Err(error) if error.is_not_found() => return Ok(()),
            live => live?,
        };
        if live.uid() != object.uid() {
            return Ok(());
        }
        let all = live.tree()["metadata"]["ownerReferences"].as_array();
        let mut all = all.cloned().unwrap_or_default();
        let meant = |reference: &Value| owners.iter().any(|uid| reference["uid"] == **uid);
        match references {
            References::Taken => all.retain(|reference| !meant(reference)),
            References::Unblocked => {
                for reference in all.iter_mut().filter(|reference| meant(reference)) {
                    reference["blockOwnerDeletion"] = false.into();
                }
            }
        }
        let patch = json!({"metadata": {
            "uid": live.uid(), "resourceVersion": live.resource_version(), "ownerReferences": all}});
        match target.patch(client, Patch::Merge(patch)).await {
            Err(error) if error.is_not_found() => Ok(()),
            done => done.map(drop),
        }
    }

    /// Deletes what the cache says is garbage, if its plane agrees that it has no other owners by now.
    async fn delete(
        &self,
        client: &Client,
        item: &Item,
        object: &Object,
        propagation: Propagation,
    ) -> Result<(), Error> {
        let Some(target) = self.target(client, item, object).await? else {
            return Ok(());
        };
        let live = match target.get(client).await {
            Err(error) if error.is_not_found() => return Ok(()),
            live => live?,
        };
        if live.uid() != object.uid() {
            return Ok(());
        }
        if verdict::owners(&live) != verdict::owners(object) {
            // The cache lags; what it shows next brings us back.
            return Err(Error::Transport {
                source: "the object has other owners than were seen".into(),
            });
        }
        let options = DeleteOptions {
            resource_version: Some(live.resource_version().to_owned()),
            propagation: Some(propagation),
            ..DeleteOptions::of_uid(live.uid())
        };
        let deleted = client.delete(&target.resource, target.namespace.as_deref(), &target.name, &options);
        match deleted.await {
            Err(error) if error.is_not_found() => Ok(()),
            done => done,
        }
    }

    /// Does for an object that is being deleted what its finalizers ask for.
    async fn finish(&self, client: &Client, item: &Item, object: &Object) -> Result<(), Error> {
        let dependents = self.dependents(&item.key.plane, object.uid());
        if verdict::orphans_dependents(object) {
            let owner = [object.uid().to_owned()];
            for (dependent, there) in dependents {
                self.refer(client, &dependent, &there, &owner, References::Taken)
                    .await?;
            }
            return self.release(client, item, object, ORPHAN).await;
        }
        if !verdict::waits_for_dependents(object) {
            return Ok(());
        }
        let blocks = |dependent: &Object| {
            verdict::owners(dependent)
                .iter()
                .any(|owner| owner.uid == object.uid() && owner.blocks)
        };
        let blocking: Vec<_> = dependents
            .into_iter()
            .filter(|(_, dependent)| blocks(dependent))
            .collect();
        if blocking.is_empty() {
            return self.release(client, item, object, FOREGROUND).await;
        }
        // Each is judged by itself: it may have other owners.
        for (dependent, there) in blocking {
            if !there.is_deleting() {
                self.queue.add(dependent);
            }
        }
        Ok(())
    }

    async fn release(&self, client: &Client, item: &Item, object: &Object, finalizer: &str) -> Result<(), Error> {
        let Some(target) = self.target(client, item, object).await? else {
            return Ok(());
        };
        let live = match target.get(client).await {
            Err(error) if error.is_not_found() => return Ok(()),
            live => live?,
        };
        if live.uid() != object.uid() || !verdict::has_finalizer(&live, finalizer) {
            return Ok(());
        }
        let left = live.tree()["metadata"]["finalizers"].as_array().into_iter().flatten();
        let left: Vec<&Value> = left.filter(|has| *has != finalizer).collect();
        let patch = Patch::Merge(json!({"metadata": {
            "uid": live.uid(), "resourceVersion": live.resource_version(), "finalizers": left}}));
        match target.patch(client, patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            done => done.map(drop),
        }
    }
}

fn owner_key(informer: &Informer, dependent: &ObjectKey, name: &str) -> Option<ObjectKey> {
    let namespace = kinds::namespace_of_owner(informer.resource(), dependent.namespace())?;
    Some(dependent.plane.object(namespace.unwrap_or(""), name))
}

/// A dependent that is gone, or was made anew, needs nothing more.
fn settled(result: Result<Object, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}
