//! Directories that were provisioned as volumes on this machine go with their volumes: a PersistentVolume that is deleted
//! is held by a finalizer until its directory is gone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    Object,
    resource::{NODES, PERSISTENT_VOLUMES},
};
use client::{Backoff, Error, Patch};
use serde_json::json;
use tokio::sync::Notify;

use super::context::Context;
use crate::watch::{self, Delta, Selection};

/// On a Node: where its directories are made.
const ROOT: &str = "volume.mangrove.io/local-path-root";
const FINALIZER: &str = "volume.mangrove.io/directory";

/// A directory that cannot be removed (somebody is in it) is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);
const ANNOUNCE_FIRST: Duration = Duration::from_millis(100);

/// Where directories are on this machine.
fn root(agent_root: &Path) -> PathBuf {
    agent_root.join("volumes")
}

/// Volumes that are to be cleared away, by name: as many as there are, one after the other.
#[derive(Default)]
struct Leaving {
    volumes: Mutex<BTreeMap<String, Object>>,
    news: Notify,
}

impl Leaving {
    fn add(&self, volume: Object) {
        self.lock().insert(volume.name().to_owned(), volume);
        self.news.notify_one();
    }

    async fn next(&self) -> Object {
        loop {
            if let Some((_, volume)) = self.lock().pop_first() {
                return volume;
            }
            self.news.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Object>> {
        self.volumes.lock().expect("no one panics while holding it")
    }
}

/// Runs until dropped.
pub async fn run(context: Arc<Context>) {
    let selection = Selection {
        resource: PERSISTENT_VOLUMES,
        namespace: None,
        fields: None,
    };
    let (root, leaving) = (root(&context.root), Leaving::default());
    let tell = |delta: Delta| {
        let volumes = match delta {
            Delta::All(volumes) => volumes,
            Delta::Set(volume) => vec![volume],
            Delta::Gone(_) => Vec::new(),
        };
        let ours = volumes
            .into_iter()
            .filter(|volume| directory(volume, &root, &context.node_name).is_some());
        ours.for_each(|volume| leaving.add(volume));
    };
    let announced = announce(&context, &root);
    let followed = watch::follow(context.client.clone(), selection, context.world.clone(), tell);
    let removed = async {
        loop {
            let volume = leaving.next().await;
            let Some(path) = directory(&volume, &root, &context.node_name) else {
                continue;
            };
            if let Err(error) = remove(&context, &volume, path).await {
                tracing::warn!(%error, volume = volume.name(), "a volume's directory could not be removed");
                context.world.clock.sleep(AGAIN).await;
                leaving.add(volume);
            }
        }
    };
    tokio::join!(announced, followed, removed);
}

/// Says on the Node where directories are to be made, as soon as the Node is there.
async fn announce(context: &Context, root: &Path) {
    let mut backoff = Backoff::new(ANNOUNCE_FIRST, AGAIN);
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ROOT: root.to_string_lossy()}}}));
    while let Err(error) = context.client.patch(&NODES, None, &context.node_name, &patch).await {
        tracing::debug!(%error, "the place of volumes was not announced");
        context.world.clock.sleep(backoff.next(&*context.world.random)).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum RemoveError {
    #[error("{path}: {source}", path = path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Plane(#[from] Error),
}

async fn remove(context: &Context, volume: &Object, path: PathBuf) -> Result<(), RemoveError> {
    let doomed = path.clone();
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(doomed)).await;
    match removed.map_err(std::io::Error::other).and_then(|removed| removed) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(RemoveError::Directory { path, source });
        }
        _ => {}
    }
    let patch = Patch::Strategic(json!({"metadata": {"uid": volume.uid(),
        "$deleteFromPrimitiveList/finalizers": [FINALIZER]}}));
    match context
        .client
        .patch(&PERSISTENT_VOLUMES, None, volume.name(), &patch)
        .await
    {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// The directory to remove of a volume that leaves; `None` if there is nothing of ours to do. A volume says where its
/// files are, and whoever may write volumes must not be able to have anything else removed: only what is directly under
/// `root` is. Other machines may have the same paths: the volume is to be this one's.
fn directory(volume: &Object, root: &Path, host: &str) -> Option<PathBuf> {
    let tree = volume.tree();
    let finalizers = tree["metadata"]["finalizers"].as_array()?;
    if !volume.is_deleting() || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return None;
    }
    let terms = &tree["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    if terms[0]["matchExpressions"][0]["values"][0].as_str() != Some(host) {
        return None;
    }
    let path = PathBuf::from(tree["spec"]["local"]["path"].as_str()?);
    let plain = path.file_name().is_some_and(|name| path == root.join(name));
    plain.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn only_what_is_directly_under_the_root_is_removed_and_only_of_volumes_that_leave() {
        let volume = |path: &str, change: fn(&mut Value)| {
            let here =
                json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}]);
            let mut tree = json!({"metadata": {"name": "v", "finalizers": [FINALIZER],
                "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": here}}}});
            change(&mut tree);
            directory(&Object::from_tree(tree), Path::new("/data/volumes"), "a")
        };

        assert_eq!(
            volume("/data/volumes/pvc-1", |_| {}),
            Some("/data/volumes/pvc-1".into())
        );
        for path in [
            "/etc",
            "/data/volumes",
            "/data/volumes/..",
            "/data/volumes/a/b",
            "/data/volumes/../x",
        ] {
            assert_eq!(volume(path, |_| {}), None, "{path}");
        }
        assert_eq!(
            volume("/data/volumes/pvc-1", |tree| tree["metadata"]["deletionTimestamp"] =
                Value::Null),
            None
        );
        assert_eq!(
            volume("/data/volumes/pvc-1", |tree| tree["metadata"]["finalizers"] = json!([])),
            None
        );
        assert_eq!(
            volume("/data/volumes/pvc-1", |tree| tree["spec"]["nodeAffinity"] = Value::Null),
            None
        );
    }
}
