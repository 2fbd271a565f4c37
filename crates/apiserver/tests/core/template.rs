//! D6: a plane that reads its birthright through and one that has it written answer alike.

use apiserver::{PlaneSpec, planes::Bootstrap};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, House};

#[tokio::test]
async fn what_a_plane_has_by_birth_is_there_and_costs_nothing() {
    let house = House::new();
    let api = house.tenant("acme").await;

    let namespaces = api.names("/api/v1/namespaces").await;
    let roles = api.names("/apis/rbac.authorization.k8s.io/v1/clusterroles").await;
    let (_, service) = api.get("/api/v1/namespaces/default/services/kubernetes").await;
    let (_, account) = api.get("/api/v1/namespaces/kube-system/serviceaccounts/default").await;
    let (_, again) = api.get("/api/v1/namespaces/kube-system/serviceaccounts/default").await;

    assert_eq!(namespaces, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    assert_eq!(roles.len(), 70);
    assert!(service["spec"]["clusterIP"].as_str().unwrap().starts_with("10.1"));
    assert_eq!(account, again);
    assert!(account["metadata"]["uid"].is_string());
    assert_eq!(
        account["metadata"]["resourceVersion"],
        service["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_deleted_birthright_stays_deleted_until_it_is_made_anew() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{CONFIG_MAPS}/kube-root-ca.crt");
    let (_, before) = api.get(&path).await;

    let (deleted, _) = api.delete(&path).await;
    let (gone, _) = api.get(&path).await;
    let names = api.names(CONFIG_MAPS).await;
    let made = api
        .made(CONFIG_MAPS, &json!({"metadata": {"name": "kube-root-ca.crt"}}))
        .await;

    assert_eq!((deleted.as_u16(), gone.as_u16()), (200, 404));
    assert!(names.is_empty());
    assert_ne!(made["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(api.names(CONFIG_MAPS).await, ["kube-root-ca.crt"]);
}

#[tokio::test]
async fn the_first_write_keeps_the_identity() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = "/api/v1/namespaces/default";
    let (_, before) = api.get(path).await;

    let (_, after) = api.merge(path, &json!({"metadata": {"labels": {"a": "b"}}})).await;

    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_ne!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    assert_eq!(api.names("/api/v1/namespaces").await.len(), 4);
}

#[derive(Clone, Debug)]
enum Step {
    Get(&'static str),
    Create(&'static str),
    Label(&'static str, u8),
    Replace(&'static str, u8),
    Stale(&'static str),
    Delete(&'static str),
    DeleteAll(&'static str),
    List { labelled: bool, limit: usize },
}

const NAMES: [&str; 5] = [
    "aaa",
    "kube-root-ca.crt",
    "zzz",
    "m",
    "extension-apiserver-authentication",
];
const SPACES: [&str; 2] = ["default", "kube-system"];

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let name = prop::sample::select(NAMES.to_vec());
    let selector = prop::sample::select(vec![
        "",
        "?labelSelector=l%3D1",
        "?fieldSelector=metadata.name%3Dkube-root-ca.crt",
    ]);
    let step = prop_oneof![
        name.clone().prop_map(Step::Get),
        name.clone().prop_map(Step::Create),
        (name.clone(), 0..3_u8).prop_map(|(name, label)| Step::Label(name, label)),
        (name.clone(), 0..3_u8).prop_map(|(name, label)| Step::Replace(name, label)),
        name.clone().prop_map(Step::Stale),
        name.prop_map(Step::Delete),
        selector.prop_map(Step::DeleteAll),
        (any::<bool>(), 0..4_usize).prop_map(|(labelled, limit)| Step::List { labelled, limit }),
    ];
    prop::collection::vec((0..SPACES.len(), step), 1..25)
}

/// Does a step and tells all of the answer but what has to differ between two planes.
async fn perform(api: &Api, space: &str, step: &Step) -> Vec<(u16, Value)> {
    let base = format!("/api/v1/namespaces/{space}/configmaps");
    let one = |name: &str| format!("{base}/{name}");
    let answers = match step {
        Step::Get(name) => vec![api.get(&one(name)).await],
        Step::Create(name) => {
            vec![
                api.post(&base, &json!({"metadata": {"name": name, "labels": {"l": "1"}}}))
                    .await,
            ]
        }
        Step::Label(name, label) => {
            vec![
                api.merge(&one(name), &json!({"metadata": {"labels": {"l": label.to_string()}}}))
                    .await,
            ]
        }
        Step::Replace(name, label) => {
            let (status, mut read) = api.get(&one(name)).await;
            if status != 200 {
                return vec![(status.as_u16(), Value::Null)];
            }
            read["data"]["r"] = label.to_string().into();
            vec![api.put(&one(name), &read).await]
        }
        Step::Stale(name) => {
            let body = json!({"metadata": {"name": name, "resourceVersion": "1"}});
            vec![api.put(&one(name), &body).await]
        }
        Step::Delete(name) => vec![api.delete(&one(name)).await],
        Step::DeleteAll(selector) => vec![api.delete(&format!("{base}{selector}")).await],
        Step::List { labelled, limit } => {
            let selector = if *labelled { "&labelSelector=l" } else { "" };
            let mut token = String::new();
            let mut answers = Vec::new();
            // All namespaces, so that templates of several of them are merged.
            loop {
                let query = format!("?limit={limit}{selector}&continue={token}");
                let (status, list) = api.get(&format!("/api/v1/configmaps{query}")).await;
                token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
                answers.push((status, list));
                if token.is_empty() {
                    break answers;
                }
            }
        }
    };
    answers
        .into_iter()
        .map(|(status, tree)| (status.as_u16(), comparable(tree)))
        .collect()
}

/// Without what two planes can't have in common.
fn comparable(mut tree: Value) -> Value {
    fn walk(tree: &mut Value) {
        match tree {
            Value::Object(fields) => {
                for field in [
                    "uid",
                    "resourceVersion",
                    "creationTimestamp",
                    "time",
                    "continue",
                    "ca.crt",
                    "client-ca-file",
                ] {
                    if fields.contains_key(field) {
                        fields.insert(field.to_owned(), "*".into());
                    }
                }
                fields.values_mut().for_each(walk);
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut tree);
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_templated_plane_and_a_materialised_one_answer_alike(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let house = House::new();
            let mut planes = Vec::new();
            for (name, bootstrap) in [("t", Bootstrap::Templated), ("m", Bootstrap::Materialised)] {
                let spec = PlaneSpec { name: name.to_owned(), bootstrap };
                let api = house.of(house.server.planes().create(spec).await.unwrap().id);
                let (_, list) = api.get("/api/v1/configmaps").await;
                let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
                planes.push((api, revision));
            }

            for (space, step) in &steps {
                let templated = perform(&planes[0].0, SPACES[*space], step).await;
                let materialised = perform(&planes[1].0, SPACES[*space], step).await;
                assert_eq!(templated, materialised, "{step:?}");
            }

            // And both tell of it alike, also to who selects.
            for selector in ["", "&labelSelector=l", "&labelSelector=l%3D1"] {
                let mut told = Vec::new();
                for (api, revision) in &planes {
                    api.post(CONFIG_MAPS, &json!({"metadata": {"name": "end", "labels": {"l": "1"}}})).await;
                    let path = format!("/api/v1/configmaps?watch=1&resourceVersion={revision}{selector}");
                    let mut watch = api.watch(&path).await;
                    let mut events = Vec::new();
                    loop {
                        let event = comparable(watch.next().await.unwrap());
                        let last = event["object"]["metadata"]["name"] == "end";
                        events.push(event);
                        if last {
                            break;
                        }
                    }
                    told.push(events);
                }
                assert_eq!(told[0], told[1], "{selector}");
            }
        });
    }
}
