//! `mangrove tenancy` as a process of its own beside a super cluster that it knows by a kubeconfig alone: an API server over TLS,
//! with controllers, a scheduler and nodes that run nothing. No root.
#![allow(clippy::disallowed_methods, reason = "these tests live in the real world")]

mod manifest;
mod process;
mod super_cluster;
mod upstream;

use std::time::Duration;

use api::resource::{
    DEPLOYMENTS, LEASES, NAMESPACES, NODES, PODS, SECRETS, SERVICES, STORAGE_CLASSES, VIRTUAL_CLUSTERS,
};
use client::{Client, DeleteOptions, ListOptions};
use serde_json::json;
use testkit::planes::wait_until;

use process::Process;
use super_cluster::Super;

const PATIENCE: Duration = Duration::from_secs(90);

async fn until<T>(
    what: &str,
    client: &Client,
    resource: &api::Resource,
    namespace: Option<&str>,
    done: impl FnMut(&[api::Object]) -> Option<T>,
) -> T {
    match tokio::time::timeout(PATIENCE, wait_until(client, resource, namespace, done)).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain until {what}"),
    }
}

async fn one<T>(
    what: &str,
    client: &Client,
    resource: &api::Resource,
    namespace: Option<&str>,
    name: &str,
    good: impl Fn(&api::Object) -> Option<T>,
) -> T {
    until(what, client, resource, namespace, |objects| {
        objects.iter().find(|object| object.name() == name).and_then(&good)
    })
    .await
}

/// With its kind: upstream wants it of all that a definition defines.
fn virtual_cluster(name: &str) -> serde_json::Value {
    json!({"apiVersion": "tenancy.mangrove.io/v1alpha1", "kind": "VirtualCluster", "metadata": {"name": name}})
}

