//! Some of a super cluster that is elsewhere, kept beside the planes: what is read by tenants through a view (nodes, storage
//! classes) has to be where the planes are. One way only; what was changed here is put right.

use api::{Object, Resource};
use client::{
    Client, DeleteOptions, Informer, InformerOptions, ObjectKey, Outcome, Patch, PlaneKey, Sources, Tasks, WorkQueue,
};
use serde_json::{Value, json};
use world::World;

const WORKERS: usize = 4;

pub struct MirrorOptions {
    /// The super cluster.
    pub from: Sources,
    pub from_plane: PlaneKey,
    /// The plane beside the tenants'.
    pub to: Sources,
    pub to_plane: PlaneKey,
    pub world: World,
}

/// Mirrors all objects of cluster-scoped kinds; it ends when the returned tasks are stopped or dropped.
pub fn start(options: &MirrorOptions, resources: &[Resource]) -> Result<Tasks, client::Error> {
    let tasks = Tasks::new();
    let client = options.to.client(&options.to_plane)?;
    for resource in resources {
        let mirror = Mirror {
            resource: resource.clone(),
            there: Informer::start(&options.from, resource.clone(), InformerOptions::default()),
            here: Informer::start(&options.to, resource.clone(), InformerOptions::default()),
            client: client.clone(),
            from_plane: options.from_plane.clone(),
            to_plane: options.to_plane.clone(),
        };
        mirror.start(&tasks, &options.world);
    }
    Ok(tasks)
}

#[derive(Clone)]
struct Mirror {
    resource: Resource,
    there: Informer,
    here: Informer,
    client: Client,
    from_plane: PlaneKey,
    to_plane: PlaneKey,
}

impl Mirror {
    fn start(self, tasks: &Tasks, world: &World) {
        let queue = WorkQueue::<ObjectKey>::new(world);
        let to_plane = self.to_plane.clone();
        let by_name = move |key: &ObjectKey, _: &Object| vec![to_plane.object("", &key.name)];
        client::enqueue(tasks, &self.there, &queue, by_name.clone(), Vec::new);
        client::enqueue(tasks, &self.here, &queue, by_name, Vec::new);
        tasks.spawn(async move {
            // Absence in a cache that is not whole would take away what is there.
            self.there.wait_synced().await;
            self.here.wait_synced().await;
            let loops = Tasks::new();
            client::run(&loops, "mirror", &queue, WORKERS, move |key| {
                let mirror = self.clone();
                async move { mirror.handle(&key).await }
            });
            std::future::pending::<()>().await;
            drop(loops);
        });
    }

    async fn handle(&self, key: &ObjectKey) -> Result<Outcome, client::Error> {
        let source = self.there.get(&self.from_plane.object("", &key.name));
        let here = self.here.get(key);
        let Some(source) = source.filter(|source| !source.is_deleting()) else {
            if let Some(here) = here {
                return self.delete(&here).await.map(|()| Outcome::Done);
            }
            return Ok(Outcome::Done);
        };
        let wanted = image(&source);
        let here = match here {
            Some(here) => here,
            None => match self.client.create(&self.resource, None, &wanted).await {
                Ok(made) => made,
                // The cache will show it.
                Err(error) if error.is_already_exists() => return Ok(Outcome::Done),
                Err(error) => return Err(error),
            },
        };
        let patch = |fields: Value| {
            let mut patch = fields;
            patch["metadata"]["uid"] = here.uid().into();
            Patch::Merge(patch)
        };
        let main = difference(&wanted, here.tree());
        if let Some(main) = main {
            match self.client.patch(&self.resource, None, &key.name, &patch(main)).await {
                // What can't change in place is made anew.
                Err(error) if error.is_invalid() || error.is_forbidden() => {
                    self.delete(&here).await?;
                    return Err(error);
                }
                patched => drop(patched?),
            }
        }
        if here.tree()["status"] != wanted["status"] && !wanted["status"].is_null() {
            let mut status = wanted["status"].clone();
            forget_what_is_gone(&mut status, &here.tree()["status"]);
            let status = patch(json!({"status": status}));
            self.client
                .patch_sub(&self.resource, None, &key.name, "status", &status)
                .await?;
        }
        Ok(Outcome::Done)
    }

    async fn delete(&self, here: &Object) -> Result<(), client::Error> {
        let options = DeleteOptions::of_uid(here.uid());
        match self.client.delete(&self.resource, None, here.name(), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The object as it should stand here: what the super cluster's own server keeps about it is left out.
fn image(source: &Object) -> Value {
    let mut image = source.tree().clone();
    let metadata = &source.tree()["metadata"];
    image["metadata"] = json!({"name": source.name()});
    for field in ["labels", "annotations"] {
        if metadata[field].is_object() {
            image["metadata"][field] = metadata[field].clone();
        }
    }
    image
}

/// A merge patch from `observed` to `wanted`, status aside.
fn difference(wanted: &Value, observed: &Value) -> Option<Value> {
    let mut patch = json!({});
    for field in ["labels", "annotations"] {
        let (mut ours, theirs) = (wanted["metadata"][field].clone(), &observed["metadata"][field]);
        if ours != *theirs {
            if ours.is_null() {
                ours = json!({});
            }
            forget_what_is_gone(&mut ours, theirs);
            patch["metadata"][field] = ours;
        }
    }
    let fields = wanted
        .as_object()
        .into_iter()
        .flatten()
        .map(|(field, _)| field.as_str());
    let gone = observed
        .as_object()
        .into_iter()
        .flatten()
        .map(|(field, _)| field.as_str());
    let mut all: Vec<&str> = fields.chain(gone).collect();
    all.sort_unstable();
    all.dedup();
    for field in all {
        if matches!(field, "apiVersion" | "kind" | "metadata" | "status") || wanted[field] == observed[field] {
            continue;
        }
        let mut ours = wanted[field].clone();
        forget_what_is_gone(&mut ours, &observed[field]);
        patch[field] = ours;
    }
    (patch != json!({})).then_some(patch)
}

/// A merge patch merges maps: keys that are gone have to be said.
fn forget_what_is_gone(ours: &mut Value, theirs: &Value) {
    if let (Some(ours), Some(theirs)) = (ours.as_object_mut(), theirs.as_object()) {
        for (key, value) in theirs {
            match ours.get_mut(key) {
                Some(inner) => forget_what_is_gone(inner, value),
                None => drop(ours.insert(key.clone(), Value::Null)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirrored_object_follows_in_all_its_fields() {
        let source = Object::from_tree(
            json!({"kind": "Node", "metadata": {"name": "n", "uid": "u", "resourceVersion": "9",
            "labels": {"a": "1"}}, "spec": {"taints": [{"key": "k"}]}, "status": {"capacity": {"cpu": "4"}}}),
        );
        let here = json!({"kind": "Node", "metadata": {"name": "n", "uid": "v", "labels": {"b": "2"}},
            "spec": {"unschedulable": true}, "status": {}});

        let wanted = image(&source);

        assert!(wanted["metadata"].get("uid").is_none());
        assert_eq!(
            difference(&wanted, &here),
            Some(json!({"metadata": {"labels": {"a": "1", "b": null}},
                "spec": {"taints": [{"key": "k"}], "unschedulable": null}}))
        );
        assert_eq!(difference(&wanted, &wanted), None);
    }
}
