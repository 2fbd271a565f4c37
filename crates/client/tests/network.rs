//! The network as a transport: the same verbs over real TLS, by a kubeconfig as people have it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::resource::{CONFIG_MAPS, NODES};
use apiserver::{ApiServer, ApiServerOptions, PlaneSpec, ServiceRanges, serve_people};
use client::{Client, Event, Informer, InformerOptions, Patch, PlaneKey, Source, SourceId, Sources, WatchOptions};
use futures::StreamExt;
use identity::{Ca, SubjectName, kubeconfig, tls};
use keyspace::MemoryKeyspace;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use world::World;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct House {
    api: ApiServer,
    authority: Ca,
    address: SocketAddr,
    stop: CancellationToken,
    world: World,
}

impl House {
    async fn open() -> House {
        let world = World::real();
        let api = ApiServer::new(ApiServerOptions {
            shared: Arc::new(MemoryKeyspace::new(world.clone())),
            root: Arc::new(MemoryKeyspace::new(world.clone())),
            world: world.clone(),
            pod_backend: None,
            ranges: ServiceRanges::default(),
            advertise: None,
        });
        let authority = Ca::generate("house", world.clock.wall(), &*world.random).unwrap();
        let names = [SubjectName::of("127.0.0.1")];
        let certificate = authority
            .issue_server("house", &names, DAY, world.clock.wall(), &*world.random)
            .unwrap();
        let rotating = Arc::new(tls::Rotating::new(&certificate).unwrap());
        let config = tls::server_config(rotating, tls::ClientCertificates::Requested).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve_people(listener, config, api.clone(), stop.clone()));
        House {
            api,
            authority,
            address,
            stop,
            world,
        }
    }

    /// A new plane, and a kubeconfig of one who may do everything there.
    async fn plane(&self, name: &str) -> (PlaneKey, String) {
        let spec = PlaneSpec {
            name: name.to_owned(),
            ..PlaneSpec::default()
        };
        let record = self.api.planes().create(spec).await.unwrap();
        let ca = Ca::from_pem(&record.ca_cert_pem, &record.ca_key_pem).unwrap();
        let now = self.world.clock.wall();
        let admin = ca
            .issue_client("admin", &["system:masters"], DAY, now, &*self.world.random)
            .unwrap();
        let entry = kubeconfig::Entry {
            name: name.to_owned(),
            server: format!("https://{}/planes/{}", self.address, record.id),
            authority_pem: self.authority.certificate_pem().to_owned(),
            credential: kubeconfig::Credential::Certificate(admin),
            namespace: None,
        };
        let plane = PlaneKey {
            source: SourceId::new(name),
            plane: record.id,
        };
        (plane, kubeconfig::document(&entry).unwrap())
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("comes within 30 s")
}

#[tokio::test]
async fn the_verbs_work_over_the_network_as_they_do_in_process() {
    let house = House::open().await;
    let (_, text) = house.plane("acme").await;
    let client = Client::from_kubeconfig_text(&text, None).await.unwrap();
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});

    let made = client.create(&CONFIG_MAPS, Some("default"), &body).await.unwrap();
    let options = WatchOptions {
        resource_version: Some(made.resource_version().to_owned()),
        ..WatchOptions::default()
    };
    let mut events = client.watch(&CONFIG_MAPS, Some("default"), &options).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"uid": made.uid()}, "data": {"k": "2"}}));
    client.patch(&CONFIG_MAPS, Some("default"), "a", &patch).await.unwrap();

    let event = soon(events.next()).await.unwrap().unwrap();
    let Event::Modified(item) = event else {
        panic!("{event:?}")
    };
    assert_eq!(item.object.tree()["data"]["k"], "2");
    let twice = client.create(&CONFIG_MAPS, Some("default"), &body).await.unwrap_err();
    assert!(twice.is_already_exists(), "{twice}");
    let absent = client.get(&NODES, None, "nobody").await.unwrap_err();
    assert!(absent.is_not_found(), "{absent}");
}

#[tokio::test]
async fn a_kubeconfig_of_one_plane_is_refused_at_another() {
    let house = House::open().await;
    let (acme, text) = house.plane("acme").await;
    let (globex, _) = house.plane("globex").await;
    let elsewhere = text.replace(acme.plane.as_str(), globex.plane.as_str());

    let client = Client::from_kubeconfig_text(&elsewhere, None).await.unwrap();
    let refused = client.get(&CONFIG_MAPS, Some("default"), "a").await.unwrap_err();

    assert_eq!(refused.refusal().unwrap().code, 401, "{refused}");
}

#[tokio::test]
async fn an_informer_of_an_external_plane_loses_nothing_when_its_server_ends() {
    let house = House::open().await;
    let (plane, text) = house.plane("acme").await;
    let client = Client::from_kubeconfig_text(&text, None).await.unwrap();
    let source = Source::Plane {
        id: plane.source.clone(),
        plane: plane.plane,
        client: client.clone(),
    };
    let informer = Informer::start(
        &Sources::new(house.world.clone(), [source]),
        CONFIG_MAPS,
        InformerOptions::default(),
    );
    soon(informer.wait_synced()).await;
    let body = json!({"metadata": {"name": "a"}});
    client.create(&CONFIG_MAPS, Some("default"), &body).await.unwrap();
    soon(async {
        while informer.get(&plane.object("default", "a")).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    house.stop.cancel();
    house.api.shutdown().await;

    soon(async {
        while informer.proves_absence(&plane.source) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(
        informer.get(&plane.object("default", "a")).is_some(),
        "being away deletes nothing"
    );
    assert!(client.get(&CONFIG_MAPS, Some("default"), "a").await.is_err());
}
