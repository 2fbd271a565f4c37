//! Custom resources.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, House};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

pub fn crontabs() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string", "pattern": "^[*0-9 ]+$"},
                        "image": {"type": "string", "default": "cron"},
                        "replicas": {"type": "integer", "minimum": 0},
                    }},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

#[tokio::test]
async fn a_definition_is_served_when_its_maker_has_the_answer() {
    let house = House::new();
    let api = house.tenant("acme").await;

    let definition = api.made(DEFINITIONS, &crontabs()).await;
    let made = api
        .made(
            CRONTABS,
            &json!({"metadata": {"name": "c"}, "spec": {"cronSpec": "* * 5", "extra": 1}}),
        )
        .await;
    let (status, list) = api.get(CRONTABS).await;

    let conditions = definition["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|it| it["type"] == "Established" && it["status"] == "True")
    );
    assert_eq!(made["spec"], json!({"cronSpec": "* * 5", "image": "cron"}));
    assert_eq!(
        (&made["apiVersion"], &made["kind"]),
        (&json!("stable.example.com/v1"), &json!("CronTab"))
    );
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!((status.as_u16(), &list["kind"]), (200, &json!("CronTabList")));
    assert_eq!(house.tenant("globex").await.get(CRONTABS).await.0, 404);
}

#[tokio::test]
async fn what_the_schema_refuses_is_refused() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(DEFINITIONS, &crontabs()).await;

    let (status, said) = api
        .post(CRONTABS, &json!({"metadata": {"name": "c"}, "spec": {"replicas": -1}}))
        .await;

    assert_eq!(status, 422);
    let fields: Vec<&str> = said["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["field"].as_str().unwrap())
        .collect();
    assert!(
        fields.contains(&"spec.cronSpec") && fields.contains(&"spec.replicas"),
        "{said}"
    );
}

