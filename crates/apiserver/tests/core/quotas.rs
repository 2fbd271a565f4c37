//! Quotas and limits of namespaces.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, House, POD};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn quota(hard: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "a", "image": "b", "resources": {"requests": {"cpu": "400m"}, "limits": {"memory": "1Mi"}}},
    ]}})
}

async fn used(api: &Api) -> Value {
    api.get(&format!("{QUOTAS}/q")).await.1["status"]["used"].clone()
}

#[tokio::test]
async fn a_namespace_holds_no_more_than_its_quota() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(CONFIG_MAPS, &map("before")).await;

    let made = api.made(QUOTAS, &quota(json!({"configmaps": "3", "pods": "9"}))).await;
    api.made(CONFIG_MAPS, &map("one")).await;
    let (refused, said) = api.post(CONFIG_MAPS, &map("two")).await;
    let full = used(&api).await;
    api.delete(&format!("{CONFIG_MAPS}/before")).await;
    let after = used(&api).await;
    let (again, _) = api.post(CONFIG_MAPS, &map("two")).await;

    // The namespace's own root certificate counts as well.
    assert_eq!(made["status"], json!({}));
    assert_eq!(full, json!({"configmaps": "3", "pods": "0"}));
    assert_eq!(refused, 403, "{said}");
    assert_eq!(
        said["message"],
        "configmaps \"two\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: \
         configmaps=3"
    );
    assert_eq!(after["configmaps"], "2");
    assert_eq!(again, 201);
}

#[tokio::test]
async fn compute_is_charged_while_a_pod_lives() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(
        QUOTAS,
        &quota(json!({"requests.cpu": "1", "limits.memory": "1Gi", "count/pods": "5"})),
    )
    .await;
    api.made(POD, &pod("one")).await;
    api.made(POD, &pod("two")).await;

    let (third, said) = api.post(POD, &pod("three")).await;
    let mut bare = pod("bare");
    bare["spec"]["containers"][0]["resources"] = json!({});
    let (unbounded, why) = api.post(POD, &bare).await;
    let ended = json!({"status": {"phase": "Succeeded"}});
    let (status, _) = api.merge(&format!("{POD}/one/status"), &ended).await;
    let after_end = used(&api).await;
    api.delete(&format!("{POD}/one")).await;
    api.delete(&format!("{POD}/two")).await;

    assert_eq!((third.as_u16(), unbounded.as_u16(), status.as_u16()), (403, 403, 200));
    assert!(
        said["message"].as_str().unwrap().ends_with(
            "exceeded quota: q, requested: requests.cpu=400m, used: requests.cpu=800m, limited: requests.cpu=1"
        ),
        "{said}"
    );
    assert!(
        why["message"]
            .as_str()
            .unwrap()
            .ends_with("failed quota: q: must specify limits.memory for: a; requests.cpu for: a"),
        "{why}"
    );
    assert_eq!(
        after_end,
        json!({"count/pods": "2", "limits.memory": "1Mi", "requests.cpu": "400m"})
    );
    assert_eq!(
        used(&api).await,
        json!({"count/pods": "0", "limits.memory": "0", "requests.cpu": "0"})
    );
}

#[tokio::test]
async fn fifty_at_once_get_exactly_what_there_is() {
    let house = House::new();
    let api = house.tenant("acme").await;
    // One is there already: the root certificate.
    api.made(QUOTAS, &quota(json!({"configmaps": "31"}))).await;

    let all = futures::future::join_all((0..50).map(|at| {
        let api = api.clone();
        async move { api.post(CONFIG_MAPS, &map(&format!("m-{at}"))).await.0.as_u16() }
    }))
    .await;

    let made = all.iter().filter(|code| **code == 201).count();
    let refused = all.iter().filter(|code| **code == 403).count();
    assert_eq!((made, refused), (30, 20));
    assert_eq!(used(&api).await["configmaps"], "31");
    assert_eq!(api.names(CONFIG_MAPS).await.len(), 31);
}

#[tokio::test]
async fn a_quota_made_among_writers_counts_them_all() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let writers = (0..40).map(|at| {
        let api = api.clone();
        async move {
            if at == 20 {
                api.made(QUOTAS, &quota(json!({"configmaps": "100"}))).await;
            }
            api.made(CONFIG_MAPS, &map(&format!("m-{at}"))).await;
        }
    });

    futures::future::join_all(writers).await;

    let there = api.names(CONFIG_MAPS).await.len().to_string();
    assert_eq!(used(&api).await["configmaps"], there);
}

