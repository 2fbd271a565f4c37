//! Making, opening and deleting planes.

use apiserver::{PlaneSpec, registry::Beside};
use keyspace::{KeyRange, Keyspace, Options, Range};
use serde_json::json;

use crate::harness::{CONFIG_MAPS, House};

fn spec(name: &str) -> PlaneSpec {
    PlaneSpec {
        name: name.to_owned(),
        ..PlaneSpec::default()
    }
}

async fn keys(house: &House) -> Vec<String> {
    let all = Range::of(KeyRange::prefix("/"));
    let ranged = house.shared.range(all, Options::default()).await.unwrap();
    ranged
        .items
        .iter()
        .map(|item| String::from_utf8_lossy(&item.key).into_owned())
        .collect()
}

#[tokio::test]
async fn an_idle_plane_is_three_keys() {
    let house = House::new();

    let record = house.server.planes().create(spec("acme")).await.unwrap();

    let expected = [
        format!("/p/ips/{}", record.kubernetes_service_ip),
        "/p/names/acme".to_owned(),
        format!("/p/planes/{}", record.id),
    ];
    assert_eq!(keys(&house).await, expected);
    assert!(
        house
            .server
            .planes()
            .ranges()
            .pods_door
            .contains(&record.kubernetes_service_ip)
    );
    let found = house
        .server
        .planes()
        .by_address(record.kubernetes_service_ip)
        .await
        .unwrap();
    assert_eq!(found, Some(record.id));
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let house = House::new();
    let planes = house.server.planes();

    let first = planes.create(spec("acme")).await.unwrap();
    let second = planes.create(spec("acme")).await.unwrap_err();

    assert_eq!(second.reason, api::Reason::AlreadyExists);
    assert_eq!(planes.find("acme").await.unwrap(), Some(first.id));
    assert_eq!(planes.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_that_many_want_at_once_is_taken_once_with_one_address() {
    let house = House::new();
    let planes = house.server.planes();

    let made = futures::future::join_all((0..8).map(|_| planes.create(spec("acme")))).await;

    let made: Vec<_> = made.into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    assert_eq!(planes.find("acme").await.unwrap(), Some(made[0].id));
    assert_eq!(keys(&house).await.len(), 3);
}

#[tokio::test]
async fn two_planes_do_not_see_each_other() {
    let house = House::new();
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let a = acme
        .made(
            CONFIG_MAPS,
            &json!({"metadata": {"name": "same"}, "data": {"a": "acme"}}),
        )
        .await;

    assert_eq!(globex.get(&format!("{CONFIG_MAPS}/same")).await.0, 404);
    let b = globex.made(CONFIG_MAPS, &json!({"metadata": {"name": "same"}})).await;

    assert_ne!(a["metadata"]["uid"], b["metadata"]["uid"]);
    assert_eq!(acme.get(&format!("{CONFIG_MAPS}/same")).await.1["data"]["a"], "acme");
}

#[tokio::test]
async fn a_deleted_plane_leaves_nothing() {
    let house = House::new();
    let planes = house.server.planes().clone();
    let record = planes.create(spec("acme")).await.unwrap();
    let api = house.of(record.id);
    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;
    api.delete(&format!("{CONFIG_MAPS}/kube-root-ca.crt")).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    api.made("/api/v1/namespaces/default/services", &service).await;
    api.made(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        &crate::definitions::crontabs(),
    )
    .await;
    let crontab = json!({"metadata": {"name": "c"}, "spec": {"cronSpec": "* *", "replicas": 1}});
    api.made("/apis/stable.example.com/v1/namespaces/default/crontabs", &crontab)
        .await;

    planes.delete(record.id).await.unwrap();

    assert_eq!(keys(&house).await, Vec::<String>::new());
    assert_eq!(api.get(CONFIG_MAPS).await.0, 404);
    assert_eq!(
        planes.delete(record.id).await.unwrap_err().reason,
        api::Reason::NotFound
    );
    planes.create(spec("acme")).await.unwrap();
}

#[tokio::test]
async fn a_deletion_cut_short_is_gone_on_with() {
    let house = House::new();
    let planes = house.server.planes().clone();
    let record = planes.create(spec("acme")).await.unwrap();
    house
        .of(record.id)
        .made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}}))
        .await;
    // As a server leaves it that dies right after setting the marker.
    let mut marked = record.clone();
    marked.deleting = true;
    let put = keyspace::Op::put(format!("/p/planes/{}", record.id), serde_json::to_vec(&marked).unwrap());
    let txn = keyspace::Txn {
        success: vec![put],
        ..Default::default()
    };
    house.shared.txn(txn, Options::default()).await.unwrap();

    planes.resume_deletions().await.unwrap();

    assert_eq!(keys(&house).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_super_plane_is_as_it_was_after_a_restart() {
    let world = world::World::real();
    let root = std::sync::Arc::new(keyspace::MemoryKeyspace::new(world.clone()));
    let start = || {
        apiserver::ApiServer::new(apiserver::ApiServerOptions {
            shared: std::sync::Arc::new(keyspace::MemoryKeyspace::new(world.clone())),
            root: root.clone(),
            world: world.clone(),
            pod_backend: None,
            ranges: apiserver::ServiceRanges::default(),
            advertise: Some("192.0.2.1:6443".parse().unwrap()),
        })
    };
    let first = start().planes().root().await.unwrap();
    let second = start().planes().root().await.unwrap();

    assert_eq!((first.id, first.revision), (second.id, second.revision));
    let definition = "/registry/apiextensions.k8s.io/customresourcedefinitions/virtualclusters.tenancy.mangrove.io";
    let range = Range::of(KeyRange::one(definition));
    let found = root.range(range, Options::default()).await.unwrap().items.remove(0);
    assert_eq!(found.version, 1);
    let key = "/registry/services/endpoints/default/kubernetes";
    let range = Range::of(KeyRange::one(key));
    let found = root.range(range, Options::default()).await.unwrap().items.remove(0);
    let endpoints: serde_json::Value = serde_json::from_slice(&found.value).unwrap();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 6443);
}