fn web() -> serde_json::Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn running(tenant: &Client, count: usize) -> Vec<api::Object> {
    until("its Pods run", tenant, &PODS, Some("default"), |pods| {
        let running = pods.iter().filter(|pod| pod.tree()["status"]["phase"] == "Running");
        let running: Vec<_> = running.cloned().collect();
        (running.len() == count).then_some(running)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_live_on_a_cluster_that_is_known_by_its_kubeconfig_alone() {
    let below = Super::open().await;
    let process = Process::start(&below.kubeconfig()).await;
    let (acme, globex) = two_tenants_live_on(&below.admin, &process, "n1").await;

    // Streams go by the super cluster's own API, to the tenant's own Pod.
    let pod = running(&acme, 2).await.remove(0);
    let path = PODS.path(Some("default"), Some(pod.name()));
    let log = acme
        .raw(http::Method::GET, &format!("{path}/log?tailLines=1"), None)
        .await
        .unwrap();
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(
        log.starts_with("log of acme-default-") && log.contains("tailLines=1"),
        "{log}"
    );

    acme_goes_and_globex_stays(&below.admin, &globex).await;
    process.stop().await;
}

/// Two of them, with the same under the same names; `admin` is the super cluster's, and `node` its only one.
async fn two_tenants_live_on(admin: &Client, process: &Process, node: &str) -> (Client, Client) {
    for name in ["acme", "globex"] {
        admin
            .create(&VIRTUAL_CLUSTERS, None, &virtual_cluster(name))
            .await
            .unwrap();
    }
    let class = json!({"metadata": {"name": "fast", "labels": {"tenancy.mangrove.io/public": "true"}},
        "provisioner": "example.org/disk"});
    admin.create(&STORAGE_CLASSES, None, &class).await.unwrap();
    let acme = process.tenant(admin, "acme").await;
    let globex = process.tenant(admin, "globex").await;

    // The same under the same names in both.
    for tenant in [&acme, &globex] {
        tenant.create(&DEPLOYMENTS, Some("default"), &web()).await.unwrap();
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        tenant.create(&SERVICES, Some("default"), &service).await.unwrap();
    }
    for tenant in [&acme, &globex] {
        let pods = running(tenant, 2).await;
        assert!(pods.iter().all(|pod| pod.tree()["spec"]["nodeName"] == node));
        // What it sees of the cluster underneath, which is not in this process.
        one("the node is shown", tenant, &NODES, None, node, |_| Some(())).await;
        one("the class is shown", tenant, &STORAGE_CLASSES, None, "fast", |_| {
            Some(())
        })
        .await;
        let service = tenant.get(&SERVICES, Some("default"), "web").await.unwrap();
        let address = service.tree()["spec"]["clusterIP"].clone();
        until(
            "the Service is below by its address",
            admin,
            &SERVICES,
            None,
            |services| {
                services
                    .iter()
                    .find(|service| service.tree()["spec"]["clusterIP"] == address)
                    .map(drop)
            },
        )
        .await;
    }
    let namespaces = admin.list(&NAMESPACES, None, &ListOptions::default()).await.unwrap();
    let of = |name: &str| {
        namespaces
            .items
            .iter()
            .filter(|one| one.name().starts_with(&format!("{name}-default-")))
            .count()
    };
    assert_eq!((of("acme"), of("globex")), (1, 1));
    let lease = admin
        .get(&LEASES, Some("mangrove-system"), "mangrove-tenancy")
        .await
        .unwrap();
    assert!(!lease.tree()["spec"]["holderIdentity"].as_str().unwrap().is_empty());
    (acme, globex)
}

async fn acme_goes_and_globex_stays(admin: &Client, globex: &Client) {
    // Nothing of it is left when it goes, but for the other.
    admin
        .delete(&VIRTUAL_CLUSTERS, None, "acme", &DeleteOptions::default())
        .await
        .unwrap();
    until("acme is gone", admin, &VIRTUAL_CLUSTERS, None, |clusters| {
        (!clusters.iter().any(|cluster| cluster.name() == "acme")).then_some(())
    })
    .await;
    let left = admin.list(&NAMESPACES, None, &ListOptions::default()).await.unwrap();
    assert!(!left.items.iter().any(|namespace| namespace.name().starts_with("acme-")));
    until(
        "its credential is gone",
        admin,
        &SECRETS,
        Some("mangrove-system"),
        |secrets| (!secrets.iter().any(|secret| secret.name() == "acme-kubeconfig")).then_some(()),
    )
    .await;
    running(globex, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_and_started_again_finds_everything_as_it_was() {
    let below = Super::open().await;
    let process = Process::start(&below.kubeconfig()).await;
    let admin = &below.admin;
    admin
        .create(&VIRTUAL_CLUSTERS, None, &virtual_cluster("acme"))
        .await
        .unwrap();
    let acme = process.tenant(admin, "acme").await;
    acme.create(&DEPLOYMENTS, Some("default"), &web()).await.unwrap();
    let mut before: Vec<String> = running(&acme, 2).await.iter().map(|pod| pod.uid().to_owned()).collect();
    let pods_below = async || -> Vec<String> {
        let pods = admin.list(&PODS, None, &ListOptions::default()).await.unwrap();
        let mut uids: Vec<String> = pods.items.iter().map(|pod| pod.uid().to_owned()).collect();
        uids.sort();
        uids
    };
    let below_before = pods_below().await;

    let process = process.kill_and_start_again(&below.kubeconfig()).await;
    let acme = process.tenant(admin, "acme").await;

    // It goes on: one more Pod, which is the only new one.
    let three = client::Patch::Merge(json!({"spec": {"replicas": 3}}));
    acme.patch(&DEPLOYMENTS, Some("default"), "web", &three).await.unwrap();
    let mut after: Vec<String> = running(&acme, 3).await.iter().map(|pod| pod.uid().to_owned()).collect();
    before.sort();
    after.sort();
    assert!(before.iter().all(|uid| after.contains(uid)), "{before:?} {after:?}");
    let below_after = pods_below().await;
    assert_eq!(below_after.len(), 3);
    assert!(below_before.iter().all(|uid| below_after.contains(uid)));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let said = Process::refused(&nowhere, &[]).await;
    assert!(said.contains("--kubeconfig") && said.contains("nowhere"), "{said}");
    let below = Super::open().await;
    let said = Process::refused(&below.kubeconfig(), &["--service-cluster-ip-range", "fd00::/108"]).await;
    assert!(said.contains("--service-cluster-ip-range"), "{said}");
    below.forget_virtual_clusters().await;
    let said = Process::refused(&below.kubeconfig(), &[]).await;
    assert!(said.contains("deploy/tenancy.yaml"), "{said}");
}

/// An address of this machine that is not its own loop, which no cluster takes for an endpoint.
fn own_address() -> Option<std::net::Ipv4Addr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    addresses
        .into_iter()
        .find(|address| !address.is_loopback() && !address.is_link_local())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_cluster_find_a_door_to_their_own_plane_by_the_address_that_they_know() {
    let Some(address) = own_address() else {
        eprintln!("skipped: this machine has no address but its own loop");
        return;
    };
    let below = Super::open().await;
    let admin = &below.admin;
    let process = Process::start_with(&below.kubeconfig(), &["--pods-door", &address.to_string()]).await;
    let mut tenants = Vec::new();
    for name in ["acme", "globex"] {
        admin
            .create(&VIRTUAL_CLUSTERS, None, &virtual_cluster(name))
            .await
            .unwrap();
        let tenant = process.tenant(admin, name).await;
        tenant.create(&DEPLOYMENTS, Some("default"), &web()).await.unwrap();
        running(&tenant, 2).await;
        tenants.push(tenant);
    }
    // What a Pod of acme's is told of its plane.
    let pods = admin.list(&PODS, None, &ListOptions::default()).await.unwrap();
    let of = |name: &str| pods.items.iter().find(|pod| pod.namespace().starts_with(name)).unwrap();
    let host = |pod: &api::Object| {
        let env = pod.tree()["spec"]["containers"][0]["env"].as_array().unwrap();
        let host = env.iter().find(|one| one["name"] == "KUBERNETES_SERVICE_HOST").unwrap();
        host["value"].as_str().unwrap().to_owned()
    };
    let known = host(of("acme-"));
    assert_ne!(known, host(of("globex-")));
    let door = until(
        "there is a Service by that address",
        admin,
        &SERVICES,
        Some("mangrove-system"),
        |services| {
            let door = services
                .iter()
                .find(|service| service.tree()["spec"]["clusterIP"] == known.as_str())?;
            Some(door.name().to_owned())
        },
    )
    .await;
    let slices = api::resource::ENDPOINT_SLICES;
    let port = one(
        "it leads somewhere",
        admin,
        &slices,
        Some("mangrove-system"),
        &door,
        |slice| {
            assert_eq!(slice.tree()["endpoints"][0]["addresses"][0], address.to_string());
            let ports = slice.tree()["ports"].as_array()?;
            ports.iter().find(|port| port["name"] == "https")?["port"].as_u64()
        },
    )
    .await;

    // As that Pod: by the CA and the token that stand in its Secret, at the name that it knows.
    let secrets = admin
        .list(&SECRETS, Some(of("acme-").namespace()), &ListOptions::default())
        .await
        .unwrap();
    let own = secrets
        .items
        .iter()
        .find(|secret| secret.name().starts_with("mangrove-pod-"))
        .unwrap();
    let value = |key: &str| own.tree()["data"][key].as_str().unwrap_or("").to_owned();
    let kubeconfig = |token: &str| {
        json!({"apiVersion": "v1", "kind": "Config", "current-context": "pod",
            "clusters": [{"name": "pod", "cluster": {"server": format!("https://{address}:{port}"),
                "certificate-authority-data": value("ca.crt"), "tls-server-name": "kubernetes.default.svc"}}],
            "users": [{"name": "pod", "user": {"token": token}}],
            "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}]})
        .to_string()
    };
    let decoded = |text: String| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    };
    let pod = Client::from_kubeconfig_text(&kubeconfig(&decoded(value("token-0"))), None)
        .await
        .unwrap();
    let me = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let me = pod
        .raw(
            http::Method::POST,
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            Some(&me),
        )
        .await
        .unwrap();
    let me: serde_json::Value = serde_json::from_slice(&me).unwrap();
    assert_eq!(
        me["status"]["userInfo"]["username"],
        "system:serviceaccount:default:default"
    );

    // The other's token is nobody's there.
    let secrets = admin
        .list(&SECRETS, Some(of("globex-").namespace()), &ListOptions::default())
        .await
        .unwrap();
    let theirs = secrets
        .items
        .iter()
        .find(|secret| secret.name().starts_with("mangrove-pod-"))
        .unwrap();
    let token = decoded(theirs.tree()["data"]["token-0"].as_str().unwrap().to_owned());
    let stranger = Client::from_kubeconfig_text(&kubeconfig(&token), None).await.unwrap();
    let refused = stranger
        .list(&PODS, Some("default"), &ListOptions::default())
        .await
        .unwrap_err();
    assert_eq!(refused.refusal().unwrap().code, 401, "{refused}");
    process.stop().await;
}
