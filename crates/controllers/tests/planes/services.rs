use api::{Object, resource};
use client::DeleteOptions;
use serde_json::json;

use crate::house::{House, deployment, until};

fn addresses(slices: &[Object]) -> Vec<String> {
    let ends = slices
        .iter()
        .flat_map(|slice| slice.tree()["endpoints"].as_array().into_iter().flatten());
    let mut addresses: Vec<String> = ends
        .map(|end| end["addresses"][0].as_str().unwrap().to_owned())
        .collect();
    addresses.sort();
    addresses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_knows_the_pods_of_its_own_plane_and_goes_with_its_slices() {
    let house = House::open().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    for plane in &house.planes {
        let client = house.client(plane);
        client
            .create(&resource::SERVICES, Some("default"), &service)
            .await
            .unwrap();
        client
            .create(&resource::DEPLOYMENTS, Some("default"), &deployment("web", 3, "one"))
            .await
            .unwrap();
    }

    for plane in &house.planes {
        until(&format!("all three are behind the Service of {plane}"), || async {
            let pods = house.list(plane, &resource::PODS, "default").await;
            let mut of_pods: Vec<String> = pods
                .iter()
                .filter_map(|pod| Some(pod.tree()["status"]["podIP"].as_str()?.to_owned()))
                .collect();
            of_pods.sort();
            let slices = house.list(plane, &resource::ENDPOINT_SLICES, "default").await;
            let ours: Vec<Object> = slices
                .into_iter()
                .filter(|slice| slice.label("kubernetes.io/service-name") == Some("web"))
                .collect();
            let endpoints = house
                .client(plane)
                .get(&resource::ENDPOINTS, Some("default"), "web")
                .await
                .ok()?;
            let older = endpoints.tree()["subsets"][0]["addresses"]
                .as_array()
                .map_or(0, Vec::len);
            let all = of_pods.len() == 3 && addresses(&ours) == of_pods && ours.len() == 1 && older == 3;
            all.then(|| assert_eq!(ours[0].tree()["ports"][0]["port"], 8080))
        })
        .await;
    }

    let plane = &house.planes[0];
    house
        .client(plane)
        .delete(&resource::SERVICES, Some("default"), "web", &DeleteOptions::default())
        .await
        .unwrap();
    until("its slices and Endpoints are gone", || async {
        let slices = house.list(plane, &resource::ENDPOINT_SLICES, "default").await;
        let left = slices
            .iter()
            .any(|slice| slice.label("kubernetes.io/service-name") == Some("web"));
        let endpoints = house
            .client(plane)
            .get(&resource::ENDPOINTS, Some("default"), "web")
            .await;
        (!left && endpoints.is_err()).then_some(())
    })
    .await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_a_selector_is_left_to_its_maker() {
    let house = House::open().await;
    let plane = &house.planes[1];
    let client = house.client(plane);
    let service = json!({"metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}});
    client
        .create(&resource::SERVICES, Some("default"), &service)
        .await
        .unwrap();
    let endpoints = json!({"metadata": {"name": "outside"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]});
    client
        .create(&resource::ENDPOINTS, Some("default"), &endpoints)
        .await
        .unwrap();
    // Something that comes after it through the same loop.
    let selecting = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    client
        .create(&resource::SERVICES, Some("default"), &selecting)
        .await
        .unwrap();
    until("the loop has come by", || async {
        client.get(&resource::ENDPOINTS, Some("default"), "web").await.ok()
    })
    .await;

    let left = client
        .get(&resource::ENDPOINTS, Some("default"), "outside")
        .await
        .unwrap();
    assert_eq!(left.tree()["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
    house.close().await;
}
