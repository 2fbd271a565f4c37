//! All loops of the platform over planes in memory and a node that runs nothing: what can be shown without root.
#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

use std::{sync::Arc, time::Duration};

use api::{
    Object, PlaneId, Reason, Status,
    resource::{CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, PODS, VIRTUAL_CLUSTERS},
};
use apiserver::{PlaneSpec, Planes};
use async_trait::async_trait;
use client::{Client, DeleteOptions, ListOptions, Patch, PlaneKey, SourceId, Tasks};
use serde_json::json;
use tenancy::{ProvisionError, Provisioned, Provisioner, SuperCluster};
use testkit::{
    nodes::FakeNode,
    planes::{PlanesInMemory, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Who keeps the loops running.
struct Loops {
    planes: PlanesInMemory,
    _controllers: controllers::Running,
    _scheduler: scheduler::Running,
    _tenancy: [Tasks; 2],
    _node: FakeNode,
}

async fn start() -> Loops {
    let planes = PlanesInMemory::start().await;
    let world = planes.world.clone();
    let root = planes.root();
    let kube_system = root.get(&NAMESPACES, None, "kube-system").await.unwrap();
    let super_cluster = SuperCluster {
        id: kube_system.uid().to_owned(),
        cluster_domain: "cluster.local".to_owned(),
    };
    let below = || planes.sources([planes.root_source()]);
    let tenants: Arc<dyn Provisioner> = Arc::new(InMemory {
        planes: planes.server.planes().clone(),
        shared: planes.shared.clone(),
    });
    Loops {
        _controllers: controllers::start(
            planes.sources([planes.root_source(), planes.shared_source()]),
            controllers::Options {
                root_ca: Arc::new(|_| Box::pin(async { None })),
                clusters: controllers::Clusters::only(planes.root.clone(), "/volumes"),
                world: world.clone(),
            },
        ),
        _scheduler: scheduler::start(scheduler::Options {
            sources: below(),
            plane: planes.root.clone(),
            world: world.clone(),
        })
        .unwrap(),
        _tenancy: [
            tenancy::operator::start(tenancy::operator::OperatorOptions {
                super_sources: below(),
                super_plane: planes.root.clone(),
                tenants: tenants.clone(),
                world: world.clone(),
            })
            .unwrap(),
            tenancy::syncer::start(tenancy::syncer::SyncerOptions {
                super_sources: below(),
                super_plane: planes.root.clone(),
                super_cluster,
                planes: planes.sources([planes.shared_source()]),
                tenants,
                policy: tenancy::policy::Policy::default(),
                world: world.clone(),
            })
            .unwrap(),
        ],
        _node: FakeNode::join(&below(), &planes.root, "fake", &world).await.unwrap(),
        planes,
    }
}

impl Loops {
    /// Makes a tenant by its object; its administrator.
    async fn tenant(&self, name: &str) -> Client {
        let root = self.planes.root();
        let body = json!({"apiVersion": VIRTUAL_CLUSTERS.api_version(), "kind": VIRTUAL_CLUSTERS.kind,
            "metadata": {"name": name}, "spec": {}});
        root.create(&VIRTUAL_CLUSTERS, None, &body).await.unwrap();
        let plane = wait_until(&root, &VIRTUAL_CLUSTERS, None, |tenants| {
            let tenant = tenants.iter().find(|tenant| tenant.name() == name)?;
            let running = tenant.tree()["status"]["phase"] == "Running";
            running.then(|| tenant.tree()["status"]["plane"].as_str().unwrap_or_default().to_owned())
        })
        .await;
        root.plane(plane.parse().unwrap())
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

fn deployment(replicas: u32) -> serde_json::Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [{"name": "web", "image": "nothing:1"}]}}}})
}

