//! The super plane and tenants' planes in memory, with everything on them that a tenant's Pod meets: controllers, scheduler,
//! a node that runs nothing, the operator and the syncer. No root, no network.

use std::{sync::Arc, time::Duration};

use api::{
    Object, PlaneId, Resource,
    resource::{self, VIRTUAL_CLUSTERS},
};
use client::{Client, DeleteOptions, Patch, Source, Sources, Tasks};
use in_process::{InProcess, Nodes, StorageClasses};
use serde_json::{Value, json};
use tenancy::{
    Provisioner, SuperCluster, identity,
    nodes::NodeViews,
    operator::{self, OperatorOptions},
    policy::Policy,
    reserved::Cidr,
    syncer::{self, SyncerOptions},
    virtual_cluster,
};
use testkit::{
    nodes::FakeNode,
    planes::{PlanesInMemory, wait_until},
};

use crate::gate::Gate;

/// Far more than anything here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct House {
    pub planes: PlanesInMemory,
    /// The super plane, as its administrator.
    pub below: Client,
    pub node: FakeNode,
    /// What the syncer asks for goes through here.
    pub gate: Gate,
    super_cluster: SuperCluster,
    tenants: Arc<dyn Provisioner>,
    syncer: Option<Tasks>,
    _operator: Tasks,
    _controllers: controllers::Running,
    _scheduler: scheduler::Running,
}

/// A tenant, as its administrator.
pub struct Tenant {
    pub name: String,
    pub plane: PlaneId,
    pub client: Client,
}

impl House {
    pub async fn open() -> House {
        // `RUST_LOG=tenancy=debug,client=debug` tells why a test waits.
        let told = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(told)
            .with_test_writer()
            .try_init();
        let planes = PlanesInMemory::start().await;
        let below = planes.root();
        let world = planes.world.clone();
        let super_sources = planes.sources([planes.root_source()]);
        let clusters = virtual_cluster::follow(&super_sources);
        let views = NodeViews::start(clusters.clone(), planes.root(), planes.root(), world.clone());
        let reshown = in_process::reshown(&views, &planes.shared);
        let everything = planes.sources([planes.root_source(), planes.shared_source()]);
        let options = controllers::Options {
            root_ca: Arc::new(in_process::root_ca(planes.server.planes(), &planes.root)),
            clusters: controllers::Clusters::only(planes.root.clone(), "/volumes").told_of_nodes_by(reshown),
            world: world.clone(),
        };
        let controllers = controllers::start(everything, options);
        let options = scheduler::Options {
            sources: super_sources.clone(),
            plane: planes.root.clone(),
            world: world.clone(),
        };
        let scheduler = scheduler::start(options).unwrap();
        let node = FakeNode::join(&super_sources, &planes.root, "n1", &world)
            .await
            .unwrap();
        let ready = Patch::Merge(json!({"spec": {"taints": null}}));
        below.patch(&resource::NODES, None, "n1", &ready).await.unwrap();

        let kube_system = below.get(&resource::NAMESPACES, None, "kube-system").await.unwrap();
        let super_cluster = SuperCluster {
            id: kube_system.uid().to_owned(),
            cluster_domain: "cluster.local".to_owned(),
        };
        let tenants: Arc<dyn Provisioner> = Arc::new(InProcess {
            planes: planes.server.planes().clone(),
            shared: planes.shared.clone(),
        });
        let registry = planes.server.registry();
        registry.hold_from_birth(&VIRTUAL_CLUSTERS, operator::FINALIZER);
        let operator = operator::start(OperatorOptions {
            super_sources: super_sources.clone(),
            super_plane: planes.root.clone(),
            clusters: clusters.clone(),
            tenants: tenants.clone(),
            world,
        })
        .unwrap();
        registry.project(&resource::NODES, Arc::new(Nodes(views)));
        registry.project(&resource::STORAGE_CLASSES, Arc::new(StorageClasses));
        let mut house = House {
            gate: Gate::new(&planes),
            planes,
            below,
            node,
            super_cluster,
            tenants,
            syncer: None,
            _operator: operator,
            _controllers: controllers,
            _scheduler: scheduler,
        };
        house.start_syncer();
        house
    }

    pub fn super_cluster(&self) -> SuperCluster {
        self.super_cluster.clone()
    }

    pub fn provisioner(&self) -> Arc<dyn Provisioner> {
        self.tenants.clone()
    }

    pub fn start_syncer(&mut self) {
        self.syncer = Some(self.another_syncer());
    }

    /// One more beside the house's own, as after a leader's lease was lost in a pause.
    pub fn another_syncer(&self) -> Tasks {
        let client = self.gate.client();
        let source = Source::Plane {
            id: self.planes.root.source.clone(),
            plane: self.planes.root.plane,
            client: client.clone(),
        };
        let shared = Source::Shared {
            id: self.planes.shared.clone(),
            client,
        };
        let world = self.planes.world.clone();
        let super_sources = Sources::new(world.clone(), [source]);
        syncer::start(SyncerOptions {
            clusters: virtual_cluster::follow(&super_sources),
            super_sources,
            super_plane: self.planes.root.clone(),
            super_cluster: self.super_cluster.clone(),
            planes: Sources::new(world.clone(), [shared]),
            tenants: self.tenants.clone(),
            policy: Policy {
                reserved: ["10.244.0.0/16", "10.96.0.0/12"]
                    .map(|range| Cidr::parse(range).unwrap())
                    .into(),
                ..Policy::default()
            },
            world,
        })
        .unwrap()
    }

    pub async fn stop_syncer(&mut self) {
        self.syncer.take().expect("it runs").stop().await;
    }

    pub async fn tenant(&self, name: &str) -> Tenant {
        self.tenant_with(name, json!({})).await
    }

