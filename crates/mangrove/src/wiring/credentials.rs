//! What gets a tenant's administrator in, where there is no control socket: a Secret of the super cluster for each tenant, which
//! ends with its VirtualCluster.

use std::{sync::Arc, time::Duration, time::UNIX_EPOCH};

use api::{
    Object,
    resource::{SECRETS, VIRTUAL_CLUSTERS},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use client::{Client, DeleteOptions, Informer, ObjectKey, Outcome, Tasks, WorkQueue};
use identity::kubeconfig;
use serde_json::json;
use world::World;

use super::kubeconfigs::{CERTIFICATE_LIFE, Kubeconfigs};

const WORKERS: usize = 2;

/// When the certificate has to be replaced, seconds since 1970.
const RENEW_AT: &str = "tenancy.mangrove.io/renew-at";

#[derive(Clone)]
struct Credentials {
    clusters: Informer,
    client: Client,
    namespace: String,
    kubeconfigs: Arc<Kubeconfigs>,
    world: World,
}

fn secret_name(cluster: &str) -> String {
    format!("{cluster}-kubeconfig")
}

/// Keeps the Secrets; it ends when the returned tasks are stopped or dropped.
pub fn start(
    clusters: Informer,
    client: Client,
    namespace: &str,
    kubeconfigs: Arc<Kubeconfigs>,
    world: &World,
) -> Tasks {
    let tasks = Tasks::new();
    let credentials = Credentials {
        clusters,
        client,
        namespace: namespace.to_owned(),
        kubeconfigs,
        world: world.clone(),
    };
    let queue = WorkQueue::<ObjectKey>::new(world);
    client::enqueue(
        &tasks,
        &credentials.clusters,
        &queue,
        |key, _| vec![key.clone()],
        Vec::new,
    );
    client::run(&tasks, "credentials", &queue, WORKERS, move |key| {
        let credentials = credentials.clone();
        async move { credentials.handle(&key).await }
    });
    tasks
}

impl Credentials {
    async fn handle(&self, key: &ObjectKey) -> Result<Outcome, String> {
        let cluster = self.clusters.get(key).filter(|cluster| !cluster.is_deleting());
        let Some(cluster) = cluster else {
            return self.take_back(&key.name).await;
        };
        if cluster.tree()["status"]["phase"] != "Running" {
            return Ok(Outcome::Done);
        }
        let name = secret_name(cluster.name());
        let now = self.now();
        if let Some(there) = self.found(&name).await? {
            let due = there.annotation(RENEW_AT).and_then(|at| at.parse().ok()).unwrap_or(0);
            let is_its = there.tree()["metadata"]["ownerReferences"][0]["uid"] == cluster.uid();
            if is_its && due > now {
                return Ok(Outcome::After(Duration::from_secs(due - now)));
            }
            self.delete(&there).await?;
        }
        let Some(access) = self
            .kubeconfigs
            .tenant(cluster.name())
            .await
            .map_err(|error| error.to_string())?
        else {
            return Ok(Outcome::Done);
        };
        let text = kubeconfig::document(&access.into_entry()).map_err(|error| error.to_string())?;
        let life = CERTIFICATE_LIFE.mul_f64(0.8);
        let secret = self.secret(&cluster, &name, &text, now + life.as_secs());
        let made = self.client.create(&SECRETS, Some(&self.namespace), &secret).await;
        made.map_err(|error| error.to_string())?;
        Ok(Outcome::After(life))
    }

    /// At once, and not when the super cluster's garbage collection comes to it.
    async fn take_back(&self, cluster: &str) -> Result<Outcome, String> {
        if let Some(there) = self.found(&secret_name(cluster)).await? {
            let owner = &there.tree()["metadata"]["ownerReferences"][0];
            if owner["kind"] == *VIRTUAL_CLUSTERS.kind && owner["name"] == cluster {
                self.delete(&there).await?;
            }
        }
        Ok(Outcome::Done)
    }

    async fn found(&self, name: &str) -> Result<Option<Object>, String> {
        match self.client.get(&SECRETS, Some(&self.namespace), name).await {
            Ok(there) => Ok(Some(there)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn delete(&self, secret: &Object) -> Result<(), String> {
        let options = DeleteOptions::of_uid(secret.uid());
        let deleted = self
            .client
            .delete(&SECRETS, Some(&self.namespace), secret.name(), &options)
            .await;
        match deleted {
            Err(error) if !error.is_not_found() => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    fn secret(&self, cluster: &Object, name: &str, kubeconfig: &str, renew_at: u64) -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "name": name, "annotations": {RENEW_AT: renew_at.to_string()},
                "ownerReferences": [{"apiVersion": VIRTUAL_CLUSTERS.api_version(), "kind": VIRTUAL_CLUSTERS.kind,
                    "name": cluster.name(), "uid": cluster.uid()}],
            },
            "data": {"kubeconfig": STANDARD.encode(kubeconfig)},
        })
    }

    fn now(&self) -> u64 {
        let since = self.world.clock.wall().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }
}
