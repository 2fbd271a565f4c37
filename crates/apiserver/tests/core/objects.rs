//! Create, get, update, patch.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, House, POD};

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "busybox"}]},
            },
        },
    })
}

#[tokio::test]
async fn what_was_created_is_read_back() {
    let house = House::new();
    let api = house.root();

    let made = api.made(CONFIG_MAPS, &config_map("one")).await;
    let (status, read) = api.get(&format!("{CONFIG_MAPS}/one")).await;

    assert_eq!(status, 200);
    assert_eq!(read, made);
    assert_eq!(read["metadata"]["namespace"], "default");
    assert_eq!(read["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(
        read["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 1
    );
    assert!(read["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn refusals_read_as_upstreams() {
    let house = House::new();
    let api = house.root();
    api.made(CONFIG_MAPS, &config_map("one")).await;

    let (_, exists) = api.post(CONFIG_MAPS, &config_map("one")).await;
    let (_, absent) = api.get("/apis/apps/v1/namespaces/default/deployments/two").await;
    let (_, nowhere) = api.post("/api/v1/namespaces/no/configmaps", &config_map("one")).await;
    let (_, other) = api
        .post(CONFIG_MAPS, &json!({"metadata": {"name": "x", "namespace": "other"}}))
        .await;
    let (_, nameless) = api.post(CONFIG_MAPS, &json!({"metadata": {}})).await;
    let (_, unknown) = api.get("/apis/no.such.group/v1/things").await;
    let (_, kind) = api
        .post(CONFIG_MAPS, &json!({"kind": "Secret", "metadata": {"name": "x"}}))
        .await;

    assert_eq!(exists["message"], "configmaps \"one\" already exists");
    assert_eq!(
        (&exists["code"], &exists["reason"]),
        (&json!(409), &json!("AlreadyExists"))
    );
    assert_eq!(absent["message"], "deployments.apps \"two\" not found");
    assert_eq!(
        absent["details"],
        json!({"name": "two", "group": "apps", "kind": "deployments"})
    );
    assert_eq!(nowhere["message"], "namespaces \"no\" not found");
    assert_eq!(other["code"], 400);
    assert_eq!(nameless["code"], 422);
    assert_eq!(unknown["code"], 404);
    assert_eq!(kind["code"], 400);
}

#[tokio::test]
async fn a_generated_name_has_five_characters_more() {
    let house = House::new();
    let body = json!({"metadata": {"generateName": "one-"}});

    let made = house.root().made(CONFIG_MAPS, &body).await;

    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("one-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn two_who_read_the_same_can_not_both_write() {
    let house = House::new();
    let api = house.root();
    let path = format!("{CONFIG_MAPS}/one");
    let mut first = api.made(CONFIG_MAPS, &config_map("one")).await;
    let mut second = first.clone();
    first["data"]["a"] = "2".into();
    second["data"]["a"] = "3".into();

    let (won, _) = api.put(&path, &first).await;
    let (lost, refusal) = api.put(&path, &second).await;

    assert_eq!((won.as_u16(), lost.as_u16()), (200, 409));
    assert_eq!(
        refusal["message"],
        "Operation cannot be fulfilled on configmaps \"one\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_none() {
    let house = House::new();
    let api = house.root();
    let made = api.made(CONFIG_MAPS, &config_map("one")).await;

    let (_, same) = api.put(&format!("{CONFIG_MAPS}/one"), &made).await;
    let (_, patched) = api
        .merge(&format!("{CONFIG_MAPS}/one"), &json!({"data": {"a": "1"}}))
        .await;

    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(patched, made);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let house = House::new();
    let api = house.root();

    let made = api.made(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("one")).await;
    let (status, _) = api.get(&format!("{CONFIG_MAPS}/one")).await;

    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(status, 404);
}

#[tokio::test]
async fn all_three_patches_are_served() {
    let house = House::new();
    let api = house.root();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let path = format!("{deployments}/web");
    api.made(deployments, &deployment("web")).await;

    let sidecar = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "busybox"}]}}}});
    let (_, strategic) = api.strategic(&path, &sidecar).await;
    let (_, merged) = api.merge(&path, &json!({"spec": {"replicas": 5}})).await;
    let json_patch = r#"[{"op": "replace", "path": "/spec/replicas", "value": 7}]"#;
    let media = "application/json-patch+json";
    let (_, patched) = api.send(http::Method::PATCH, &path, media, json_patch.to_owned()).await;
    let (refused, _) = api
        .send(http::Method::PATCH, &path, "text/plain", "{}".to_owned())
        .await;

    let containers = strategic["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!(merged["spec"]["replicas"], 5);
    assert_eq!(patched["spec"]["replicas"], 7);
    assert_eq!(patched["metadata"]["generation"], 4);
    assert_eq!(refused, 415);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let house = House::new();
    let api = house.root();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = api.made(deployments, &deployment("web")).await;
    let both = json!({"spec": {"replicas": 9}, "status": {"replicas": 2, "observedGeneration": 1}});

    let (_, status) = api.merge(&format!("{deployments}/web/status"), &both).await;
    let (_, spec) = api.merge(&format!("{deployments}/web"), &both).await;

    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate");
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(status["metadata"]["generation"], 1);
    assert_eq!(
        (&spec["spec"]["replicas"], &spec["metadata"]["generation"]),
        (&json!(9), &json!(2))
    );
}

