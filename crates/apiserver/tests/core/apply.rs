//! Server-side apply and the owners of fields, through every door that writes.

use http::Method;
use serde_json::{Value, json};

use crate::{
    definitions::crontabs,
    harness::{Api, CONFIG_MAPS, House, POD},
};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(api: &Api, path: &str, query: &str, config: &Value) -> (http::StatusCode, Value) {
    let path = format!("{path}?{query}");
    let media = "application/apply-patch+yaml";
    api.send(Method::PATCH, &path, media, config.to_string()).await
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(replicas: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

/// `manager operation[/subresource]`, one an owner.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or("");
            let slash = if text("subresource").is_empty() { "" } else { "/" };
            format!(
                "{} {}{slash}{}",
                text("manager"),
                text("operation"),
                text("subresource")
            )
        })
        .collect()
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["manager"] == manager);
    entry.map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

#[tokio::test]
async fn a_configuration_makes_an_object_and_changes_its_own_fields() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{CONFIG_MAPS}/c");

    let (made, first) = apply(
        &api,
        &path,
        "fieldManager=one",
        &config_map("c", json!({"a": "1", "b": "1"})),
    )
    .await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '2'}\n";
    let query = format!("{path}?fieldManager=one");
    let media = "application/apply-patch+yaml";
    let (changed, second) = api.send(Method::PATCH, &query, media, yaml.to_owned()).await;
    let (_, third) = apply(&api, &path, "fieldManager=one", &config_map("c", json!({"a": "2"}))).await;

    assert_eq!((made.as_u16(), changed.as_u16()), (201, 200), "{first} {second}");
    assert_eq!(first["data"], json!({"a": "1", "b": "1"}));
    assert_eq!(owners(&first), ["one Apply"]);
    assert_eq!(second["data"], json!({"a": "2"}), "what is no longer said is gone");
    assert_eq!(fields(&second, "one"), &json!({"f:data": {"f:a": {}}}));
    assert_eq!(
        third["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"],
        "the same again writes nothing"
    );
}

#[tokio::test]
async fn conflicts_are_told_in_upstreams_words_and_can_be_forced() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{DEPLOYMENTS}/web");
    let creator = format!("{DEPLOYMENTS}?fieldManager=creator");
    api.made(&creator, &deployment(json!(1))).await;

    let (code, refused) = apply(&api, &path, "fieldManager=one", &deployment(json!(3))).await;
    let (_, forced) = apply(&api, &path, "fieldManager=one&force=true", &deployment(json!(3))).await;

    assert_eq!(code, 409);
    assert_eq!(refused["reason"], "Conflict");
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"creator\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        refused["details"]["causes"],
        json!([{
            "reason": "FieldManagerConflict", "message": "conflict with \"creator\" using apps/v1", "field": ".spec.replicas",
        }])
    );
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(forced["metadata"]["generation"], 2);
    assert!(fields(&forced, "creator")["f:spec"].get("f:replicas").is_none());
}

#[tokio::test]
async fn every_door_notes_who_writes() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&api, &path, "fieldManager=one", &deployment(json!(1))).await;

    let (_, status) = api
        .merge(
            &format!("{path}/status?fieldManager=two"),
            &json!({"status": {"replicas": 1}, "spec": {"paused": true}}),
        )
        .await;
    let (_, scale) = api
        .merge(
            &format!("{path}/scale?fieldManager=three"),
            &json!({"spec": {"replicas": 2}}),
        )
        .await;
    let (_, after) = api.get(&path).await;
    let (_, updated) = api
        .strategic(
            &format!("{path}?fieldManager=four"),
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await;

    assert_eq!(owners(&status), ["one Apply", "two Update/status"]);
    assert_eq!(fields(&status, "two"), &json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(owners(&after), ["one Apply", "three Update/scale", "two Update/status"]);
    assert_eq!(fields(&after, "three"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields(&after, "one")["f:spec"].get("f:replicas").is_none());
    let (code, refused) = apply(&api, &path, "fieldManager=one", &deployment(json!(1))).await;
    assert_eq!(code, 409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"three\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        fields(&updated, "four"),
        &json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}})
    );
}

