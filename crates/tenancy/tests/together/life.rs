//! Tenants from their making to their end.

use api::{
    Object, PlaneId, Reason,
    resource::{CONFIG_MAPS, DEPLOYMENTS, EVENTS, NAMESPACES, PODS, SERVICES, VIRTUAL_CLUSTERS},
};
use client::{DeleteOptions, ListOptions};
use keyspace::{KeyRange, Options, Range};
use serde_json::json;

use crate::harness::{House, Tenant, named, until};

/// Keys of the shared keyspace that name the plane.
async fn keys_of(house: &House, plane: PlaneId) -> Vec<String> {
    let shared = house.planes.server.planes().shared();
    let all = Range::of(KeyRange::prefix("/"));
    let ranged = shared.range(all, Options::default()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ranged
        .items
        .iter()
        .filter(|item| text(&item.key).contains(plane.as_str()) || text(&item.value).contains(plane.as_str()))
        .map(|item| text(&item.key))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_is_left_alone_has_nothing_below() {
    let house = House::open().await;
    let before = house
        .below
        .list(&NAMESPACES, None, &ListOptions::default())
        .await
        .unwrap();
    let acme = house.tenant("acme").await;
    // Things of its own that no Pod needs.
    acme.make_namespace("shop").await;
    acme.make(&CONFIG_MAPS, "shop", &json!({"metadata": {"name": "settings"}}))
        .await;

    // Somebody else's Pod has gone the whole way since.
    let globex = house.tenant("globex").await;
    globex.make_pod("default", "web", |_| {}).await;
    globex.running("default", "web").await;

    assert_eq!(house.all_below(&acme).await, Vec::<String>::new());
    let after = house
        .below
        .list(&NAMESPACES, None, &ListOptions::default())
        .await
        .unwrap();
    assert_eq!(after.items.len(), before.items.len() + 1);
    let shop = acme.client.get(&NAMESPACES, None, "shop").await.unwrap();
    assert!(shop.tree()["metadata"].get("finalizers").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_do_the_same_under_the_same_names_and_see_only_their_own() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    for tenant in [&acme, &globex] {
        tenant.make_namespace("shop").await;
        let settings = json!({"metadata": {"name": "settings"}, "data": {"of": tenant.name}});
        tenant.make(&CONFIG_MAPS, "shop", &settings).await;
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        tenant.make(&SERVICES, "shop", &service).await;
        tenant
            .make_pod("shop", "web", |pod| {
                pod["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "settings"}}]);
            })
            .await;
    }

    let mut addresses = Vec::new();
    for tenant in [&acme, &globex] {
        let above = tenant.running("shop", "web").await;
        let below = house.super_object(tenant, &PODS, "web", |_| true).await;
        assert_eq!(above.tree()["status"]["podIP"], below.tree()["status"]["podIP"]);
        assert_eq!(above.tree()["spec"]["nodeName"], "n1");
        let settings = house.super_object(tenant, &CONFIG_MAPS, "settings", |_| true).await;
        assert_eq!(settings.tree()["data"]["of"], tenant.name.as_str());
        assert_eq!(settings.namespace(), below.namespace());
        let service = tenant.object(&SERVICES, "shop", "web", |_| true).await;
        let super_service = house.super_object(tenant, &SERVICES, "web", |_| true).await;
        assert_eq!(
            service.tree()["spec"]["clusterIP"],
            super_service.tree()["spec"]["clusterIP"]
        );
        addresses.push(service.tree()["spec"]["clusterIP"].clone());
        let pods = tenant.client.list(&PODS, None, &ListOptions::default()).await.unwrap();
        assert_eq!(pods.items.len(), 1);
        let text = above.tree().to_string();
        assert!(
            !text.contains(below.namespace()) && !text.contains(below.uid()),
            "{text}"
        );
    }
    assert_ne!(addresses[0], addresses[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_deployments_of_one_name_scale_each_by_itself() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let of_replicas = |replicas: usize| {
        json!({"metadata": {"name": "web"}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "containers": [{"name": "web", "image": "registry.example/one:1"}]}}}})
    };
    for tenant in [&acme, &globex] {
        tenant.make(&DEPLOYMENTS, "default", &of_replicas(3)).await;
    }
    async fn available(tenant: &Tenant, replicas: usize) {
        let good = |deployment: &Object| {
            let status = &deployment.tree()["status"];
            status["replicas"] == replicas && status["availableReplicas"] == replicas
        };
        tenant.object(&DEPLOYMENTS, "default", "web", good).await;
    }
    available(&acme, 3).await;
    available(&globex, 3).await;

    acme.merge(&DEPLOYMENTS, "default", "web", json!({"spec": {"replicas": 1}}))
        .await;
    available(&acme, 1).await;
    let four = |pods: &[Object]| (pods.len() == 4).then_some(());
    until("four Pods are left below", &house.below, &PODS, None, four).await;
    available(&globex, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_tenant_leaves_nothing_and_its_name_begins_anew() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_namespace("shop").await;
    for namespace in ["default", "shop"] {
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        acme.make(&SERVICES, namespace, &service).await;
        acme.make_pod(namespace, "web", |_| {}).await;
        acme.running(namespace, "web").await;
    }

    // Its Pods take their time; meanwhile its status tells.
    house.node.linger();
    let options = DeleteOptions::default();
    house
        .below
        .delete(&VIRTUAL_CLUSTERS, None, "acme", &options)
        .await
        .unwrap();
    until(
        "it tells that it ends",
        &house.below,
        &VIRTUAL_CLUSTERS,
        None,
        |clusters| {
            let status = &named(clusters, "acme")?.tree()["status"];
            let told = status["phase"] == "Deleting" && status["conditions"][0]["status"] == "False";
            (told && status["message"] == "2 namespaces of the super cluster are ending").then_some(())
        },
    )
    .await;
    let refused = acme
        .client
        .list(&PODS, None, &ListOptions::default())
        .await
        .unwrap_err();
    assert!(refused.is_not_found(), "{refused}");
    house.node.let_go();
    until(
        "the tenant is gone",
        &house.below,
        &VIRTUAL_CLUSTERS,
        None,
        |clusters| named(clusters, "acme").is_none().then_some(()),
    )
    .await;

    assert_eq!(house.all_below(&acme).await, Vec::<String>::new());
    assert_eq!(keys_of(&house, acme.plane).await, Vec::<String>::new());
    let opened = house.planes.server.planes().open(acme.plane).await.unwrap_err();
    assert_eq!(opened.reason, Reason::NotFound);

    let again = house.tenant("acme").await;
    assert_ne!(again.plane, acme.plane);
    let pods = again.client.list(&PODS, None, &ListOptions::default()).await.unwrap();
    assert!(pods.items.is_empty());
    let shop = again.client.get(&NAMESPACES, None, "shop").await.unwrap_err();
    assert!(shop.is_not_found());
    again.make_pod("default", "web", |_| {}).await;
    again.running("default", "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn super_namespaces_of_a_plane_that_is_no_more_go_when_the_syncer_sees_them() {
    let mut house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |_| {}).await;
    acme.running("default", "web").await;
    let namespace = house
        .super_object(&acme, &PODS, "web", |_| true)
        .await
        .namespace()
        .to_owned();
    let left = house.below.get(&NAMESPACES, None, &namespace).await.unwrap();
    house.stop_syncer().await;
    house.delete_tenant(&acme).await;

    // As if a syncer that was slow had made it after all.
    let mut orphan = json!({"metadata": {"name": namespace}});
    for field in ["labels", "annotations"] {
        orphan["metadata"][field] = left.tree()["metadata"][field].clone();
    }
    house.below.create(&NAMESPACES, None, &orphan).await.unwrap();
    house.start_syncer();

    until("the orphan is gone", &house.below, &NAMESPACES, None, |namespaces| {
        named(namespaces, &namespace).is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_no_tenant_can_have_are_refused_at_once_or_told_of() {
    let house = House::open().await;
    for name in ["a.b", &"n".repeat(64)] {
        let cluster = json!({"metadata": {"name": name}, "spec": {}});
        let refused = house.below.create(&VIRTUAL_CLUSTERS, None, &cluster).await.unwrap_err();
        assert!(
            refused.is_invalid() && refused.to_string().contains("metadata.name"),
            "{refused}"
        );
    }

    let cluster = json!({"metadata": {"name": "mangrove"}, "spec": {}});
    house.below.create(&VIRTUAL_CLUSTERS, None, &cluster).await.unwrap();
    let told = until("it is told of", &house.below, &VIRTUAL_CLUSTERS, None, |clusters| {
        let status = &named(clusters, "mangrove")?.tree()["status"];
        (status["phase"] == "Error").then(|| status.clone())
    })
    .await;
    assert_eq!(told["message"], "the name \"mangrove\" is the super cluster's own");
    assert_eq!(told["conditions"][0]["status"], "False");
    // Nothing holds it.
    let options = DeleteOptions::default();
    house
        .below
        .delete(&VIRTUAL_CLUSTERS, None, "mangrove", &options)
        .await
        .unwrap();
    until("it is gone", &house.below, &VIRTUAL_CLUSTERS, None, |clusters| {
        named(clusters, "mangrove").is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_about_a_pod_go_up_without_a_super_name() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |_| {}).await;
    let pod = acme.running("default", "web").await;
    let below = house.super_object(&acme, &PODS, "web", |_| true).await;
    let secret = below.tree()["spec"]["volumes"][0]["projected"]["sources"][0]["secret"]["name"].clone();
    let told = |count: u32| {
        json!({"metadata": {"name": "web.1", "namespace": below.namespace()},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": below.namespace(),
                "uid": below.uid(), "resourceVersion": below.resource_version()},
            "reason": "FailedMount", "type": "Warning", "count": count, "source": {"component": "kubelet"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
            "message": format!("pod {}/web ({}): secret {} not found", below.namespace(), below.uid(),
                secret.as_str().unwrap())})
    };
    house
        .below
        .create(&EVENTS, Some(below.namespace()), &told(1))
        .await
        .unwrap();

    let event = acme.object(&EVENTS, "default", "web.1", |_| true).await;
    assert_eq!(event.tree()["involvedObject"]["uid"], pod.uid());
    let text = event.tree().to_string();
    for word in [below.namespace(), below.uid(), secret.as_str().unwrap()] {
        assert!(!text.contains(word), "{word} in {text}");
    }

    house
        .below
        .update(&EVENTS, Some(below.namespace()), "web.1", &told(2))
        .await
        .unwrap();
    acme.object(&EVENTS, "default", "web.1", |event| event.tree()["count"] == 2)
        .await;
}
