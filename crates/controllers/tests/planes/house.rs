//! A server in memory, the loops over all its planes, and something that plays the nodes.

use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use api::{Object, Resource, resource};
use apiserver::{ApiServer, ApiServerOptions, Body, Identity, PlaneSpec, ServiceRanges};
use client::{
    Client, DeleteOptions, Informer, InformerOptions, ListOptions, Notice, ObjectKey, Patch, PlaneKey, Source,
    SourceId, Sources, Tasks,
};
use http::{Request, Response};
use keyspace::MemoryKeyspace;
use serde_json::{Value, json};
use tower::Service;
use world::World;

/// Far more than anything here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct House {
    /// Two planes that share a keyspace, and one that has its own.
    pub planes: Vec<PlaneKey>,
    pub sources: Sources,
    controllers: controllers::Running,
    nodes: Tasks,
    _api: ApiServer,
}

#[derive(Clone)]
struct As(ApiServer, Identity);

impl Service<Request<Body>> for As {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <ApiServer as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.1.clone());
        self.0.call(request)
    }
}

impl House {
    pub async fn open() -> House {
        let world = World::real();
        let api = ApiServer::new(ApiServerOptions {
            shared: Arc::new(MemoryKeyspace::new(world.clone())),
            root: Arc::new(MemoryKeyspace::new(world.clone())),
            world: world.clone(),
            pod_backend: None,
            ranges: ServiceRanges::default(),
            advertise: None,
        });
        let client = Client::new(As(
            api.clone(),
            Identity::new("test", &["system:masters", "system:authenticated"]),
        ));
        let (shared, own) = (SourceId::new("shared"), SourceId::new("own"));
        let root = api.planes().root().await.unwrap();
        let mut planes = Vec::new();
        for name in ["acme", "globex"] {
            let spec = PlaneSpec {
                name: name.to_owned(),
                ..PlaneSpec::default()
            };
            let record = api.planes().create(spec).await.unwrap();
            planes.push(PlaneKey {
                source: shared.clone(),
                plane: record.id,
            });
        }
        planes.push(PlaneKey {
            source: own.clone(),
            plane: root.id,
        });
        let sources = Sources::new(
            world.clone(),
            [
                Source::Shared {
                    id: shared,
                    client: client.clone(),
                },
                Source::Plane {
                    id: own,
                    plane: root.id,
                    client,
                },
            ],
        );
        let options = controllers::Options {
            root_ca: Arc::new(|plane: &PlaneKey| {
                let text = format!("CA of {}", plane.plane);
                Box::pin(async move { Some(text) })
            }),
            clusters: controllers::Clusters::new(|plane: &PlaneKey| plane.source.as_str() == "own", "/volumes"),
            world: world.clone(),
        };
        let nodes = Tasks::new();
        play_nodes(&nodes, &sources);
        House {
            planes,
            controllers: controllers::start(sources.clone(), options),
            sources,
            nodes,
            _api: api,
        }
    }

    pub async fn close(self) {
        self.controllers.stop().await;
        self.nodes.stop().await;
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