#[tokio::test]
async fn status_and_scale_can_be_applied_too() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&api, &path, "fieldManager=one", &deployment(json!(1))).await;

    let status =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 1}});
    let (_, after) = apply(&api, &format!("{path}/status"), "fieldManager=two", &status).await;
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let scales = format!("{path}/scale");
    let (conflict, refused) = apply(&api, &scales, "fieldManager=three", &scale).await;
    let (forced, said) = apply(&api, &scales, "fieldManager=three&force=true", &scale).await;
    let (_, scaled) = api.get(&path).await;
    let (absent, _) = apply(&api, &format!("{DEPLOYMENTS}/no/status"), "fieldManager=two", &status).await;

    assert_eq!(after["status"]["replicas"], 1);
    assert_eq!(owners(&after), ["one Apply", "two Apply/status"]);
    assert_eq!(conflict, 409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    assert_eq!(forced, 200, "{said}");
    assert_eq!(scaled["spec"]["replicas"], 4);
    assert_eq!(owners(&scaled), ["one Apply", "three Apply/scale", "two Apply/status"]);
    assert_eq!(absent, 404);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_before_anything_changes() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{CONFIG_MAPS}/c");
    let config = config_map("c", json!({"a": "1"}));
    let long = "x".repeat(129);
    let mut of_uid = config.clone();
    of_uid["metadata"]["uid"] = "5".into();
    let mut owned = config.clone();
    owned["metadata"]["managedFields"] = json!([]);
    let mut misspelt = config.clone();
    misspelt["dato"] = json!({});

    for (query, config, code, message) in [
        (
            "",
            &config,
            422,
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
        ),
        (
            &*format!("fieldManager={long}"),
            &config,
            422,
            "may not be more than 128 bytes",
        ),
        (
            "fieldManager=a%0Ab",
            &config,
            422,
            "should only contain printable characters",
        ),
        (
            "fieldManager=one",
            &of_uid,
            409,
            "uid mismatch: the provided object specified uid 5, and no existing object was found",
        ),
        ("fieldManager=one", &owned, 400, "metadata.managedFields must be nil"),
        (
            "fieldManager=one",
            &misspelt,
            500,
            ".dato: field not declared in schema",
        ),
        (
            "fieldManager=one",
            &config_map("d", json!({})),
            400,
            "does not match the name on the URL",
        ),
    ] {
        let (status, said) = apply(&api, &path, query, config).await;
        assert_eq!(status, code, "{said}");
        assert!(said["message"].as_str().unwrap().contains(message), "{said}");
    }
    let forced = api.merge(&format!("{path}?force=true"), &json!({})).await;
    assert_eq!(forced.0, 422, "{}", forced.1);
    let media = "application/apply-patch+cbor";
    let cbor = api.send(Method::PATCH, &path, media, String::new()).await;
    assert_eq!(cbor.0, 415);
    assert_eq!(api.get(&path).await.0, 404);
}

#[tokio::test]
async fn owners_can_be_forgotten_and_a_dry_run_changes_nothing() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{CONFIG_MAPS}/c");
    let dry = "fieldManager=one&dryRun=All";
    let config = config_map("c", json!({"a": "1"}));

    let (planned, would_be) = apply(&api, &path, dry, &config).await;
    let (absent, _) = api.get(&path).await;
    apply(&api, &path, "fieldManager=one", &config).await;
    let (_, forgotten) = api.merge(&path, &json!({"metadata": {"managedFields": [{}]}})).await;
    let (_, untracked) = api.merge(&path, &json!({"data": {"b": "1"}})).await;
    let (_, again) = apply(&api, &path, "fieldManager=two", &config_map("c", json!({"c": "1"}))).await;

    assert_eq!((planned.as_u16(), absent.as_u16()), (201, 404));
    assert_eq!(owners(&would_be), ["one Apply"]);
    assert_eq!(owners(&forgotten), Vec::<String>::new());
    assert_eq!(owners(&untracked), Vec::<String>::new());
    assert_eq!(owners(&again), ["two Apply", "before-first-apply Update"]);
}

