//! Clients inside Pods: the standard in-cluster configuration leads to the Pod's own plane and to no other.

use std::path::Path;

use testkit::{image::ImageBuilder, kubectl::Kubectl, platform::Platform};

use crate::BINARY;

const IMAGE: &str = "mangrove.test/in-cluster:1";

pub const MANIFEST: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: looker}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pods}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: looker}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pods}
subjects: [{kind: ServiceAccount, name: looker, namespace: default}]
"#;

#[test]
fn a_client_in_a_pod_reaches_its_own_plane_and_not_anothers() {
    let Some(platform) = Platform::start(BINARY) else {
        return;
    };
    platform.import(&image());
    let acme = platform.tenant("acme");
    let globex = platform.tenant("globex");
    for tenant in [&acme, &globex] {
        tenant.apply(MANIFEST);
    }
    let address = |tenant: &Kubectl| tenant.field(&["service", "kubernetes"], ".spec.clusterIP");
    let (acme_address, globex_address) = (address(&acme), address(&globex));
    assert_ne!(acme_address, globex_address);
    globex.run(&["create", "configmap", "only-globex-has-this"]);

    kube_rs(&acme, &globex_address);
    a_shell(&acme, &globex_address);

    // The same Pod in the other plane sees that plane.
    pod(&globex, "neighbour", "/in-cluster", "");
    finished(&globex, "neighbour");
    let said = globex.run(&["logs", "neighbour"]);
    assert!(said.contains("\npods neighbour\n"), "{said}");
    assert!(acme.names(&["pods"]).iter().all(|pod| pod != "neighbour"));
    platform.finish();
}

fn kube_rs(acme: &Kubectl, other: &str) {
    pod(acme, "client", "/in-cluster", other);
    finished(acme, "client");
    let said = acme.run(&["logs", "client"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("server https://"), "{said}");
    assert_eq!(lines[1], "user system:serviceaccount:default:looker", "{said}");
    assert_eq!(lines[2], "pods client", "{said}");
    assert!(
        lines[3].starts_with("kube-system refused: ") && lines[3].contains("forbidden"),
        "{said}"
    );
    // No packet comes to another plane's door; that it would not be let in there is `door`'s to show.
    for line in &lines[4..6] {
        assert!(
            line.starts_with("other unreachable: ") && line.contains("Elapsed"),
            "{said}"
        );
    }
}

fn a_shell(acme: &Kubectl, other: &str) {
    pod(acme, "shell", "sleep 1000", "");
    acme.run(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]);
    let run = |words: &str| acme.run(&["exec", "shell", "--", "/bin/sh", "-c", words]);
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    let curl = format!("curl -sS --max-time 20 -H \"Authorization: Bearer $(cat {dir}/token)\"");

    let own = "https://kubernetes.default.svc/api/v1/namespaces/$(cat /var/run/secrets/kubernetes.io/serviceaccount/namespace)/pods";
    let pods = run(&format!("{curl} --cacert {dir}/ca.crt {own}"));
    assert!(
        pods.contains("\"kind\":\"PodList\"") || pods.contains("\"kind\": \"PodList\""),
        "{pods}"
    );
    assert!(pods.contains("shell"), "{pods}");
    // The certificate holds for all the names and the address by which the plane is known.
    let environment = "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version";
    for url in [
        environment,
        "https://kubernetes/version",
        "https://kubernetes.default.svc.cluster.local/version",
    ] {
        let version = run(&format!("{curl} --cacert {dir}/ca.crt {url}"));
        assert!(version.contains("gitVersion"), "{url}: {version}");
    }
    let unanswered = run(&format!(
        "curl -k --connect-timeout 2 https://{other}/version 2>&1 || echo unanswered"
    ));
    assert!(unanswered.ends_with("unanswered\n"), "{unanswered}");
    // Names lead to one's own plane only, whatever one asks for at the other's address by name.
    let path_is_no_way = run(&format!(
        "{curl} --cacert {dir}/ca.crt -o /dev/null -w '%{{http_code}}' https://kubernetes/planes/x/api/v1/namespaces"
    ));
    assert!(["403", "404"].contains(&path_is_no_way.as_str()), "{path_is_no_way}");
}

pub fn pod(tenant: &Kubectl, name: &str, command: &str, other: &str) {
    let command: Vec<&str> = command.split(' ').collect();
    let environment = if other.is_empty() {
        serde_json::json!([])
    } else {
        serde_json::json!([{"name": "OTHER", "value": other}])
    };
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "serviceAccountName": "looker", "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": IMAGE, "command": command, "env": environment}]}});
    tenant.apply(&pod.to_string());
}

#[track_caller]
fn finished(tenant: &Kubectl, name: &str) {
    let pod = format!("pod/{name}");
    let phase = tenant.until("it ends", |tenant| {
        let phase = tenant.field(&[&pod], ".status.phase");
        ["Succeeded", "Failed"].contains(&phase.as_str()).then_some(phase)
    });
    assert_eq!(phase, "Succeeded", "{}", tenant.run(&["logs", name]));
}

/// Busybox, curl, and the client of `examples/in_cluster.rs`, each with the libraries it needs.
pub fn image() -> testkit::image::Image {
    let client = Path::new(BINARY).with_file_name("examples").join("in_cluster");
    assert!(client.exists(), "{} is built with the tests", client.display());
    let mut image = ImageBuilder::busybox(IMAGE).expect("busybox-static is installed");
    image.folder("tmp").expect("it has a place for files");
    image.program("in-cluster", &client).expect("the client can be read");
    image
        .program("usr/bin/curl", Path::new("/usr/bin/curl"))
        .expect("curl is installed");
    image.build().expect("the image can be made")
}
