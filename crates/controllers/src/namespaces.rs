//! Ends namespaces: their content first (Pods before all else, since they use the rest), then the `kubernetes` finalizer.

use std::{sync::Arc, time::Duration};

use api::{Object, resource};
use client::{
    Client, DeleteOptions, Discovered, Informer, ListOptions, Notice, ObjectKey, Outcome, Patch, Sources, Tasks,
    WorkQueue,
};
use serde_json::{Value, json};
use world::World;

/// Namespaces ended at once.
const WORKERS: usize = 4;

/// Pods that leave are seen; for what else holds a namespace (finalizers of custom objects, say) it is looked again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Upstream's name for what this controller holds.
const FINALIZER: &str = "kubernetes";

struct Namespaces {
    sources: Sources,
    namespaces: Informer,
    pods: Informer,
    queue: WorkQueue<ObjectKey>,
}

pub fn start(sources: &Sources, namespaces: &Informer, pods: &Informer, world: World, tasks: &Tasks) {
    let shared = Arc::new(Namespaces {
        sources: sources.clone(),
        namespaces: namespaces.clone(),
        pods: pods.clone(),
        queue: WorkQueue::new(&world),
    });
    let watcher = shared.clone();
    tasks.spawn(async move { watcher.watch().await });
    let queue = shared.queue.clone();
    client::run(tasks, "namespaces", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.handle(&key).await }
    });
}

impl Namespaces {
    async fn watch(&self) {
        let (mut namespaces, mut pods) = (self.namespaces.subscribe(), self.pods.subscribe());
        loop {
            tokio::select! {
                notice = namespaces.next() => match notice {
                    Some(Notice::Change(change)) => if change.new.as_ref().is_some_and(is_ending) {
                        self.queue.add(change.key);
                    },
                    Some(Notice::Rescan) => {
                        let ending = self.namespaces.all().into_iter().filter(|(_, namespace)| is_ending(namespace));
                        ending.for_each(|(key, _)| self.queue.add(key));
                    }
                    Some(_) => {}
                    None => return,
                },
                notice = pods.next() => match notice {
                    Some(Notice::Change(change)) if change.new.is_none() => {
                        let namespace = change.key.plane.object("", &change.key.namespace);
                        if self.namespaces.get(&namespace).is_some_and(|namespace| is_ending(&namespace)) {
                            self.queue.add(namespace);
                        }
                    }
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    async fn handle(&self, key: &ObjectKey) -> Result<Outcome, client::Error> {
        let Some(namespace) = self.namespaces.get(key).filter(is_ending) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        let left = empty(&client, namespace.name()).await?;
        if !left.is_empty() {
            tell(&client, &namespace, &left).await?;
            return Ok(Outcome::After(LOOK_AGAIN));
        }
        let mut body = client
            .get(&resource::NAMESPACES, None, namespace.name())
            .await?
            .tree()
            .clone();
        if body["metadata"]["uid"] != namespace.uid() {
            return Ok(Outcome::Done);
        }
        if let Some(finalizers) = body["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match client
            .update_sub(&resource::NAMESPACES, None, namespace.name(), "finalize", &body)
            .await
        {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            done => done.map(|_| Outcome::Done),
        }
    }
}

/// Deletes what is in the namespace; returns what is still there, `3 pods`.
async fn empty(client: &Client, namespace: &str) -> Result<Vec<String>, client::Error> {
    let mut kinds = client.discover().await?;
    kinds.retain(|kind| {
        kind.resource.scope == api::resource::Scope::Namespaced && kind.can("list") && kind.can("delete")
    });
    // Events are served by two groups and stored once.
    kinds.retain(|kind| !(kind.resource.group == "events.k8s.io" && kind.resource.plural == "events"));
    let is_pods = |kind: &Discovered| kind.resource.group.is_empty() && kind.resource.plural == "pods";
    let (pods, others): (Vec<Discovered>, Vec<Discovered>) = kinds.into_iter().partition(is_pods);
    for stage in [pods, others] {
        let mut left = Vec::new();
        for kind in stage {
            let count = empty_of(client, namespace, &kind).await?;
            if count > 0 {
                left.push(format!("{count} {}", kind.resource.plural));
            }
        }
        if !left.is_empty() {
            return Ok(left);
        }
    }
    Ok(Vec::new())
}

async fn empty_of(client: &Client, namespace: &str, kind: &Discovered) -> Result<usize, client::Error> {
    let options = ListOptions {
        metadata_only: true,
        ..ListOptions::default()
    };
    let objects = match client.list_all(&kind.resource, Some(namespace), &options).await {
        Ok(objects) => objects,
        // A definition that was deleted between discovery and now took its objects along.
        Err(error) if error.is_not_found() => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut left = 0;
    for object in objects.items {
        if !object.is_deleting() {
            let options = DeleteOptions::of_uid(object.uid());
            match client
                .delete(&kind.resource, Some(namespace), object.name(), &options)
                .await
            {
                Err(error) if error.is_not_found() || error.is_conflict() => continue,
                // What is deleted without grace or finalizers is gone with the answer.
                done => done?,
            }
            match client.get(&kind.resource, Some(namespace), object.name()).await {
                Err(error) if error.is_not_found() => continue,
                still_there => drop(still_there?),
            }
        }
        left += 1;
    }
    Ok(left)
}

/// Says in the namespace what holds it, under upstream's condition.
async fn tell(client: &Client, namespace: &Object, left: &[String]) -> Result<(), client::Error> {
    let message = format!("Some resources are remaining: {}", left.join(", "));
    let conditions = namespace.tree()["status"]["conditions"].as_array();
    if conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["message"] == message)
    {
        return Ok(());
    }
    let condition: Value = json!({"type": "NamespaceContentRemaining", "status": "True",
        "reason": "SomeResourcesRemain", "message": message});
    let patch = Patch::Strategic(json!({"metadata": {"uid": namespace.uid()}, "status": {"conditions": [condition]}}));
    match client
        .patch_sub(&resource::NAMESPACES, None, namespace.name(), "status", &patch)
        .await
    {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}

/// Deleted, and still held by this controller.
fn is_ending(namespace: &Object) -> bool {
    let finalizers = namespace.tree()["spec"]["finalizers"].as_array();
    namespace.is_deleting() && finalizers.into_iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deleted_namespace_that_is_held_is_ending() {
        let namespace = |deleted: bool, finalizers: Value| {
            let mut tree = json!({"metadata": {"name": "n"}, "spec": {"finalizers": finalizers}});
            if deleted {
                tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            Object::from_tree(tree)
        };

        assert!(is_ending(&namespace(true, json!(["kubernetes"]))));
        assert!(!is_ending(&namespace(true, json!([]))));
        assert!(!is_ending(&namespace(false, json!(["kubernetes"]))));
    }
}