#[tokio::test]
async fn custom_objects_are_applied_by_their_schema() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crontabs())
        .await;
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs/c";
    let crontab = |spec: Value| json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "c"}, "spec": spec});

    let (made, first) = apply(
        &api,
        path,
        "fieldManager=one",
        &crontab(json!({"cronSpec": "* 5", "replicas": 1})),
    )
    .await;
    let (_, scaled) = api
        .merge(
            &format!("{path}/scale?fieldManager=two"),
            &json!({"spec": {"replicas": 3}}),
        )
        .await;
    let (_, second) = apply(&api, path, "fieldManager=one", &crontab(json!({"cronSpec": "* 6"}))).await;
    let (refused, said) = apply(
        &api,
        path,
        "fieldManager=one",
        &crontab(json!({"cronSpec": "* 6", "no": 1})),
    )
    .await;

    assert_eq!(made, 201, "{first}");
    assert_eq!(
        fields(&first, "one"),
        &json!({"f:spec": {"f:cronSpec": {}, "f:replicas": {}}}),
        "defaults are nobody's"
    );
    assert_eq!(scaled["spec"]["replicas"], 3);
    assert_eq!(
        second["spec"],
        json!({"cronSpec": "* 6", "image": "cron", "replicas": 3})
    );
    assert_eq!(owners(&second), ["one Apply", "two Update/scale"]);
    assert_eq!(refused, 500);
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .ends_with(".spec.no: field not declared in schema"),
        "{said}"
    );
}

#[tokio::test]
async fn what_the_server_does_by_itself_is_nobodys() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    let (code, said) = apply(&api, &format!("{POD}/one"), "fieldManager=one", &pod).await;
    assert_eq!(code, 201, "{said}");

    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "one"}, "target": {"kind": "Node", "name": "n"}});
    let (bound, _) = api.post(&format!("{POD}/one/binding"), &binding).await;
    let (_, after) = api.get(&format!("{POD}/one")).await;
    let (_, event) = api
        .post(
            "/api/v1/namespaces/default/events",
            &json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "one", "namespace": "default"}}),
        )
        .await;

    assert_eq!(bound, 201);
    assert_eq!(owners(&after), ["one Apply"]);
    assert_eq!(fields(&after, "one"), fields(&said, "one"));
    assert_eq!(owners(&event), Vec::<String>::new(), "a loop's event is not noted");

    api.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crontabs())
        .await;
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    let crontab = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "c"}, "spec": {"cronSpec": "* * * * *", "replicas": 1}});
    let made = api.made(&format!("{path}?fieldManager=one"), &crontab).await;
    let status = json!({"status": {"replicas": 1}});
    let (code, told) = api.merge(&format!("{path}/c/status?fieldManager=two"), &status).await;
    assert_eq!((code.as_u16(), &told["status"]), (200, &status["status"]));
    assert_eq!(
        told["metadata"]["managedFields"], made["metadata"]["managedFields"],
        "a loop's status of a custom object is not noted"
    );
}

#[tokio::test]
async fn many_who_apply_at_once_all_have_their_fields() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{CONFIG_MAPS}/c");
    let one = |at: usize| {
        let (api, path) = (api.clone(), path.clone());
        async move {
            let config = config_map("c", json!({format!("k{at}"): "1"}));
            apply(&api, &path, &format!("fieldManager=m{at}"), &config).await.0
        }
    };

    let codes = futures::future::join_all((0..12).map(one)).await;

    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| code.is_success()));
    let (_, after) = api.get(&path).await;
    assert_eq!(after["data"].as_object().unwrap().len(), 12);
    assert_eq!(owners(&after).len(), 12);
}
