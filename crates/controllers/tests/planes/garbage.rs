use api::{Resource, resource};
use client::{DeleteOptions, Propagation};

use crate::house::{House, deployment, until};

async fn with_pods(house: &House, plane: &client::PlaneKey, count: usize) {
    house
        .client(plane)
        .create(
            &resource::DEPLOYMENTS,
            Some("default"),
            &deployment("web", count as u32, "one"),
        )
        .await
        .unwrap();
    until("the Pods are there", || async {
        (house.list(plane, &resource::PODS, "default").await.len() == count).then_some(())
    })
    .await;
}

fn how(propagation: Propagation) -> DeleteOptions {
    DeleteOptions {
        propagation: Some(propagation),
        ..DeleteOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_takes_its_sets_and_pods_along_in_its_own_plane_only() {
    let house = House::open().await;
    for plane in &house.planes {
        with_pods(&house, plane, 2).await;
    }

    for (plane, propagation) in [
        (&house.planes[0], Propagation::Background),
        (&house.planes[2], Propagation::Foreground),
    ] {
        let client = house.client(plane);
        client
            .delete(&resource::DEPLOYMENTS, Some("default"), "web", &how(propagation))
            .await
            .unwrap();
        until(&format!("nothing is left in {plane}"), || async {
            let sets = house.list(plane, &resource::REPLICA_SETS, "default").await;
            let pods = house.list(plane, &resource::PODS, "default").await;
            let deployments = house.list(plane, &resource::DEPLOYMENTS, "default").await;
            (sets.is_empty() && pods.is_empty() && deployments.is_empty()).then_some(())
        })
        .await;
    }

    let other = &house.planes[1];
    assert_eq!(house.list(other, &resource::PODS, "default").await.len(), 2);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_have_no_owner_any_more() {
    let house = House::open().await;
    let plane = &house.planes[0];
    with_pods(&house, plane, 2).await;

    let client = house.client(plane);
    client
        .delete(
            &resource::DEPLOYMENTS,
            Some("default"),
            "web",
            &how(Propagation::Orphan),
        )
        .await
        .unwrap();
    until("the Deployment is gone", || async {
        house
            .list(plane, &resource::DEPLOYMENTS, "default")
            .await
            .is_empty()
            .then_some(())
    })
    .await;

    let sets = house.list(plane, &resource::REPLICA_SETS, "default").await;
    assert_eq!(sets.len(), 1);
    assert!(
        sets[0].tree()["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty),
        "{}",
        sets[0].tree()
    );
    assert_eq!(house.list(plane, &resource::PODS, "default").await.len(), 2);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_whose_owner_never_was_is_collected_and_one_with_another_owner_is_kept() {
    let house = House::open().await;
    let plane = &house.planes[1];
    let client = house.client(plane);
    let owner = client
        .create(
            &resource::CONFIG_MAPS,
            Some("default"),
            &serde_json::json!({"metadata": {"name": "owner"}}),
        )
        .await
        .unwrap();
    let reference =
        |name: &str, uid: &str| serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let ghost = reference("ghost", "00000000-0000-4000-8000-000000000000");
    for (name, owners) in [
        ("doomed", vec![ghost.clone()]),
        ("kept", vec![ghost.clone(), reference("owner", owner.uid())]),
    ] {
        let body = serde_json::json!({"metadata": {"name": name, "ownerReferences": owners}});
        client.create(&resource::SECRETS, Some("default"), &body).await.unwrap();
    }

    until("the doomed one is gone", || async {
        client
            .get(&resource::SECRETS, Some("default"), "doomed")
            .await
            .is_err()
            .then_some(())
    })
    .await;
    let kept = until("the other lost the ghost", || async {
        let kept = client.get(&resource::SECRETS, Some("default"), "kept").await.unwrap();
        (kept.tree()["metadata"]["ownerReferences"].as_array().unwrap().len() == 1).then_some(kept)
    })
    .await;
    assert_eq!(kept.tree()["metadata"]["ownerReferences"][0]["name"], "owner");
    house.close().await;
}

/// Two kinds of a plane's own: `Widget` in namespaces, `Line` outside of them.
fn custom(kind: &'static str, scope: resource::Scope) -> (Resource, serde_json::Value) {
    let plural = format!("{}s", kind.to_lowercase());
    let names = serde_json::json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind});
    let schema = serde_json::json!({"openAPIV3Schema": {"type": "object"}});
    let definition = serde_json::json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {
        "group": "example.com", "scope": format!("{scope:?}"), "names": names,
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let resource = Resource {
        group: "example.com".into(),
        version: "v1".into(),
        plural: plural.into(),
        kind: kind.into(),
        scope,
    };
    (resource, definition)
}

struct Customs {
    client: client::Client,
    widgets: Resource,
    lines: Resource,
}

impl Customs {
    async fn of(house: &House, plane: &client::PlaneKey) -> Customs {
        let client = house.client(plane);
        let (widgets, first) = custom("Widget", resource::Scope::Namespaced);
        let (lines, second) = custom("Line", resource::Scope::Cluster);
        for definition in [first, second] {
            client
                .create(&resource::CUSTOM_RESOURCE_DEFINITIONS, None, &definition)
                .await
                .unwrap();
        }
        Customs { client, widgets, lines }
    }

    /// An object, and its reference for dependents.
    async fn make(&self, resource: &Resource, name: &str, owners: &[&serde_json::Value]) -> serde_json::Value {
        let namespace = (resource.scope == resource::Scope::Namespaced).then_some("default");
        let body = serde_json::json!({"apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": name, "ownerReferences": owners}});
        let made = self.client.create(resource, namespace, &body).await.unwrap();
        serde_json::json!({"apiVersion": resource.api_version(), "kind": resource.kind, "name": name,
            "uid": made.uid(), "blockOwnerDeletion": true})
    }

    async fn delete(&self, resource: &Resource, name: &str, propagation: Propagation) {
        let namespace = (resource.scope == resource::Scope::Namespaced).then_some("default");
        let options = how(propagation);
        self.client.delete(resource, namespace, name, &options).await.unwrap();
    }

    /// A widget's owners, by name; `None` if it is not there.
    async fn owners(&self, name: &str) -> Option<Vec<String>> {
        let there = self.client.get(&self.widgets, Some("default"), name).await.ok()?;
        let owners = there.tree()["metadata"]["ownerReferences"].as_array();
        let names = owners.into_iter().flatten();
        Some(names.map(|owner| owner["name"].as_str().unwrap().to_owned()).collect())
    }

    async fn names(&self, resource: &Resource) -> Vec<String> {
        let namespace = (resource.scope == resource::Scope::Namespaced).then_some("default");
        let options = client::ListOptions::default();
        let list = self.client.list(resource, namespace, &options).await.unwrap();
        let names = list.items.iter().map(|item| item.name().to_owned());
        names.filter(|name| name != "kube-root-ca.crt").collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_objects_own_and_are_owned_as_all_others() {
    let house = House::open().await;
    let (plane, other) = (&house.planes[0], &house.planes[1]);
    let (customs, others) = (Customs::of(&house, plane).await, Customs::of(&house, other).await);
    for propagation in [Propagation::Background, Propagation::Foreground] {
        for customs in [&customs, &others] {
            let line = customs.make(&customs.lines, "line", &[]).await;
            let first = customs.make(&customs.widgets, "first", &[&line]).await;
            let second = customs.make(&customs.widgets, "second", &[&first]).await;
            customs.make(&resource::CONFIG_MAPS, "config", &[&second]).await;
            customs.make(&customs.widgets, "free", &[]).await;
        }

        customs.delete(&customs.lines, "line", propagation).await;

        until(&format!("all that the line owned is gone: {propagation:?}"), || async {
            let left = customs.names(&customs.widgets).await;
            let configs = customs.names(&resource::CONFIG_MAPS).await;
            let lines = customs.names(&customs.lines).await;
            (left == ["free"] && configs.is_empty() && lines.is_empty()).then_some(())
        })
        .await;
        assert_eq!(others.names(&others.widgets).await, ["first", "free", "second"]);
        customs.delete(&customs.widgets, "free", Propagation::Background).await;
        others.delete(&others.lines, "line", propagation).await;
        others.delete(&others.widgets, "free", propagation).await;
        until("the other plane is empty, too", || async {
            let left = others.names(&others.widgets).await;
            let configs = others.names(&resource::CONFIG_MAPS).await;
            (left.is_empty() && configs.is_empty()).then_some(())
        })
        .await;
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_objects_lose_owners_that_are_gone_and_are_orphaned() {
    let house = House::open().await;
    let customs = Customs::of(&house, &house.planes[0]).await;
    let one = customs.make(&customs.widgets, "one", &[]).await;
    let line = customs.make(&customs.lines, "line", &[]).await;
    customs.make(&customs.widgets, "of-both", &[&one, &line]).await;
    customs.make(&customs.widgets, "of-one", &[&one]).await;

    customs.delete(&customs.lines, "line", Propagation::Background).await;
    until("one owner is left", || async {
        (customs.owners("of-both").await? == ["one"]).then_some(())
    })
    .await;
    customs.delete(&customs.widgets, "one", Propagation::Orphan).await;

    until("the owner is gone", || async {
        customs.owners("one").await.is_none().then_some(())
    })
    .await;
    assert_eq!(customs.owners("of-both").await, Some(vec![]));
    assert_eq!(customs.owners("of-one").await, Some(vec![]));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_takes_what_its_objects_own_along() {
    let house = House::open().await;
    let customs = Customs::of(&house, &house.planes[0]).await;
    // An object that was never seen says nothing by its absence, so those who look are looking before the definition goes.
    let before = customs.make(&customs.widgets, "before", &[]).await;
    customs.make(&customs.widgets, "seen", &[&before]).await;
    customs
        .delete(&customs.widgets, "before", Propagation::Background)
        .await;
    until("the first is collected", || async {
        customs.names(&customs.widgets).await.is_empty().then_some(())
    })
    .await;
    let widget = customs.make(&customs.widgets, "one", &[]).await;
    customs.make(&resource::CONFIG_MAPS, "config", &[&widget]).await;

    let definitions = &resource::CUSTOM_RESOURCE_DEFINITIONS;
    let options = how(Propagation::Background);
    let deleted = customs
        .client
        .delete(definitions, None, "widgets.example.com", &options);
    deleted.await.unwrap();

    until("what the object owned is gone", || async {
        customs.names(&resource::CONFIG_MAPS).await.is_empty().then_some(())
    })
    .await;
    house.close().await;
}
