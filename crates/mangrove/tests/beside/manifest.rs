//! What `deploy/tenancy.yaml` installs is what the program needs, and gives it no more rights.

use std::{path::Path, process::Command};

use api::resource::{CUSTOM_RESOURCE_DEFINITIONS, PODS, SERVICE_ACCOUNTS, VIRTUAL_CLUSTERS};
use identity::kubeconfig;
use serde_json::json;

use crate::{process::Process, running, super_cluster::Super, virtual_cluster, web};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/tenancy.yaml");

pub fn apply(kubeconfig: &Path) {
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("--kubeconfig").arg(kubeconfig);
    let said = kubectl.args(["apply", "-f", MANIFEST]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_is_enough_to_run_by_and_has_this_programs_definition() {
    let below = Super::open().await;
    apply(&below.kubeconfig());

    let admin = &below.admin;
    let name = "virtualclusters.tenancy.mangrove.io";
    let installed = admin.get(&CUSTOM_RESOURCE_DEFINITIONS, None, name).await.unwrap();
    let mut wanted = api::table::virtual_cluster_definition();
    api::default::apply(&CUSTOM_RESOURCE_DEFINITIONS, &mut wanted);
    assert_eq!(installed.tree()["spec"], wanted["spec"]);

    // As the Deployment's Pod, by the account's token.
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let answer = admin
        .create_sub(
            &SERVICE_ACCOUNTS,
            Some("mangrove-system"),
            "mangrove-tenancy",
            "token",
            &request,
        )
        .await
        .unwrap();
    let token = answer.tree()["status"]["token"].as_str().unwrap().to_owned();
    let as_account = below.kubeconfig_of("account", kubeconfig::Credential::Token(token));
    let process = Process::start(&as_account).await;
    admin
        .create(&VIRTUAL_CLUSTERS, None, &virtual_cluster("acme"))
        .await
        .unwrap();
    let acme = process.tenant(admin, "acme").await;
    acme.create(&api::resource::DEPLOYMENTS, Some("default"), &web())
        .await
        .unwrap();
    let pods = running(&acme, 2).await;
    let path = PODS.path(Some("default"), Some(pods[0].name()));
    acme.raw(http::Method::GET, &format!("{path}/log"), None).await.unwrap();
    admin
        .delete(&VIRTUAL_CLUSTERS, None, "acme", &client::DeleteOptions::default())
        .await
        .unwrap();
    crate::until("acme is gone", admin, &VIRTUAL_CLUSTERS, None, |clusters| {
        clusters.is_empty().then_some(())
    })
    .await;
    process.stop().await;
}