#[tokio::test]
async fn what_a_quota_newly_bounds_is_counted() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(QUOTAS, &quota(json!({"configmaps": "9"}))).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    api.made(SERVICES, &service).await;

    api.merge(
        &format!("{QUOTAS}/q"),
        &json!({"spec": {"hard": {"services.nodeports": "1", "count/widgets.example.com": "1"}}}),
    )
    .await;
    let bounded = used(&api).await;
    let (second, _) = api
        .post(
            SERVICES,
            &json!({"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
        )
        .await;
    let lie = json!({"status": {"used": {"configmaps": "0"}}});
    api.merge(&format!("{QUOTAS}/q/status"), &lie).await;

    // `kubernetes` and the root certificate are there by birth.
    assert_eq!(
        bounded,
        json!({"configmaps": "1", "count/widgets.example.com": "0", "services.nodeports": "1"})
    );
    assert_eq!(second, 403);
    assert_eq!(used(&api).await, bounded);
}

#[tokio::test]
async fn a_dry_run_is_refused_and_costs_nothing() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(QUOTAS, &quota(json!({"configmaps": "2"}))).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");

    let (tried, _) = api.post(&dry, &map("one")).await;
    let free = used(&api).await;
    api.made(CONFIG_MAPS, &map("one")).await;
    let (refused, _) = api.post(&dry, &map("two")).await;

    assert_eq!((tried.as_u16(), refused.as_u16()), (201, 403));
    assert_eq!(free["configmaps"], "1");
}

#[tokio::test]
async fn limits_are_filled_in_and_kept() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]}});
    api.made(LIMITS, &range).await;
    let mut bare = pod("bare");
    bare["spec"]["containers"][0]["resources"] = json!({});
    let mut large = bare.clone();
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}},
    }});

    let made = api.made(POD, &bare).await;
    let (too_large, said) = api.post(POD, &large).await;
    let (too_much, why) = api
        .post("/api/v1/namespaces/default/persistentvolumeclaims", &claim)
        .await;

    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    assert_eq!((too_large.as_u16(), too_much.as_u16()), (403, 403));
    assert_eq!(
        said["message"],
        "pods \"bare\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    assert!(why["message"].as_str().unwrap().contains("but request is 2Gi"), "{why}");
}

#[tokio::test]
async fn a_namespaces_labels_bound_what_its_pods_may_do() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let label = |value: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": value}}});
    let mut privileged = pod("p");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    api.made(POD, &privileged).await;

    let (nonsense, said) = api.merge("/api/v1/namespaces/default", &label("strict")).await;
    let labelled = api
        .request(
            Method::PATCH,
            "/api/v1/namespaces/default",
            "application/merge-patch+json",
            label("baseline").to_string(),
        )
        .await;
    privileged["metadata"]["name"] = "q".into();
    let (refused, why) = api.post(POD, &privileged).await;
    let (plain, _) = api.post(POD, &pod("plain")).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": privileged["spec"]});
    let deployment =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let warned = api
        .request(
            Method::POST,
            "/apis/apps/v1/namespaces/default/deployments",
            "application/json",
            deployment.to_string(),
        )
        .await;

    assert_eq!((nonsense.as_u16(), labelled.status().as_u16()), (422, 200), "{said}");
    let warnings: Vec<&str> = labelled
        .headers()
        .get_all("warning")
        .iter()
        .map(|warning| warning.to_str().unwrap())
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[1].contains("p: privileged"), "{warnings:?}");
    assert_eq!((refused.as_u16(), plain.as_u16()), (403, 201));
    assert_eq!(
        why["message"],
        "pods \"q\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"a\" must not set \
         securityContext.privileged=true)"
    );
    assert_eq!(warned.status(), 201);
    assert!(
        warned.headers()["warning"]
            .to_str()
            .unwrap()
            .contains("would violate PodSecurity")
    );
}

#[tokio::test]
async fn custom_objects_count_until_their_definition_goes() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
    }});
    api.made(definitions, &definition).await;
    api.made(QUOTAS, &quota(json!({"count/widgets.example.com": "1"})))
        .await;
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}});

    api.made(widgets, &widget("one")).await;
    let (second, said) = api.post(widgets, &widget("two")).await;
    api.delete(&format!("{definitions}/widgets.example.com")).await;

    assert_eq!(second, 403, "{said}");
    assert_eq!(used(&api).await, json!({"count/widgets.example.com": "0"}));
}
