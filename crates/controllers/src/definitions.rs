//! Definitions whose deletion was cut off go on going: the server takes their objects away within the request that deletes
//! them, and a request that ended with the server is made again. Once each time that the definitions are read whole.

use api::{Object, resource::CUSTOM_RESOURCE_DEFINITIONS};
use client::{DeleteOptions, Error, Informer, Notice, ObjectKey, Outcome, Sources, Tasks};
use world::World;

use crate::{fairness, informers::Informers};

/// Upstream's finalizer: held until no object of the definition is left.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

const WORKERS: usize = 2;

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let (definitions, found) = (informers.definitions.clone(), queue.clone());
    tasks.spawn(async move {
        let mut changes = definitions.subscribe();
        while let Some(notice) = changes.next().await {
            if matches!(notice, Notice::Synced(_) | Notice::Rescan) {
                let all = definitions.all().into_iter();
                all.filter(|(_, object)| is_ending(object))
                    .for_each(|(key, _)| found.add(key));
            }
        }
    });
    let (sources, definitions) = (sources.clone(), informers.definitions.clone());
    client::run(tasks, "definitions", &queue, WORKERS, move |key| {
        let (sources, definitions) = (sources.clone(), definitions.clone());
        async move { go_on(&sources, &definitions, &key).await }
    });
}

fn is_ending(definition: &Object) -> bool {
    let finalizers = definition.tree()["metadata"]["finalizers"].as_array();
    definition.is_deleting() && finalizers.is_some_and(|all| all.iter().any(|one| one == CLEANUP))
}

async fn go_on(sources: &Sources, definitions: &Informer, key: &ObjectKey) -> Result<Outcome, Error> {
    let Some(definition) = definitions.get(key).filter(is_ending) else {
        return Ok(Outcome::Done);
    };
    let client = sources.client(&key.plane)?;
    let options = DeleteOptions::of_uid(definition.uid());
    match client
        .delete(&CUSTOM_RESOURCE_DEFINITIONS, None, &key.name, &options)
        .await
    {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(Outcome::Done),
        done => done.map(|()| Outcome::Done),
    }
}
