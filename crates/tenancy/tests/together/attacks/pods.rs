//! T9: Pods that reach for the machine, in every way the field knows.

use api::resource::{EVENTS, PODS};
use client::ListOptions;
use serde_json::{Value, json};

use super::arena::{Arena, is_refusal};
use crate::harness::{pod, until};

fn container(security: Value) -> Value {
    json!([{"name": "c", "image": "i", "securityContext": security}])
}

/// Each by name, and the fields of its spec.
fn ways() -> Vec<(&'static str, Value)> {
    vec![
        (
            "host-path",
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/var/lib/mangrove"}}]}),
        ),
        ("host-network", json!({"hostNetwork": true})),
        ("host-pid", json!({"hostPID": true})),
        ("host-ipc", json!({"hostIPC": true})),
        (
            "privileged",
            json!({"containers": container(json!({"privileged": true}))}),
        ),
        (
            "privileged-init",
            json!({"initContainers": container(json!({"privileged": true}))}),
        ),
        (
            "host-port",
            json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
        ),
        (
            "proc-mount",
            json!({"hostUsers": false, "containers": container(json!({"procMount": "Unmasked"}))}),
        ),
        (
            "sysctl",
            json!({"securityContext": {"sysctls": [{"name": "kernel.core_pattern", "value": "|/x"}]}}),
        ),
        (
            "seccomp",
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        ),
        (
            "apparmor",
            json!({"containers": container(json!({"appArmorProfile": {"type": "Unconfined"}}))}),
        ),
        (
            "selinux",
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}),
        ),
        (
            "sys-admin",
            json!({"containers": container(json!({"capabilities": {"add": ["SYS_ADMIN"]}}))}),
        ),
        (
            "all-capabilities",
            json!({"containers": container(json!({"capabilities": {"add": ["ALL"]}}))}),
        ),
        (
            "probe-elsewhere",
            json!({"containers": [{"name": "c", "image": "i",
            "livenessProbe": {"httpGet": {"host": "169.254.169.254", "port": 80, "path": "/"}}}]}),
        ),
        (
            "hook-elsewhere",
            json!({"containers": [{"name": "c", "image": "i",
            "lifecycle": {"postStart": {"tcpSocket": {"host": "127.0.0.1", "port": 10250}}}}]}),
        ),
        (
            "bidirectional",
            json!({"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true},
            "volumeMounts": [{"name": "e", "mountPath": "/e", "mountPropagation": "Bidirectional"}]}],
            "volumes": [{"name": "e", "emptyDir": {}}]}),
        ),
        (
            "git-repo",
            json!({"volumes": [{"name": "v", "gitRepo": {"repository": "https://example.org/x", "directory": ".."}}]}),
        ),
        (
            "nfs",
            json!({"volumes": [{"name": "v", "nfs": {"server": "127.0.0.1", "path": "/"}}]}),
        ),
        (
            "iscsi",
            json!({"volumes": [{"name": "v", "iscsi": {"targetPortal": "127.0.0.1", "iqn": "iqn.2001-04.com.example:x", "lun": 0}}]}),
        ),
        (
            "inline-csi",
            json!({"volumes": [{"name": "v", "csi": {"driver": "example.org"}}]}),
        ),
        ("another-runtime", json!({"runtimeClassName": "unconfined"})),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_no_pod_that_reaches_for_the_machine_is_below() {
    let arena = Arena::open().await;
    let acme = &arena.acme;
    let mut taken = Vec::new();
    for (name, fields) in ways() {
        let mut pod = pod(name);
        for (field, value) in fields.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        // Its own plane may refuse it already; what it takes the syncer refuses.
        match acme.client.create(&PODS, Some("default"), &pod).await {
            Ok(_) => taken.push(name),
            Err(error) => assert!(error.is_invalid() || error.is_forbidden(), "{name}: {error}"),
        }
    }
    assert!(taken.len() > 15, "{taken:?}");
    for name in &taken {
        let what = format!("the tenant is told of {name}");
        until(&what, &acme.client, &EVENTS, Some("default"), |events| {
            let told = |event: &&api::Object| {
                event.tree()["involvedObject"]["name"] == *name && event.tree()["reason"] == "FailedCreate"
            };
            events.iter().find(told).map(drop)
        })
        .await;
    }
    let below = arena
        .house
        .below
        .list(&PODS, None, &ListOptions::default())
        .await
        .unwrap();
    for (name, _) in ways() {
        assert!(!below.items.iter().any(|pod| pod.name() == name), "{name} is below");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_what_a_pod_asks_of_others_it_gets_of_its_own_plane() {
    let arena = Arena::open().await;
    let acme = &arena.acme;
    // An account that only the super cluster (or the victim) has; an audience of the super cluster's; names of the victim's things.
    let mut foreign = pod("foreign");
    foreign["spec"]["serviceAccountName"] = "robot".into();
    let refused = acme.client.create(&PODS, Some("default"), &foreign).await.unwrap_err();
    assert!(refused.is_forbidden(), "{refused}");
    acme.make_pod("default", "reads", |pod| {
        pod["metadata"]["annotations"] = json!({"container.apparmor.security.beta.kubernetes.io/main": "unconfined",
"io.katacontainers.config.hypervisor.path": "/bin/sh"});
        pod["spec"]["volumes"] = json!([
            {"name": "s", "secret": {"secretName": "canary", "optional": true}},
            {"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t", "audience": "https://kubernetes.default.svc"}},
                {"configMap": {"name": "kube-root-ca.crt"}},
                {"secret": {"name": "canary", "optional": true}}]}}]);
        pod["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "canary", "optional": true}},
            {"configMapRef": {"name": "canary", "optional": true}}]);
        pod["spec"]["imagePullSecrets"] = json!([{"name": "canary"}]);
    })
    .await;
    let namespace = arena
        .house
        .super_object(acme, &PODS, "reads", |_| true)
        .await
        .namespace()
        .to_owned();
    // A way out of a volume (CVE-2021-25741's class) is refused where it is written.
    let mut outside = pod("outside");
    outside["spec"]["volumes"] = json!([{"name": "s", "emptyDir": {}}]);
    outside["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "s", "mountPath": "/s", "subPath": "../../etc"}]);
    let refused = acme.client.create(&PODS, Some("default"), &outside).await.unwrap_err();
    assert!(refused.is_invalid(), "{refused}");
    let below = arena
        .house
        .below
        .list(&PODS, Some(&namespace), &ListOptions::default())
        .await
        .unwrap();
    for pod in below.items {
        let text = pod.tree().to_string();
        assert!(!text.contains("apparmor") && !text.contains("katacontainers"), "{text}");
        assert!(!text.contains("\"serviceAccountToken\":{"), "{text}");
    }
    let secrets = arena
        .house
        .below
        .list(&api::resource::SECRETS, Some(&namespace), &ListOptions::default())
        .await
        .unwrap();
    assert!(secrets.items.iter().all(|secret| secret.name() != "canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_a_pod_that_runs_does_not_become_another() {
    let arena = Arena::open().await;
    let own = arena.acme.plane;
    let target = format!("/planes/{own}/api/v1/namespaces/default/pods/pod-of-acme");
    // What an update may not change, by every way there is.
    for (way, patch) in [
        ("", json!({"spec": {"hostNetwork": true}})),
        ("", json!({"spec": {"nodeName": "n2"}})),
        (
            "",
            json!({"spec": {"containers": [{"name": "main", "securityContext": {"privileged": true}}]}}),
        ),
        ("", json!({"metadata": {"uid": "6f8e1a1c-0000-4000-8000-000000000000"}})),
        ("/status", json!({"metadata": {"namespace": "kube-system"}})),
        (
            "/resize",
            json!({"spec": {"hostPID": true, "containers": [{"name": "main", "securityContext": {"privileged": true}}]}}),
        ),
        ("/ephemeralcontainers", json!({"spec": {"hostPID": true}})),
    ] {
        let headers = [("Content-Type", "application/strategic-merge-patch+json")];
        let body = patch.to_string();
        let mut request = format!(
            "PATCH {target}{way} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        request.push_str(&format!("{}: {}\r\n\r\n{body}", headers[0].0, headers[0].1));
        let answer = arena.raw(super::arena::WithCertificate::Own, request.as_bytes()).await;
        assert!(
            is_refusal(answer.code) || answer.code == 409 || answer.code == 200,
            "{way} {patch}: {}",
            answer.text
        );
    }
    let below = arena
        .house
        .super_object(&arena.acme, &PODS, "pod-of-acme", |_| true)
        .await;
    let spec = &below.tree()["spec"];
    assert!(spec["hostNetwork"] != true && spec["hostPID"] != true && spec["nodeName"] == "n1");
    assert!(!spec.to_string().contains("privileged"));
}