#[tokio::test]
async fn the_platforms_own_definition_follows_the_binary() {
    let world = world::World::real();
    let root = std::sync::Arc::new(keyspace::MemoryKeyspace::new(world.clone()));
    let start = || {
        apiserver::ApiServer::new(apiserver::ApiServerOptions {
            shared: std::sync::Arc::new(keyspace::MemoryKeyspace::new(world.clone())),
            root: root.clone(),
            world: world.clone(),
            pod_backend: None,
            ranges: apiserver::ServiceRanges::default(),
            advertise: None,
        })
    };
    start().planes().root().await.unwrap();
    let key = "/registry/apiextensions.k8s.io/customresourcedefinitions/virtualclusters.tenancy.mangrove.io";
    let read = || async {
        let range = Range::of(KeyRange::one(key));
        let found = root.range(range, Options::default()).await.unwrap().items.remove(0);
        serde_json::from_slice::<serde_json::Value>(&found.value).unwrap()
    };
    let born = read().await;
    // As an older binary may have left it.
    let mut older = born.clone();
    older["spec"]["versions"][0]["schema"] = json!({"openAPIV3Schema": {"type": "object"}});
    let txn = keyspace::Txn {
        success: vec![keyspace::Op::put(key, older.to_string())],
        ..Default::default()
    };
    root.txn(txn, Options::default()).await.unwrap();

    start().planes().root().await.unwrap();

    let now = read().await;
    assert_eq!(now["spec"], born["spec"]);
    assert_eq!(now["metadata"]["uid"], born["metadata"]["uid"]);
    assert_eq!(now["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_request_that_is_under_way_when_its_plane_goes_writes_nothing_after_it() {
    let house = House::new();
    let planes = house.server.planes().clone();
    let record = planes.create(spec("acme")).await.unwrap();
    let api = house.of(record.id);
    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;
    // A slow request has opened the plane; another server deletes it, and this one has not heard of it yet.
    let slow = planes.open(record.id).await.unwrap();
    planes.delete(record.id).await.unwrap();

    let kind = house
        .server
        .registry()
        .kind(&slow, "", "v1", "configmaps")
        .await
        .unwrap()
        .unwrap();
    let place = apiserver::registry::Place {
        plane: &slow,
        kind: &kind,
        namespace: Some("default"),
        name: "late",
    };
    let object = api::Object::from_tree(json!({"metadata": {"name": "late", "namespace": "default"}}));
    let written = place
        .put(&planes, keyspace::Revision(0), &object, None, Beside::default())
        .await;

    assert_eq!(written.unwrap_err().reason, api::Reason::NotFound);
    assert_eq!(keys(&house).await, Vec::<String>::new());
}
