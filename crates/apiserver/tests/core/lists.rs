//! Lists: selectors, parts, revisions, forms.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS, House};

async fn filled(count: usize) -> (House, Api) {
    let house = House::new();
    let api = house.tenant("acme").await;
    for at in 0..count {
        let parity = if at % 2 == 0 { "even" } else { "odd" };
        let body = json!({"metadata": {"name": format!("c{at:02}"), "labels": {"parity": parity}}});
        api.made(CONFIG_MAPS, &body).await;
    }
    (house, api)
}

#[tokio::test]
async fn a_list_in_parts_is_the_whole_at_one_revision() {
    let (_house, api) = filled(10).await;
    let whole: BTreeSet<String> = api.names(CONFIG_MAPS).await.into_iter().collect();

    let (mut names, mut path) = (Vec::new(), format!("{CONFIG_MAPS}?limit=3"));
    let mut remaining = Vec::new();
    loop {
        let (status, part) = api.get(&path).await;
        assert_eq!(status, 200, "{part}");
        names.extend(
            part["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        remaining.extend(part["metadata"]["remainingItemCount"].as_u64());
        // What is made in between is not seen.
        let late = json!({"metadata": {"name": format!("d{}", names.len())}});
        api.made(CONFIG_MAPS, &late).await;
        match part["metadata"]["continue"].as_str() {
            Some(token) => path = format!("{CONFIG_MAPS}?limit=3&continue={token}"),
            None => break,
        }
    }

    // Ten, and `kube-root-ca.crt` which the plane has by birth.
    assert_eq!(remaining, [8, 5, 2]);
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), whole);
    assert_eq!(whole.len(), 11);
}

#[tokio::test]
async fn selectors_select() {
    let (_house, api) = filled(6).await;

    assert_eq!(
        api.names(&format!("{CONFIG_MAPS}?labelSelector=parity%3Dodd")).await,
        ["c01", "c03", "c05"]
    );
    assert_eq!(
        api.names(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc02"))
            .await,
        ["c02"]
    );
    assert_eq!(
        api.names(&format!(
            "{CONFIG_MAPS}?labelSelector=parity+in+(even)&fieldSelector=metadata.name!%3Dc02"
        ))
        .await,
        ["c00", "c04"]
    );
    assert_eq!(api.get(&format!("{CONFIG_MAPS}?labelSelector=a+b")).await.0, 400);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}?fieldSelector=data.a%3Db")).await.0, 400);
}

#[tokio::test]
async fn a_limit_with_a_selector_goes_on_to_the_end() {
    let (_house, api) = filled(8).await;

    let (_, part) = api
        .get(&format!("{CONFIG_MAPS}?labelSelector=parity%3Dodd&limit=3"))
        .await;
    let token = part["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = api
        .get(&format!(
            "{CONFIG_MAPS}?labelSelector=parity%3Dodd&limit=3&continue={token}"
        ))
        .await;

    assert_eq!(part["items"].as_array().unwrap().len(), 3);
    assert!(part["metadata"].get("remainingItemCount").is_none());
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert!(rest["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_list_can_be_had_as_it_was() {
    let (house, api) = filled(2).await;
    let (_, before) = api.get(CONFIG_MAPS).await;
    let revision = before["metadata"]["resourceVersion"].as_str().unwrap();
    api.delete(&format!("{CONFIG_MAPS}/c00")).await;
    let exact = format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");

    let (_, then) = api.get(&exact).await;
    let (_, not_older) = api
        .get(&format!(
            "{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan"
        ))
        .await;
    let (_, future) = api.get(&format!("{CONFIG_MAPS}?resourceVersion=1000000")).await;
    let (_, pointless) = api.get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact")).await;
    let now = not_older["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let keyspace: &dyn keyspace::Keyspace = &*house.shared;
    keyspace
        .compact(keyspace::Revision(now), Default::default())
        .await
        .unwrap();
    let (_, gone) = api.get(&exact).await;

    assert_eq!(then["items"], before["items"]);
    assert_eq!(not_older["items"].as_array().unwrap().len(), 2);
    assert_eq!((&future["code"], &future["reason"]), (&json!(504), &json!("Timeout")));
    assert_eq!(pointless["code"], 422);
    assert_eq!((&gone["code"], &gone["reason"]), (&json!(410), &json!("Expired")));
}

#[tokio::test]
async fn a_continue_token_leads_nowhere_else() {
    let (house, api) = filled(4).await;
    let other = house.tenant("globex").await;
    let (_, part) = api.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    let token = part["metadata"]["continue"].as_str().unwrap();

    let (_, foreign) = other.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    let (rubbish, _) = other.get(&format!("{CONFIG_MAPS}?limit=2&continue=rubbish")).await;

    let names: Vec<_> = foreign["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["kube-root-ca.crt"]);
    assert_eq!(rubbish, 400);
}

#[tokio::test]
async fn a_table_has_a_row_an_object() {
    let (_house, api) = filled(2).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let response = api.get_as(CONFIG_MAPS, accept).await;
    let bytes = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    let table: serde_json::Value = serde_json::from_slice(&bytes).unwrap();

    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"].as_array().unwrap().len(), 3);
    assert_eq!(table["rows"][0]["cells"][0], "c00");
    assert!(table["rows"][0]["object"]["metadata"]["resourceVersion"].is_string());
    assert!(table["metadata"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn an_expired_token_is_exchanged_for_one_that_goes_on() {
    let (house, api) = filled(5).await;
    let (_, part) = api.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    let token = part["metadata"]["continue"].as_str().unwrap();
    let last = api.made(CONFIG_MAPS, &json!({"metadata": {"name": "d"}})).await;
    let now = last["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let keyspace: &dyn keyspace::Keyspace = &*house.shared;
    keyspace
        .compact(keyspace::Revision(now), Default::default())
        .await
        .unwrap();

    let (status, expired) = api.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let rest = api.names(&format!("{CONFIG_MAPS}?limit=9&continue={token}")).await;

    assert_eq!((status.as_u16(), &expired["reason"]), (410, &json!("Expired")));
    assert_eq!(rest, ["c02", "c03", "c04", "d", "kube-root-ca.crt"]);
}

#[tokio::test]
async fn one_name_in_all_namespaces_and_in_all_planes_can_be_listed_and_watched() {
    let house = House::new();
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    for api in [&acme, &globex] {
        api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;
        api.made(CONFIG_MAPS, &json!({"metadata": {"name": "two"}})).await;
    }
    let path = "/api/v1/configmaps?fieldSelector=metadata.name%3Done";

    assert_eq!(acme.names(path).await, ["one"]);
    let mut watch = acme.watch(&format!("{path}&watch=1")).await;
    assert_eq!(watch.short().await, "ADDED one");
    let (status, list) = house.all().get(path).await;
    assert_eq!((status.as_u16(), list["items"].as_array().unwrap().len()), (200, 2));
    let mut watch = house.all().watch(&format!("{path}&watch=1")).await;
    assert_eq!(watch.short().await, "ADDED one");
    assert_eq!(watch.short().await, "ADDED one");
}
