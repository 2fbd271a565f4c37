//! One node's world, made for a test: a plane, a runtime, an agent between them, and the certificates to reach it.

pub mod plane;
pub mod runtime;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use node::{KubeletBackend, KubeletClientTls, KubeletTls, Node, NodeOptions, Running};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use plane::Plane;
use runtime::Runtime;

pub struct World {
    pub plane: Plane,
    pub runtime: Runtime,
    pub agent: Option<Running>,
    pub authority: Arc<Authority>,
    socket: PathBuf,
    directory: tempfile::TempDir,
}

impl World {
    pub async fn new() -> World {
        World::with(Plane::new(), Runtime::new()).await
    }

    pub async fn with(plane: Plane, runtime: Runtime) -> World {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cri.sock");
        runtime.serve(&socket);
        World::over(plane, runtime, socket, directory).await
    }

    /// Over a runtime that is there already; the one in memory stays unused.
    pub async fn over_socket(socket: PathBuf) -> World {
        World::over(Plane::new(), Runtime::new(), socket, tempfile::tempdir().unwrap()).await
    }

    async fn over(plane: Plane, runtime: Runtime, socket: PathBuf, directory: tempfile::TempDir) -> World {
        let mut world = World {
            plane,
            runtime,
            agent: None,
            authority: Arc::new(Authority::new()),
            socket,
            directory,
        };
        world.start_agent().await;
        world
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("node")
    }

    pub async fn start_agent(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (certificate, key) = self.authority.sign("n1", &[], true);
        let options = NodeOptions {
            name: "n1".to_owned(),
            client: self.plane.client(),
            cri_socket: self.socket.clone(),
            root: self.root(),
            pod_cidr: "10.244.0.0/24".to_owned(),
            address: [127, 0, 0, 1].into(),
            kubelet_listener: listener,
            tls: KubeletTls {
                certificate,
                key,
                client_ca: self.authority.pem(),
            },
            cluster_dns: Some([10, 96, 0, 10].into()),
            cluster_domain: "cluster.local".to_owned(),
            token_source: None,
            kubernetes_service: None,
            proxy: None,
            circles: None,
            door: node::Door::Nowhere,
            annotations: Default::default(),
            world: ::world::World::real(),
        };
        self.agent = Some(Node::start(options).await.unwrap());
    }

    pub async fn stop_agent(&mut self) {
        self.agent.take().unwrap().stop().await;
    }

    pub fn backend(&self, name: &str, groups: &[&str]) -> KubeletBackend {
        let (certificate, key) = self.authority.sign(name, groups, false);
        let tls = KubeletClientTls {
            certificate,
            key,
            server_ca: Some(self.authority.pem()),
        };
        KubeletBackend::new(self.plane.client(), tls).unwrap()
    }

    pub fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        self.plane.put(
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "web"},
                "spec": spec, "status": {"phase": "Pending"}}),
        );
    }

    pub async fn until(&self, name: &str, check: impl Fn(&Value) -> bool) -> Value {
        let found = self
            .plane
            .until("pods", "web", name, |pod| pod.is_some_and(&check))
            .await;
        found.unwrap()
    }

    pub async fn until_gone(&self, name: &str) {
        self.plane.until("pods", "web", name, |pod| pod.is_none()).await;
    }
}

pub fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority {
            certificate,
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    fn pem(&self) -> Vec<u8> {
        self.certificate.pem().into_bytes()
    }

    fn sign(&self, name: &str, groups: &[&str], server: bool) -> (Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![if server {
            rcgen::ExtendedKeyUsagePurpose::ServerAuth
        } else {
            rcgen::ExtendedKeyUsagePurpose::ClientAuth
        }];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}
