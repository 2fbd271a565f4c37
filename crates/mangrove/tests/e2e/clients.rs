//! Other clients than kubectl: kube-rs, and the official one for Python.

use std::process::Command;

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::{
    apps::v1::Deployment,
    authentication::v1::SelfSubjectReview,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Config,
    api::{
        ApiResource, DeleteParams, DynamicObject, EvictParams, GroupVersionKind, ListParams, LogParams, Patch,
        PatchParams, PostParams, WatchEvent, WatchParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use testkit::{clients, kubectl::Kubectl, said::Said};

use crate::{door::block_on, platform_with_image};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/client.py");

#[test]
fn pythons_client_works_at_a_tenants_plane() {
    let Some(python) = clients::python() else { return };
    let Some(platform) = platform_with_image() else { return };
    let acme = platform.tenant("acme");

    let mut command = Command::new(python);
    command.arg(SCRIPT).env("KUBECONFIG", acme.kubeconfig());
    let said = Said::of(&mut command).out();

    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "version 36",
            "namespaces default kube-node-lease kube-public kube-system",
            "ready 1",
            "log from python",
            "exec in the Pod",
            "scale 0",
            "pages py-0 py-1 py-2 py-3 py-4",
            "missing 404 Not Found",
            "snake 1",
            "allowed True",
            "token parts 3",
        ]
    );
    platform.finish();
}

#[test]
fn kube_rs_works_at_a_tenants_plane() {
    let Some(platform) = platform_with_image() else { return };
    let acme = platform.tenant("acme");

    block_on(async {
        let client = client(&acme).await;
        who_it_is(&client).await;
        a_deployment_runs_and_its_pod_is_evicted(&client).await;
        lists_come_in_parts(&client).await;
        kinds_of_ones_own_are_served(&client).await;
    });

    platform.finish();
}

async fn client(tenant: &Kubectl) -> Client {
    let kubeconfig = Kubeconfig::read_from(tenant.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn who_it_is(client: &Client) {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await;
    let user = review.unwrap().status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some("admin"));
    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
}

async fn a_deployment_runs_and_its_pod_is_evicted(client: &Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let deployment = json!({"metadata": {"name": "rusty"}, "spec": {
        "selector": {"matchLabels": {"app": "rusty"}},
        "template": {"metadata": {"labels": {"app": "rusty"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "mangrove.test/web:1", "command": ["/bin/sh", "-c", "echo from rust; sleep 1000"]},
        ]}},
    }});
    let deployment: Deployment = serde_json::from_value(deployment).unwrap();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let again = deployments.create(&PostParams::default(), &deployment).await;
    assert!(matches!(again, Err(kube::Error::Api(status)) if status.reason == "AlreadyExists"));

    let only_it = WatchParams::default().fields("metadata.name=rusty").timeout(100);
    let events = deployments.watch(&only_it, "0").await.unwrap();
    pin_mut!(events);
    let mut ready = false;
    while let Some(event) = events.try_next().await.unwrap() {
        let (WatchEvent::Added(now) | WatchEvent::Modified(now)) = event else {
            continue;
        };
        if now.status.and_then(|status| status.ready_replicas) == Some(1) {
            ready = true;
            break;
        }
    }
    assert!(ready, "the watch ended before the Deployment was ready");

    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let its_own = ListParams::default().labels("app=rusty");
    let name = pods
        .list(&its_own)
        .await
        .unwrap()
        .items
        .remove(0)
        .metadata
        .name
        .unwrap();
    assert_eq!(pods.logs(&name, &LogParams::default()).await.unwrap(), "from rust\n");
    pods.evict(&name, &EvictParams::default()).await.unwrap();

    let scale = json!({"spec": {"replicas": 0}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&scale));
    let scaled = deployments.patch_scale("rusty", &params, &patch).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(0));
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1}});
    let (theirs, forced) = (PatchParams::apply("test"), PatchParams::apply("test").force());
    let applied = deployments.patch("rusty", &theirs, &Patch::Apply(&config)).await;
    let Err(kube::Error::Api(refused)) = applied else {
        panic!("the number of replicas is who scaled's")
    };
    assert_eq!(refused.code, 409, "{}", refused.message);
    let applied = deployments
        .patch("rusty", &forced, &Patch::Apply(&config))
        .await
        .unwrap();
    assert_eq!(applied.spec.unwrap().replicas, Some(1));
    let owners = applied.metadata.managed_fields.unwrap_or_default();
    assert!(owners.iter().any(|owner| owner.manager.as_deref() == Some("test")));
    let foreground = DeleteParams::foreground();
    deployments.delete("rusty", &foreground).await.unwrap();
}

async fn lists_come_in_parts(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for at in 0..5 {
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": format!("r{at}")}})).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let mut names = Vec::new();
    let mut ask = ListParams::default().limit(2);
    loop {
        let page = maps.list_metadata(&ask).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|map| map.metadata.name));
        let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else {
            break;
        };
        ask = ListParams::default().limit(2).continue_token(&token);
    }
    assert_eq!(names, ["kube-root-ca.crt", "r0", "r1", "r2", "r3", "r4"]);
    let watched = maps.watch(&WatchParams::default().timeout(1), "0").await.unwrap();
    let added = watched.filter(|event| futures::future::ready(matches!(event, Ok(WatchEvent::Added(_)))));
    assert_eq!(added.count().await, 6);
}

async fn kinds_of_ones_own_are_served(client: &Client) {
    let kind = |group: &str, version: &str, kind: &str, plural: &str| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    };
    let definitions = kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    );
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
    let crabs: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crabs.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "crabs", "singular": "crab", "kind": "Crab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"legs": {"type": "integer", "default": 8, "maximum": 10}}}}}]},
    }))
    .unwrap();
    definitions.create(&PostParams::default(), &crabs).await.unwrap();
    let crabs: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &kind("example.com", "v1", "Crab", "crabs"));
    let crab = |legs: Option<u32>| {
        let mut crab = json!({"apiVersion": "example.com/v1", "kind": "Crab", "metadata": {"name": "c"}});
        if let Some(legs) = legs {
            crab["legs"] = legs.into();
        }
        serde_json::from_value::<DynamicObject>(crab).unwrap()
    };
    let refused = crabs.create(&PostParams::default(), &crab(Some(12))).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 422));
    let made = crabs.create(&PostParams::default(), &crab(None)).await.unwrap();
    assert_eq!(made.data["legs"], 8);
    let legs = Patch::Merge(json!({"legs": 9}));
    let patched = crabs.patch("c", &PatchParams::default(), &legs).await.unwrap();
    assert_eq!(patched.data["legs"], 9);
    definitions
        .delete("crabs.example.com", &DeleteParams::default())
        .await
        .unwrap();
}