#[tokio::test]
async fn status_and_scale_of_custom_objects_are_their_own() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(DEFINITIONS, &crontabs()).await;
    api.made(
        CRONTABS,
        &json!({"metadata": {"name": "c"}, "spec": {"cronSpec": "*"}, "status": {"replicas": 9}}),
    )
    .await;
    let path = format!("{CRONTABS}/c");

    let (_, status) = api
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"replicas": 3}, "spec": {"replicas": 8}}),
        )
        .await;
    let (_, scale) = api.get(&format!("{path}/scale")).await;
    let (_, scaled) = api
        .merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 5}}))
        .await;
    let (_, read) = api.get(&path).await;

    assert_eq!(
        (&status["status"]["replicas"], &status["spec"]["replicas"]),
        (&json!(3), &Value::Null)
    );
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(scaled["spec"]["replicas"], 5);
    assert_eq!(
        (&read["spec"]["replicas"], &read["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
}

#[tokio::test]
async fn two_planes_define_one_name_differently_and_a_definition_takes_its_objects_along() {
    let house = House::new();
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let mut other = crontabs();
    other["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    acme.made(DEFINITIONS, &crontabs()).await;
    globex.made(DEFINITIONS, &other).await;
    let body = json!({"metadata": {"name": "c"}, "spec": {"cronSpec": "*", "colour": "red"}});
    let mine = acme.made(CRONTABS, &body).await;
    let theirs = globex.made(CRONTABS, &body).await;

    acme.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await;
    let (gone, _) = acme.get(CRONTABS).await;
    acme.made(DEFINITIONS, &crontabs()).await;

    assert!(mine["spec"].get("colour").is_none());
    assert_eq!(theirs["spec"]["colour"], "red");
    assert_eq!(gone, 404);
    assert_eq!(acme.names(CRONTABS).await, Vec::<String>::new());
    assert_eq!(globex.names(CRONTABS).await, ["c"]);
}

#[tokio::test]
async fn the_super_plane_has_virtual_clusters() {
    let house = House::new();
    let api = house.root();
    let clusters = "/apis/tenancy.mangrove.io/v1alpha1/virtualclusters";

    let made = api
        .made(clusters, &json!({"metadata": {"name": "acme"}, "spec": {}}))
        .await;
    let (status, _) = house.tenant("acme").await.get(clusters).await;

    assert_eq!(made["kind"], "VirtualCluster");
    assert_eq!(api.names(clusters).await, ["acme"]);
    assert_eq!(status, 404);
}

#[tokio::test]
async fn what_is_held_from_birth_has_its_finalizer_once_and_in_the_super_plane_alone() {
    let house = House::new();
    let api = house.root();
    let clusters = "/apis/tenancy.mangrove.io/v1alpha1/virtualclusters";
    let registry = house.server.registry();
    registry.hold_from_birth(&api::resource::VIRTUAL_CLUSTERS, "example.org/held");
    registry.hold_from_birth(&api::resource::CONFIG_MAPS, "example.org/held");

    let plain = api
        .made(clusters, &json!({"metadata": {"name": "a"}, "spec": {}}))
        .await;
    let finalizers = json!(["example.org/own", "example.org/held"]);
    let by_hand = json!({"metadata": {"name": "b", "finalizers": finalizers}, "spec": {}});
    let by_hand = api.made(clusters, &by_hand).await;
    let elsewhere = house.tenant("acme").await;
    let elsewhere = elsewhere.made(CONFIG_MAPS, &json!({"metadata": {"name": "c"}})).await;

    assert_eq!(plain["metadata"]["finalizers"], json!(["example.org/held"]));
    assert_eq!(by_hand["metadata"]["finalizers"], finalizers);
    assert!(elsewhere["metadata"].get("finalizers").is_none());
}

#[tokio::test]
async fn a_definition_that_can_not_be_is_refused() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let refused = |change: fn(&mut Value)| {
        let mut definition = crontabs();
        change(&mut definition);
        let api = api.clone();
        async move { api.post(DEFINITIONS, &definition).await.0.as_u16() }
    };

    assert_eq!(
        refused(|it| it["metadata"]["name"] = "other.stable.example.com".into()).await,
        422
    );
    assert_eq!(
        refused(|it| it["spec"]["versions"][0]["storage"] = false.into()).await,
        422
    );
    assert_eq!(
        refused(|it| it["spec"]["versions"][0]["schema"] = Value::Null).await,
        422
    );
    assert_eq!(
        refused(|it| {
            it["spec"]["group"] = "rbac.authorization.k8s.io".into();
            it["metadata"]["name"] = "crontabs.rbac.authorization.k8s.io".into();
        })
        .await,
        422
    );
}

#[tokio::test]
async fn a_definition_waits_for_objects_that_have_finalizers() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(DEFINITIONS, &crontabs()).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/clean"]}, "spec": {"cronSpec": "*"}});
    api.made(CRONTABS, &held).await;
    let free = json!({"metadata": {"name": "free"}, "spec": {"cronSpec": "*"}});
    api.made(CRONTABS, &free).await;
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");

    let (_, pending) = api.delete(&definition).await;
    let names = api.names(CRONTABS).await;
    let (refused, said) = api.post(CRONTABS, &free).await;
    let (again, _) = api.delete(&definition).await;
    let let_go = json!({"metadata": {"finalizers": null}});
    let (done, _) = api.merge(&format!("{CRONTABS}/held"), &let_go).await;

    assert!(pending["metadata"]["deletionTimestamp"].is_string(), "{pending}");
    let conditions = pending["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|it| it["type"] == "Terminating" && it["status"] == "True")
    );
    assert_eq!(names, ["held"]);
    assert_eq!(refused, 405);
    assert_eq!(
        said["message"],
        "create not allowed while custom resource definition is terminating"
    );
    assert_eq!((again.as_u16(), done.as_u16()), (200, 200));
    assert_eq!(api.get(&definition).await.0, 404);
    assert_eq!(api.get(CRONTABS).await.0, 404);
}

#[tokio::test]
async fn objects_are_filled_in_by_defaults_that_are_younger_than_they() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(DEFINITIONS, &crontabs()).await;
    let body = json!({"metadata": {"name": "c"}, "spec": {"cronSpec": "*"}});
    api.made(CRONTABS, &body).await;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/zone";
    let zone = json!([{"op": "add", "path": path, "value": {"type": "string", "default": "UTC"}}]);
    let definition = format!("{DEFINITIONS}/crontabs.stable.example.com");

    let patched = api
        .send(
            http::Method::PATCH,
            &definition,
            "application/json-patch+json",
            zone.to_string(),
        )
        .await;
    let (_, read) = api.get(&format!("{CRONTABS}/c")).await;
    let (_, list) = api.get(CRONTABS).await;

    assert_eq!(patched.0, 200, "{}", patched.1);
    assert_eq!(read["spec"], json!({"cronSpec": "*", "image": "cron", "zone": "UTC"}));
    assert_eq!(list["items"][0]["spec"]["zone"], "UTC");
}

#[tokio::test]
async fn rules_that_are_not_evaluated_are_told() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let mut definition = crontabs();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self.spec.replicas < 10"}]);

    let answer = api
        .request(
            http::Method::POST,
            DEFINITIONS,
            "application/json",
            definition.to_string(),
        )
        .await;

    assert_eq!(answer.status(), 201);
    let warning = answer.headers()["warning"].to_str().unwrap();
    assert!(warning.contains("not evaluated yet"), "{warning}");
}

#[tokio::test]
async fn names_that_are_in_use_are_waited_for() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(DEFINITIONS, &crontabs()).await;
    let mut other = crontabs();
    other["metadata"]["name"] = "tables.stable.example.com".into();
    other["spec"]["names"] = json!({"plural": "tables", "kind": "CronTab", "singular": "table"});

    let waiting = api.made(DEFINITIONS, &other).await;
    let tables = "/apis/stable.example.com/v1/namespaces/default/tables";
    let (before, _) = api.get(tables).await;
    api.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await;
    let (after, list) = api.get(tables).await;

    let conditions = waiting["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|it| it["reason"] == "ListKindConflict" && it["message"] == "\"CronTabList\" is already in use"),
        "{waiting}"
    );
    assert_eq!((before.as_u16(), after.as_u16()), (404, 200));
    assert_eq!(list["kind"], "CronTabList");
}
