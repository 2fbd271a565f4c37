//! Mutual TLS: the client side with a real etcd and with ours, and ours telling clients apart by their certificates.
#![allow(clippy::disallowed_methods, reason = "a test writes files by hand")]

mod served;
mod server;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    net::TcpListener as StdListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use etcd::{
    EtcdKeyspace, EtcdOptions,
    server::{
        Doors, Listener, Member, MemberOptions, Members, Serves, serve,
        status::{Code, Status},
    },
};
use keyspace::{KeyRange, Keyspace, MemoryKeyspace, Op, Options, Range, Txn};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use world::World;

struct Pem {
    certificate: String,
    key: String,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test ca");
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, name: &str) -> Pem {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Pem {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn acceptor(&self, server: &Pem) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = builder
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn options(endpoint: &str, authority: &Authority, client: Option<&Pem>) -> EtcdOptions {
    let mut options = EtcdOptions::new([endpoint], "/test/");
    options.ca_pem = Some(authority.pem.clone().into());
    options.certificate_pem = client.map(|pem| pem.certificate.clone().into());
    options.key_pem = client.map(|pem| pem.key.clone().into());
    options
}

async fn put(keyspace: &EtcdKeyspace, value: &'static str) {
    let txn = Txn {
        success: vec![Op::put("key", value)],
        ..Txn::default()
    };
    keyspace.txn(txn, Options::default()).await.expect("it is written");
}

async fn value(keyspace: &EtcdKeyspace) -> Option<String> {
    let range = Range::of(KeyRange::one("key"));
    let ranged = keyspace.range(range, Options::default()).await.expect("it is read");
    ranged
        .items
        .first()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn real(program: &OsStr, dir: &Path, authority: &Authority) -> (Process, String) {
    let server = authority.issue("server");
    for (name, text) in [
        ("ca", &authority.pem),
        ("cert", &server.certificate),
        ("key", &server.key),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    let free = || StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, peer) = (format!("https://{}", free()), format!("http://{}", free()));
    let child = Command::new(program)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--client-cert-auth"])
        .arg("--cert-file")
        .arg(dir.join("cert"))
        .arg("--key-file")
        .arg(dir.join("key"))
        .arg("--trusted-ca-file")
        .arg(dir.join("ca"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("etcd starts");
    (Process(child), client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_etcd_is_reached_over_mutual_tls_and_by_nobody_without_a_certificate() {
    let Some(program) = server::program() else { return };
    let dir = served::folder();
    let authority = Authority::new();
    let client = authority.issue("client");
    let (_etcd, endpoint) = real(&program, dir.path(), &authority);
    let mut tries = 0;
    let keyspace = loop {
        match EtcdKeyspace::connect(options(&endpoint, &authority, Some(&client))).await {
            Ok(keyspace) => break keyspace,
            Err(error) if tries > 100 => panic!("{error}"),
            // It takes a moment until it listens.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        tries += 1;
    };

    put(&keyspace, "1").await;
    assert_eq!(value(&keyspace).await.as_deref(), Some("1"));

    let stranger = Authority::new();
    for wrong in [
        options(&endpoint, &authority, None),
        options(&endpoint, &authority, Some(&stranger.issue("client"))),
        options(&endpoint, &stranger, Some(&client)),
    ] {
        assert!(EtcdKeyspace::connect(wrong).await.is_err());
    }
}

/// A keyspace for each name.
#[derive(Default)]
struct ByName(tokio::sync::Mutex<HashMap<String, Arc<Member>>>);

#[async_trait]
impl Members for ByName {
    async fn member(&self, common_name: Option<&str>) -> Result<Arc<Member>, Status> {
        let name = common_name.ok_or(Status::of(Code::Unauthenticated, "nobody"))?;
        let mut members = self.0.lock().await;
        if let Some(member) = members.get(name) {
            return Ok(member.clone());
        }
        let (keys, meta) = (MemoryKeyspace::new(World::real()), MemoryKeyspace::new(World::real()));
        let opened = Member::open(Arc::new(keys), Arc::new(meta), MemberOptions::default(), World::real()).await;
        let member = Arc::new(opened.expect("it opens"));
        members.insert(name.to_owned(), member.clone());
        Ok(member)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_certificate_has_its_own_keyspace_and_sees_no_other() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let doors = Doors {
        tls: Some(authority.acceptor(&authority.issue("server"))),
        streams_max: 100,
        serves: Serves::All,
    };
    let serving = tokio::spawn(serve(Listener::Tcp(listener), doors, Arc::new(ByName::default())));
    let connect = async |name: &str| {
        let client = authority.issue(name);
        EtcdKeyspace::connect(options(&endpoint, &authority, Some(&client)))
            .await
            .expect("it is let in")
    };

    let (alpha, beta, again) = (connect("alpha").await, connect("beta").await, connect("alpha").await);
    put(&alpha, "of alpha").await;

    assert_eq!(value(&beta).await, None);
    assert_eq!(value(&again).await.as_deref(), Some("of alpha"));
    assert!(
        EtcdKeyspace::connect(options(&endpoint, &authority, None))
            .await
            .is_err()
    );
    serving.abort();
}
