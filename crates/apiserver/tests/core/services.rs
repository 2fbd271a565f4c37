//! Addresses and ports of Services.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use apiserver::planes::addresses::Owner;
use keyspace::{KeyRange, Keyspace, Options, Range};
use serde_json::{Value, json};

use crate::harness::{Api, House};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}

fn address(service: &Value) -> Ipv4Addr {
    service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_two_services_of_any_plane_have_one_address() {
    let house = House::new();
    let planes: Vec<Api> = vec![house.tenant("acme").await, house.tenant("globex").await, house.root()];
    let mut addresses = BTreeSet::new();
    for api in &planes {
        for name in ["a", "b", "c", "d"] {
            assert!(addresses.insert(address(&api.made(SERVICES, &service(name)).await)));
        }
    }
    let ranges = house.server.planes().ranges();
    let tenants = addresses
        .iter()
        .filter(|address| ranges.tenants.contains(*address))
        .count();
    assert_eq!((tenants, addresses.len() - tenants), (8, 4));
}

#[tokio::test]
async fn an_address_comes_back_with_the_deletion() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let mut wanted = service("two");
    wanted["spec"]["clusterIP"] = address(&api.made(SERVICES, &service("one")).await).to_string().into();

    let (taken, said) = api.post(SERVICES, &wanted).await;
    api.delete(&format!("{SERVICES}/one")).await;
    let (free, _) = api.post(SERVICES, &wanted).await;

    assert_eq!((taken.as_u16(), free.as_u16()), (422, 201));
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("provided IP is already allocated"),
        "{said}"
    );
}

#[tokio::test]
async fn the_super_plane_repeats_a_tenants_address() {
    let house = House::new();
    let (tenant, root) = (house.tenant("acme").await, house.root());
    let theirs = tenant.made(SERVICES, &service("web")).await;
    let mut image = service("web");
    image["spec"]["clusterIP"] = theirs["spec"]["clusterIP"].clone();

    let made = root.made(SERVICES, &image).await;
    root.delete(&format!("{SERVICES}/web")).await;
    let mut other = service("other");
    other["spec"]["clusterIP"] = theirs["spec"]["clusterIP"].clone();
    let (still_taken, _) = tenant.post(SERVICES, &other).await;
    let mut foreign = service("foreign");
    foreign["spec"]["clusterIP"] = "10.96.7.7".into();
    let (refused, _) = tenant.post(SERVICES, &foreign).await;

    assert_eq!(made["spec"]["clusterIPs"], json!([theirs["spec"]["clusterIP"]]));
    assert_eq!(still_taken, 422);
    assert_eq!(refused, 422);
}

#[tokio::test]
async fn headless_and_external_services_have_none() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let mut headless = service("headless");
    headless["spec"]["clusterIP"] = "None".into();
    let external =
        json!({"metadata": {"name": "out"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});

    let headless = api.made(SERVICES, &headless).await;
    let external = api.made(SERVICES, &external).await;

    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert!(external["spec"].get("clusterIP").is_none(), "{external}");
}

#[tokio::test]
async fn an_update_keeps_what_was_allocated() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let mut wanted = service("web");
    wanted["spec"]["type"] = "NodePort".into();
    let made = api.made(SERVICES, &wanted).await;
    wanted["spec"]["selector"]["app"] = "other".into();

    let (status, updated) = api.put(&format!("{SERVICES}/web"), &wanted).await;
    let (_, inner) = api
        .merge(
            &format!("{SERVICES}/web"),
            &json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}),
        )
        .await;
    let mut claims = service("claims");
    claims["spec"]["type"] = "NodePort".into();
    claims["spec"]["ports"][0]["nodePort"] = made["spec"]["ports"][0]["nodePort"].clone();
    let (free, _) = api.post(SERVICES, &claims).await;

    let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port));
    assert_eq!(status, 200, "{updated}");
    assert_eq!(updated["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!(updated["spec"]["ports"], made["spec"]["ports"]);
    assert_eq!(inner["spec"]["clusterIP"], made["spec"]["clusterIP"], "{inner}");
    assert_eq!(free, 201);
}

#[tokio::test]
async fn a_tenants_claims_come_and_go_with_its_service_alone() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let mut wanted = service("web");
    wanted["spec"]["type"] = "NodePort".into();
    let before = claims(&house).await;

    let refused = json!({"metadata": {"name": "no"}, "spec": {"type": "NodePort", "ports": [
        {"port": 80}, {"port": 80},
    ]}});
    let (status, _) = api.post(SERVICES, &refused).await;
    let after_refusal = claims(&house).await;
    api.made(SERVICES, &wanted).await;
    let made = claims(&house).await;
    api.delete(&format!("{SERVICES}/web")).await;

    assert_eq!(status, 422);
    assert_eq!(after_refusal, before);
    assert_eq!(made.len(), before.len() + 2);
    assert_eq!(claims(&house).await, before);
}

#[tokio::test]
async fn what_a_crash_left_claimed_for_the_super_plane_is_given_back() {
    let house = House::new();
    let root = house.root();
    let mut wanted = service("web");
    wanted["spec"]["type"] = "NodePort".into();
    root.made(SERVICES, &wanted).await;
    let planes = house.server.planes();
    let plane = planes.root().await.unwrap();
    let before = claims(&house).await;
    let owner = Owner {
        plane: plane.id,
        namespace: "default".to_owned(),
        name: "never-written".to_owned(),
    };
    let range = planes.ranges().root.clone();
    planes
        .addresses()
        .allocate_address(&range, &owner)
        .await
        .unwrap()
        .unwrap();
    planes
        .addresses()
        .allocate_port(&(30000..=32767), &owner)
        .await
        .unwrap()
        .unwrap();

    let repaired = planes.repair_claims(&plane, Duration::ZERO).await.unwrap();

    assert_eq!(repaired, 2);
    assert_eq!(claims(&house).await, before);
}

/// The keys of all claims.
async fn claims(house: &House) -> Vec<String> {
    let mut keys = Vec::new();
    for prefix in ["/p/ips/", "/p/ports/"] {
        let ranged = house
            .shared
            .range(Range::of(KeyRange::prefix(prefix)), Options::default())
            .await
            .unwrap();
        keys.extend(
            ranged
                .items
                .iter()
                .map(|item| String::from_utf8_lossy(&item.key).into_owned()),
        );
    }
    keys
}
