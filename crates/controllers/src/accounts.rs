//! What every namespace has: a service account `default`, and its plane's CA in the ConfigMap `kube-root-ca.crt`.

use std::sync::Arc;

use api::{Object, Resource, resource};
use client::{Informer, InformerOptions, Notice, ObjectKey, Outcome, Patch, Sources, Tasks, WorkQueue};
use serde_json::{Value, json};
use world::World;

use crate::RootCa;

const WORKERS: usize = 4;
const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

/// Upstream's words on what the ConfigMap is good for.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

struct Accounts {
    sources: Sources,
    namespaces: Informer,
    accounts: Informer,
    bundles: Informer,
    root_ca: RootCa,
    queue: WorkQueue<ObjectKey>,
}

pub fn start(sources: &Sources, namespaces: &Informer, root_ca: RootCa, world: World, tasks: &Tasks) {
    let named = |name: &str| InformerOptions {
        field_selector: Some(format!("metadata.name={name}")),
        ..InformerOptions::default()
    };
    let shared = Arc::new(Accounts {
        sources: sources.clone(),
        namespaces: namespaces.clone(),
        accounts: Informer::start(sources, resource::SERVICE_ACCOUNTS, named(ACCOUNT)),
        bundles: Informer::start(sources, resource::CONFIG_MAPS, named(ROOT_CA)),
        root_ca,
        queue: WorkQueue::new(&world),
    });
    for informer in [&shared.namespaces, &shared.accounts, &shared.bundles] {
        let (shared, informer) = (shared.clone(), informer.clone());
        tasks.spawn(async move { shared.watch(&informer).await });
    }
    let queue = shared.queue.clone();
    client::run(tasks, "accounts", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move {
            match shared.handle(&key).await {
                Err(error) if !error.is_namespace_terminating() && !error.is_not_found() => Err(error),
                _ => Ok(Outcome::Done),
            }
        }
    });
}

impl Accounts {
    /// A change of a namespace, or of what it should have, leads to its namespace.
    async fn watch(&self, informer: &Informer) {
        let namespace_of = |key: ObjectKey| match key.namespace() {
            Some(namespace) => key.plane.object("", namespace),
            None => key,
        };
        let mut changes = informer.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Synced(_) | Notice::Removed(_) => {}
                Notice::Change(change) => self.queue.add(namespace_of(change.key)),
                Notice::Rescan => informer
                    .all()
                    .into_iter()
                    .for_each(|(key, _)| self.queue.add(namespace_of(key))),
            }
        }
    }

    async fn handle(&self, key: &ObjectKey) -> Result<(), client::Error> {
        // One that is only rendered has all it needs rendered too.
        let Some(namespace) = self.namespaces.get(key).filter(|namespace| !namespace.is_deleting()) else {
            return Ok(());
        };
        let account = key.plane.object(namespace.name(), ACCOUNT);
        if self.accounts.get(&account).is_none() {
            let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
            self.make(&resource::SERVICE_ACCOUNTS, &account, &body).await?;
        }
        let Some(ca) = (self.root_ca)(&key.plane).await else {
            return Ok(());
        };
        let bundle = key.plane.object(namespace.name(), ROOT_CA);
        match self.bundles.get(&bundle) {
            None => {
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": ca}, "metadata": {
                    "name": ROOT_CA, "annotations": {"kubernetes.io/description": DESCRIPTION}}});
                self.make(&resource::CONFIG_MAPS, &bundle, &body).await
            }
            Some(there) if there.tree()["data"]["ca.crt"] != *ca => self.mend(&bundle, &there, &ca).await,
            Some(_) => Ok(()),
        }
    }

    async fn make(&self, resource: &Resource, key: &ObjectKey, body: &Value) -> Result<(), client::Error> {
        let client = self.sources.client(&key.plane)?;
        match client.create(resource, key.namespace(), body).await {
            Err(error) if error.is_already_exists() => Ok(()),
            done => done.map(drop),
        }
    }

    async fn mend(&self, key: &ObjectKey, there: &Object, ca: &str) -> Result<(), client::Error> {
        let client = self.sources.client(&key.plane)?;
        let patch = Patch::Merge(json!({"metadata": {"uid": there.uid()}, "data": {"ca.crt": ca}}));
        client
            .patch(&resource::CONFIG_MAPS, key.namespace(), &key.name, &patch)
            .await
            .map(drop)
    }
}