fn ready(pods: &[Object]) -> usize {
    let is_ready = |pod: &&Object| {
        let conditions = pod.tree()["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    pods.iter().filter(is_ready).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_deployments_run_under_the_same_names_and_go_without_a_trace() {
    let loops = start().await;
    let root = loops.planes.root();
    let (acme, globex) = (loops.tenant("acme").await, loops.tenant("globex").await);

    for tenant in [&acme, &globex] {
        tenant
            .create(&DEPLOYMENTS, Some("default"), &deployment(3))
            .await
            .unwrap();
    }
    for tenant in [&acme, &globex] {
        within(
            "three Pods are Ready",
            wait_until(tenant, &PODS, None, |pods| (ready(pods) == 3).then_some(())),
        )
        .await;
    }
    let below = root.list(&PODS, None, &ListOptions::default()).await.unwrap().items;
    assert_eq!(below.len(), 6);
    assert!(below.iter().all(|pod| pod.tree()["spec"]["nodeName"] == "fake"));

    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    acme.patch(&DEPLOYMENTS, Some("default"), "web", &scale).await.unwrap();
    within(
        "two Pods go",
        wait_until(&acme, &PODS, Some("default"), |pods| (pods.len() == 1).then_some(())),
    )
    .await;
    within(
        "and below",
        wait_until(&root, &PODS, None, |pods| (pods.len() == 4).then_some(())),
    )
    .await;

    root.delete(&VIRTUAL_CLUSTERS, None, "acme", &DeleteOptions::default())
        .await
        .unwrap();
    let one = |tenants: &[Object]| (tenants.len() == 1).then_some(());
    within("the tenant goes", wait_until(&root, &VIRTUAL_CLUSTERS, None, one)).await;
    let namespaces = root
        .list(&NAMESPACES, None, &ListOptions::default())
        .await
        .unwrap()
        .items;
    assert!(namespaces.iter().all(|namespace| !namespace.name().starts_with("acme")));
    assert_eq!(
        root.list(&PODS, None, &ListOptions::default())
            .await
            .unwrap()
            .items
            .len(),
        3
    );
    assert_eq!(
        ready(&globex.list(&PODS, None, &ListOptions::default()).await.unwrap().items),
        3
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_without_pods_has_nothing_in_the_super_plane() {
    let loops = start().await;
    let root = loops.planes.root();
    let before = root
        .list(&NAMESPACES, None, &ListOptions::default())
        .await
        .unwrap()
        .items
        .len();

    let acme = loops.tenant("acme").await;
    let note = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}});
    acme.create(&CONFIG_MAPS, Some("default"), &note).await.unwrap();
    // A tenant that came after has been synced as far as it ever will be.
    let globex = loops.tenant("globex").await;
    globex
        .create(&DEPLOYMENTS, Some("default"), &deployment(1))
        .await
        .unwrap();
    within(
        "a Pod runs",
        wait_until(&globex, &PODS, None, |pods| (ready(pods) == 1).then_some(())),
    )
    .await;

    let namespaces = root
        .list(&NAMESPACES, None, &ListOptions::default())
        .await
        .unwrap()
        .items;
    assert_eq!(namespaces.len(), before + 1, "globex's alone");
    let notes = root
        .list(&CONFIG_MAPS, None, &ListOptions::default())
        .await
        .unwrap()
        .items;
    assert!(notes.iter().all(|note| note.name() != "note"));
}

struct InMemory {
    planes: Planes,
    shared: SourceId,
}

#[async_trait]
impl Provisioner for InMemory {
    async fn provide(&self, name: &str) -> Result<Provisioned, ProvisionError> {
        let id = match self.planes.find(name).await.map_err(failed)? {
            Some(id) => id,
            None => {
                let spec = PlaneSpec {
                    name: name.to_owned(),
                    ..PlaneSpec::default()
                };
                self.planes.create(spec).await.map_err(failed)?.id
            }
        };
        let busy = || ProvisionError::Busy(format!("an older {name:?} is being deleted"));
        self.find(id).await?.ok_or_else(busy)
    }

    async fn find(&self, plane: PlaneId) -> Result<Option<Provisioned>, ProvisionError> {
        match self.planes.open(plane).await {
            Ok(plane) => Ok(Some(Provisioned {
                plane: PlaneKey {
                    source: self.shared.clone(),
                    plane: plane.id,
                },
                name: plane.record.name.clone(),
                kubernetes_address: plane.record.kubernetes_service_ip.to_string(),
                ca_pem: plane.record.ca_cert_pem.clone(),
            })),
            Err(status) if status.reason == Reason::NotFound => Ok(None),
            Err(status) => Err(failed(status)),
        }
    }

    async fn named(&self, name: &str) -> Result<Option<PlaneId>, ProvisionError> {
        self.planes.find(name).await.map_err(failed)
    }

    async fn delete(&self, plane: PlaneId) -> Result<(), ProvisionError> {
        match self.planes.delete(plane).await {
            Err(status) if status.reason != Reason::NotFound => Err(failed(status)),
            _ => Ok(()),
        }
    }
}

fn failed(status: Status) -> ProvisionError {
    ProvisionError::Failed(status.message)
}