#[tokio::test]
async fn scale_is_the_number_of_replicas() {
    let house = House::new();
    let api = house.root();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    api.made(deployments, &deployment("web")).await;
    let path = format!("{deployments}/web/scale");

    let (_, mut scale) = api.get(&path).await;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    assert_eq!(scale["status"]["selector"], "app=web");
    scale["spec"]["replicas"] = 4.into();
    let (status, put) = api.put(&path, &scale).await;
    let (_, patched) = api.merge(&path, &json!({"spec": {"replicas": 6}})).await;
    let (stale, _) = api.put(&path, &scale).await;

    assert_eq!((status.as_u16(), &put["spec"]["replicas"]), (200, &json!(4)));
    assert_eq!(patched["spec"]["replicas"], 6);
    assert_eq!(stale, 409);
}

#[tokio::test]
async fn unknown_fields_are_dropped_warned_of_or_refused() {
    let house = House::new();
    let api = house.root();
    let mut body = config_map("one");
    body["colour"] = "red".into();
    let post = |query: &str| {
        let (api, body, path) = (api.clone(), body.to_string(), format!("{CONFIG_MAPS}?{query}"));
        async move { api.request(http::Method::POST, &path, "application/json", body).await }
    };

    let strict = post("fieldValidation=Strict").await;
    let warned = post("fieldValidation=Warn").await;
    let (_, stored) = api.get(&format!("{CONFIG_MAPS}/one")).await;

    assert_eq!(strict.status(), 400);
    assert_eq!(warned.status(), 201);
    assert_eq!(warned.headers()["warning"], r#"299 - "unknown field \"colour\"""#);
    assert!(stored.get("colour").is_none());
}

#[tokio::test]
async fn bodies_that_can_not_be_are_refused() {
    let house = House::new();
    let api = house.root();
    let send = |body: String| {
        let api = api.clone();
        async move {
            api.send(http::Method::POST, CONFIG_MAPS, "application/json", body)
                .await
                .0
                .as_u16()
        }
    };

    assert_eq!(send("{".to_owned()).await, 400);
    assert_eq!(send("[]".to_owned()).await, 400);
    assert_eq!(send("{\"metadata\":[]}".to_owned()).await, 400);
    assert_eq!(send("[".repeat(100_000)).await, 400);
    assert_eq!(send(" ".repeat((3 << 20) + 1)).await, 413);
}

#[tokio::test]
async fn an_update_makes_what_is_not_there_for_some_kinds() {
    let house = House::new();
    let api = house.root();
    let lease = json!({"metadata": {"name": "one"}, "spec": {"holderIdentity": "me"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

    let (made, _) = api.put(&format!("{leases}/one"), &lease).await;
    let (refused, _) = api.put(&format!("{CONFIG_MAPS}/one"), &config_map("one")).await;

    assert_eq!(made, 201);
    assert_eq!(refused, 404);
}

#[tokio::test]
async fn an_event_is_one_object_in_two_groups() {
    let house = House::new();
    let api = house.root();
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "one", "namespace": "default"},
        "message": "hello", "reason": "Said", "type": "Normal",
    });
    api.made("/api/v1/namespaces/default/events", &event).await;

    let (status, read) = api.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await;
    let names = api
        .names("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name=one")
        .await;

    assert_eq!(status, 200, "{read}");
    assert_eq!(
        (&read["note"], &read["apiVersion"]),
        (&json!("hello"), &json!("events.k8s.io/v1"))
    );
    assert_eq!(names, ["e"]);
}

#[tokio::test]
async fn a_pod_is_admitted_as_upstream_does() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let pod = json!({"metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}});

    let made = api.made(POD, &pod).await;

    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(
        (&made["status"]["phase"], &made["status"]["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
}

#[tokio::test]
async fn a_pod_without_its_account_or_class_is_refused() {
    let house = House::new();
    let api = house.root();
    let pod = |field: &str| {
        let mut pod = json!({"metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
        pod["spec"][field] = "ghost".into();
        pod
    };

    let (_, account) = api.post(POD, &pod("serviceAccountName")).await;
    let (_, class) = api.post(POD, &pod("priorityClassName")).await;

    assert_eq!(
        account["message"],
        "pods \"one\" is forbidden: error looking up service account default/ghost: serviceaccount \"ghost\" not found"
    );
    assert_eq!(
        class["message"],
        "pods \"one\" is forbidden: no PriorityClass with name ghost was found"
    );
}

#[tokio::test]
async fn every_built_in_resource_is_listed_and_watched() {
    let house = House::new();
    for api in [house.root(), house.tenant("acme").await] {
        for info in api::table::resources().iter().filter(|info| info.is_stored()) {
            let path = info.resource.path(None, None);

            let (status, list) = api.get(&path).await;

            assert_eq!(status, 200, "{path}: {list}");
            assert_eq!(list["kind"], format!("{}List", info.resource.kind));
            let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
            let mut watch = api
                .watch(&format!(
                    "{path}?watch=1&resourceVersion={revision}&sendInitialEvents=true\
                     &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
                ))
                .await;
            for item in list["items"].as_array().unwrap() {
                let event = watch.next().await.unwrap();
                assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), item), "{path}");
            }
            assert_eq!(watch.next().await.unwrap()["type"], "BOOKMARK", "{path}");
        }
    }
}

#[tokio::test]
async fn many_who_patch_one_object_all_succeed() {
    let house = House::new();
    let api = house.root();
    api.made(CONFIG_MAPS, &config_map("one")).await;

    let patches = (0..24).map(|at| {
        let api = api.clone();
        async move {
            let patch = json!({"data": {format!("k{at}"): "v"}});
            api.merge(&format!("{CONFIG_MAPS}/one"), &patch).await.0.as_u16()
        }
    });
    let codes = futures::future::join_all(patches).await;
    let (_, read) = api.get(&format!("{CONFIG_MAPS}/one")).await;

    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    assert_eq!(read["data"].as_object().unwrap().len(), 25);
}
