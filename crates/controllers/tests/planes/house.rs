//! A server in memory, the loops over all its planes, and something that plays the nodes.

use std::{future::Future, sync::Arc, time::Duration};

use api::{Object, Resource, resource};
use client::{
    Client, DeleteOptions, Informer, InformerOptions, ListOptions, Notice, ObjectKey, Patch, PlaneKey, Sources, Tasks,
};
use controllers::Reshown;
use futures::stream::{self, StreamExt};
use keyspace::Keyspace;
use serde_json::{Value, json};
use testkit::planes::PlanesInMemory;
use tokio::sync::broadcast;

/// Far more than anything here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct House {
    /// Two planes that share a keyspace, and one that has its own.
    pub planes: Vec<PlaneKey>,
    pub sources: Sources,
    controllers: controllers::Running,
    nodes: Tasks,
    memory: PlanesInMemory,
    /// Planes that are shown other nodes.
    pub reshown: broadcast::Sender<PlaneKey>,
}

impl House {
    pub async fn open() -> House {
        let memory = PlanesInMemory::start().await;
        let sources = memory.sources([memory.shared_source(), memory.root_source()]);
        let mut planes = Vec::new();
        for name in ["acme", "globex"] {
            planes.push(PlaneKey {
                source: memory.shared.clone(),
                plane: memory.tenant(name).await.0,
            });
        }
        planes.push(memory.root.clone());
        let (reshown, _) = broadcast::channel(16);
        let nodes = Tasks::new();
        play_nodes(&nodes, &sources);
        House {
            planes,
            controllers: controllers::start(sources.clone(), options(&memory, &reshown)),
            sources,
            nodes,
            memory,
            reshown,
        }
    }

    pub async fn close(self) {
        self.controllers.stop().await;
        self.nodes.stop().await;
    }

    /// As when the process that has them ends and another takes over.
    pub async fn restart_loops(&mut self) {
        let again = controllers::start(self.sources.clone(), options(&self.memory, &self.reshown));
        std::mem::replace(&mut self.controllers, again).stop().await;
    }

    /// Where tenants' planes are kept.
    pub fn shared(&self) -> &Arc<dyn Keyspace> {
        self.memory.server.planes().shared()
    }

    pub fn client(&self, plane: &PlaneKey) -> Client {
        self.sources.client(plane).unwrap()
    }

    pub async fn list(&self, plane: &PlaneKey, resource: &Resource, namespace: &str) -> Vec<Object> {
        let client = self.client(plane);
        client
            .list_all(resource, Some(namespace), &ListOptions::default())
            .await
            .unwrap()
            .items
    }
}

fn options(memory: &PlanesInMemory, reshown: &broadcast::Sender<PlaneKey>) -> controllers::Options {
    let reshown = reshown.clone();
    let listen = move || {
        let planes = stream::unfold(reshown.subscribe(), |mut planes| async move {
            Some((Reshown::To(planes.recv().await.ok()?), planes))
        });
        planes.boxed()
    };
    controllers::Options {
        root_ca: Arc::new(|plane: &PlaneKey| {
            let text = format!("CA of {}", plane.plane);
            Box::pin(async move { Some(text) })
        }),
        clusters: controllers::Clusters::only(memory.root.clone(), "/volumes").told_of_nodes_by(listen),
        world: memory.world.clone(),
    }
}

/// Waits until `what` gives something; says what was waited for if it never does.
pub async fn until<T, F: Future<Output = Option<T>>>(waiting_for: &str, mut what: impl FnMut() -> F) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = what().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {waiting_for}"))
}

/// Every Pod runs and is ready at once, unless its image is `broken`; one of a Job ends instead, badly if it is `broken` and
/// well if it is `done`. A Pod that is deleted goes.
fn play_nodes(tasks: &Tasks, sources: &Sources) {
    let pods = Informer::start(sources, resource::PODS, InformerOptions::default());
    let sources = sources.clone();
    tasks.spawn(async move {
        let mut changes = pods.subscribe();
        let mut serial = 0u32;
        while let Some(notice) = changes.next().await {
            let changed: Vec<(ObjectKey, Object)> = match notice {
                Notice::Change(change) => change.new.into_iter().map(|pod| (change.key.clone(), pod)).collect(),
                Notice::Rescan => pods.all(),
                _ => Vec::new(),
            };
            for (key, pod) in changed {
                let client = sources.client(&key.plane).unwrap();
                if pod.is_deleting() {
                    let options = DeleteOptions {
                        grace_seconds: Some(0),
                        ..DeleteOptions::of_uid(pod.uid())
                    };
                    let _ = client
                        .delete(&resource::PODS, key.namespace(), &key.name, &options)
                        .await;
                } else if pod.tree()["status"]["phase"] == "Pending" {
                    serial += 1;
                    let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid()}, "status": played(&pod, serial)}));
                    let _ = client
                        .patch_sub(&resource::PODS, key.namespace(), &key.name, "status", &patch)
                        .await;
                }
            }
        }
    });
}

fn played(pod: &Object, serial: u32) -> Value {
    let spec = &pod.tree()["spec"];
    let image = spec["containers"][0]["image"].as_str().unwrap_or("");
    let ends = spec["restartPolicy"] == "Never";
    let phase = match image {
        "done" if ends => "Succeeded",
        "broken" if ends => "Failed",
        _ => "Running",
    };
    let ready = if image == "broken" || phase != "Running" {
        "False"
    } else {
        "True"
    };
    json!({"phase": phase, "podIP": format!("10.244.{}.{}", serial / 250, serial % 250 + 1),
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

pub fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}},
        },
    })
}
