//! A cluster as an operator has it: its API over TLS, an administrator's kubeconfig, nodes. Nothing of ours besides.

use std::{path::PathBuf, sync::Arc, time::Duration};

use api::resource::CUSTOM_RESOURCE_DEFINITIONS;
use apiserver::serve_people;
use async_trait::async_trait;
use client::{Client, DeleteOptions, Patch};
use http::Response;
use identity::{Ca, SubjectName, kubeconfig, tls};
use serde_json::json;
use streaming::{Body, PodBackend, PodStream};
use testkit::{nodes::FakeNode, planes::PlanesInMemory};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub struct Super {
    pub admin: Client,
    planes: PlanesInMemory,
    folder: tempfile::TempDir,
    server: String,
    authority_pem: String,
    _node: FakeNode,
    _controllers: controllers::Running,
    _scheduler: scheduler::Running,
    _stop: DropGuard,
}

/// Says which Pod was asked for what.
struct Echo;

#[async_trait]
impl PodBackend for Echo {
    async fn stream(&self, stream: PodStream) -> Response<Body> {
        let asked = stream.request.uri().query().unwrap_or("").to_owned();
        let text = format!(
            "{} of {}/{} {asked}",
            stream.subresource.as_str(),
            stream.namespace,
            stream.name
        );
        Response::new(streaming::body::full(text))
    }
}

impl Super {
    pub async fn open() -> Super {
        let planes = PlanesInMemory::start().await;
        planes.server.set_pod_backend(Arc::new(Echo));
        let world = planes.world.clone();
        let sources = planes.sources([planes.root_source()]);
        let root = planes.server.planes().root().await.unwrap();
        let ca_pem = root.record.ca_cert_pem.clone();
        let controllers = controllers::start(
            sources.clone(),
            controllers::Options {
                root_ca: Arc::new(move |_| {
                    let ca_pem = ca_pem.clone();
                    Box::pin(async move { Some(ca_pem) })
                }),
                clusters: controllers::Clusters::only(planes.root.clone(), "/volumes"),
                world: world.clone(),
            },
        );
        let scheduler = scheduler::start(scheduler::Options {
            sources: sources.clone(),
            plane: planes.root.clone(),
            world: world.clone(),
        })
        .unwrap();
        let node = FakeNode::join(&sources, &planes.root, "n1", &world).await.unwrap();
        let admin = planes.root();
        let ready = Patch::Merge(json!({"spec": {"taints": null}}));
        admin.patch(&api::resource::NODES, None, "n1", &ready).await.unwrap();

        let (now, random) = (world.clock.wall(), &*world.random);
        let serving = Ca::generate("serving", now, random).unwrap();
        let names = [SubjectName::of("127.0.0.1")];
        let certificate = serving.issue_server("super", &names, DAY, now, random).unwrap();
        let rotating = Arc::new(tls::Rotating::new(&certificate).unwrap());
        let config = tls::server_config(rotating, tls::ClientCertificates::Requested).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve_people(listener, config, planes.server.clone(), stop.clone()));

        let ca = Ca::from_pem(&root.record.ca_cert_pem, &root.record.ca_key_pem).unwrap();
        let user = ca.issue_client("admin", &["system:masters"], DAY, now, random).unwrap();
        let below = Super {
            admin,
            planes,
            folder: tempfile::tempdir().unwrap(),
            server: format!("https://{address}"),
            authority_pem: serving.certificate_pem().to_owned(),
            _node: node,
            _controllers: controllers,
            _scheduler: scheduler,
            _stop: stop.drop_guard(),
        };
        below.kubeconfig_of("admin", kubeconfig::Credential::Certificate(user));
        below
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin")
    }

    pub fn kubeconfig_of(&self, name: &str, credential: kubeconfig::Credential) -> PathBuf {
        let entry = kubeconfig::Entry {
            name: name.to_owned(),
            server: self.server.clone(),
            authority_pem: self.authority_pem.clone(),
            credential,
            namespace: None,
        };
        let file = self.folder.path().join(name);
        std::fs::write(&file, kubeconfig::document(&entry).unwrap()).unwrap();
        file
    }

    /// As a cluster is before anything was installed there.
    pub async fn forget_virtual_clusters(&self) {
        let name = "virtualclusters.tenancy.mangrove.io";
        let root = self.planes.root();
        root.delete(&CUSTOM_RESOURCE_DEFINITIONS, None, name, &DeleteOptions::default())
            .await
            .unwrap();
        testkit::planes::wait_until(&root, &CUSTOM_RESOURCE_DEFINITIONS, None, |all| {
            (!all.iter().any(|one| one.name() == name)).then_some(())
        })
        .await;
    }
}