    pub async fn tenant_with(&self, name: &str, spec: Value) -> Tenant {
        let cluster = json!({"metadata": {"name": name}, "spec": spec});
        self.below.create(&VIRTUAL_CLUSTERS, None, &cluster).await.unwrap();
        let plane = until("the tenant runs", &self.below, &VIRTUAL_CLUSTERS, None, |clusters| {
            let status = &named(clusters, name)?.tree()["status"];
            (status["phase"] == "Running").then(|| status["plane"].as_str().unwrap().parse().unwrap())
        })
        .await;
        Tenant {
            name: name.to_owned(),
            plane,
            client: self.below.plane(plane),
        }
    }

    /// Waits for a super object of the tenant's, by name, that is as `good` says.
    pub async fn super_object(
        &self,
        tenant: &Tenant,
        resource: &Resource,
        name: &str,
        good: impl Fn(&Object) -> bool,
    ) -> Object {
        let what = format!("{} {name} of {} is below as it should be", resource.kind, tenant.name);
        until(&what, &self.below, resource, None, |objects| {
            let ours = |object: &&Object| object.name() == name && tenant.owns(object) && good(object);
            objects.iter().find(ours).cloned()
        })
        .await
    }

    /// Waits until the tenant has no super object of that name.
    pub async fn super_object_gone(&self, tenant: &Tenant, resource: &Resource, name: &str) {
        let what = format!("{} {name} of {} is not below", resource.kind, tenant.name);
        until(&what, &self.below, resource, None, |objects| {
            let ours = |object: &Object| object.name() == name && tenant.owns(object);
            (!objects.iter().any(ours)).then_some(())
        })
        .await;
    }

    /// All that the super plane has of a tenant: `Pod web`.
    pub async fn all_below(&self, tenant: &Tenant) -> Vec<String> {
        let mut found = Vec::new();
        for kind in self.below.discover().await.unwrap() {
            if !kind.can("list") || kind.resource == VIRTUAL_CLUSTERS {
                continue;
            }
            let list = self
                .below
                .list_all(&kind.resource, None, &client::ListOptions::default())
                .await;
            for object in list.unwrap().items {
                let text = object.tree().to_string();
                if tenant.owns(&object) || text.contains(tenant.plane.as_str()) {
                    found.push(format!("{} {}", kind.resource.kind, object.name()));
                }
            }
        }
        found
    }

    pub async fn delete_tenant(&self, tenant: &Tenant) {
        let options = DeleteOptions::default();
        self.below
            .delete(&VIRTUAL_CLUSTERS, None, &tenant.name, &options)
            .await
            .unwrap();
        let gone = |clusters: &[Object]| named(clusters, &tenant.name).is_none().then_some(());
        until("the tenant is gone", &self.below, &VIRTUAL_CLUSTERS, None, gone).await;
    }
}

impl Tenant {
    pub fn owns(&self, below: &Object) -> bool {
        below.label(identity::PLANE) == Some(self.plane.as_str())
    }

    pub async fn make(&self, resource: &Resource, namespace: &str, body: &Value) -> Object {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        self.client.create(resource, namespace, body).await.unwrap()
    }

    /// A namespace; its default account is there when this returns.
    pub async fn make_namespace(&self, name: &str) {
        self.make(&resource::NAMESPACES, "", &json!({"metadata": {"name": name}}))
            .await;
        let namespace = Some(name);
        until(
            "the account is there",
            &self.client,
            &resource::SERVICE_ACCOUNTS,
            namespace,
            |accounts| named(accounts, "default").map(drop),
        )
        .await;
    }

    pub async fn make_pod(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Object {
        let mut pod = pod(name);
        change(&mut pod);
        self.make(&resource::PODS, namespace, &pod).await
    }

    /// Waits for an object of the tenant's own that is as `good` says.
    pub async fn object(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        good: impl Fn(&Object) -> bool,
    ) -> Object {
        let what = format!("{} {name} at {} is as it should be", resource.kind, self.name);
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        until(&what, &self.client, resource, namespace, |objects| {
            named(objects, name).filter(|object| good(object)).cloned()
        })
        .await
    }

    pub async fn running(&self, namespace: &str, name: &str) -> Object {
        self.object(&resource::PODS, namespace, name, |pod| {
            pod.tree()["status"]["phase"] == "Running"
        })
        .await
    }

    pub async fn gone(&self, resource: &Resource, namespace: &str, name: &str) {
        let what = format!("{} {name} at {} is gone", resource.kind, self.name);
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        until(&what, &self.client, resource, namespace, |objects| {
            named(objects, name).is_none().then_some(())
        })
        .await;
    }

    pub async fn delete(&self, resource: &Resource, namespace: &str, name: &str, grace_seconds: Option<u32>) {
        let options = DeleteOptions {
            grace_seconds,
            ..DeleteOptions::default()
        };
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        self.client.delete(resource, namespace, name, &options).await.unwrap();
    }

    pub async fn merge(&self, resource: &Resource, namespace: &str, name: &str, patch: Value) -> Object {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        self.client
            .patch(resource, namespace, name, &Patch::Merge(patch))
            .await
            .unwrap()
    }
}

pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/one:1"}]}})
}

pub fn named<'a>(objects: &'a [Object], name: &str) -> Option<&'a Object> {
    objects.iter().find(|object| object.name() == name)
}

/// Watches until the objects are as `done` wants them.
pub async fn until<T>(
    what: &str,
    client: &Client,
    resource: &Resource,
    namespace: Option<&str>,
    done: impl FnMut(&[Object]) -> Option<T>,
) -> T {
    match tokio::time::timeout(PATIENCE, wait_until(client, resource, namespace, done)).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain until {what}"),
    }
}
