//! The agent over a runtime that really runs containers: ours, or containerd. Skipped unless told where it is:
//!
//! `NODE_TEST_CRI_SOCKET=/run/containerd/containerd.sock NODE_TEST_IMAGE=busybox:1 cargo test -p node --test real`

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use std::time::Instant;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use streaming::{PodBackend, PodStream, Subresource};
use world::World;

async fn world() -> Option<(World, String)> {
    let (Ok(socket), Ok(image)) = (std::env::var("NODE_TEST_CRI_SOCKET"), std::env::var("NODE_TEST_IMAGE")) else {
        println!("skipped: NODE_TEST_CRI_SOCKET and NODE_TEST_IMAGE do not say where a runtime and an image are");
        return None;
    };
    Some((World::over_socket(socket.into()).await, image))
}

fn ready(pod: &Value) -> bool {
    let list = pod["status"]["conditions"].as_array();
    list.into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

async fn logs(world: &World, pod: &str, query: &str) -> String {
    let stream = PodStream {
        plane: "super".to_owned(),
        namespace: "web".to_owned(),
        name: pod.to_owned(),
        uid: String::new(),
        node: "n1".to_owned(),
        subresource: Subresource::Log,
        request: http::Request::get(format!("/x?{query}"))
            .body(streaming::body::empty())
            .unwrap(),
    };
    let backend = world.backend("kube-apiserver-kubelet-client", &[]);
    let body = backend.stream(stream).await.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

const SCRIPT: &str = "cat /settings/color /secret/k; echo; echo $COLOR $POD_IP $KUBERNETES_SERVICE_HOST; \
    hostname; cat /etc/hosts | tail -1; touch /scratch/here; ls /memory /scratch; cat /token/token; echo; id -u; \
    trap 'echo bye; exit 0' TERM; httpd -p 8080 -h /settings; while true; do sleep 0.1; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_everything_runs_survives_the_agent_and_ends() {
    let Some((mut world, image)) = world().await else {
        return;
    };
    world.plane.put(
        "services",
        json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}}),
    );
    world.plane.put(
        "configmaps",
        json!({"metadata": {"name": "settings", "namespace": "web"}, "data": {"color": "green"}}),
    );
    world.plane.put(
        "secrets",
        json!({"metadata": {"name": "key", "namespace": "web"}, "data": {"k": "aGlkZGVu"}}),
    );
    let began = Instant::now();
    world.pod(
        "all",
        json!({
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 5, "hostname": "all-0",
            "securityContext": {"fsGroup": 4242},
            "volumes": [
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "key", "secret": {"secretName": "key"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "memory", "emptyDir": {"medium": "Memory"}},
                {"name": "scratch", "emptyDir": {}}],
            "initContainers": [{"name": "first", "image": image, "command": ["sh", "-c", "touch /memory/from-init"],
                "volumeMounts": [{"name": "memory", "mountPath": "/memory"}]}],
            "containers": [{"name": "main", "image": image, "command": ["sh", "-c", SCRIPT],
                "ports": [{"name": "web", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi", "cpu": "500m"}},
                "readinessProbe": {"httpGet": {"path": "/color", "port": "web"}, "periodSeconds": 1},
                "livenessProbe": {"exec": {"command": ["test", "-e", "/scratch/here"]}, "periodSeconds": 1, "initialDelaySeconds": 1},
                "env": [{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "volumeMounts": [{"name": "settings", "mountPath": "/settings"}, {"name": "key", "mountPath": "/secret"},
                    {"name": "token", "mountPath": "/token"}, {"name": "memory", "mountPath": "/memory"},
                    {"name": "scratch", "mountPath": "/scratch", "subPath": "deep/er"}]}]}),
    );

    let pod = world.until("all", ready).await;
    println!("ready after {:?}", began.elapsed());
    let text = logs(&world, "all", "").await;
    println!("{text}");
    let ip = pod["status"]["podIP"].as_str().unwrap();
    for expected in [
        "greenhidden\n".to_owned(),
        format!("green {ip} 10.96.0.1\n"),
        "all-0\n".to_owned(),
        format!("{ip}\tall-0\n"),
        "from-init\n".to_owned(),
        format!("token-1-{}\n", pod["metadata"]["uid"].as_str().unwrap()),
    ] {
        assert!(text.contains(&expected), "{expected:?} in {text}");
    }

    let before = world.plane.get("pods", "web", "all").unwrap();
    world.stop_agent().await;
    world.start_agent().await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let after = world.plane.get("pods", "web", "all").unwrap();
    assert_eq!(before["status"], after["status"]);

    let began = Instant::now();
    world.plane.delete_pod("web", "all", 5);
    world.until_gone("all").await;
    println!("gone after {:?}", began.elapsed());
    assert!(began.elapsed().as_secs() < 4, "it ends when it is asked to");
    assert!(world::is_empty(&world.root().join("pods")));
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_are_seen_counted_and_explained() {
    let Some((world, image)) = world().await else { return };
    world.pod(
        "crash",
        json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": image,
            "terminationMessagePolicy": "FallbackToLogsOnError", "command": ["sh", "-c", "echo sorry; exit 3"]}]}),
    );
    world.pod(
        "told",
        json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": image,
            "command": ["sh", "-c", "echo -n last words > /dev/termination-log; exit 4"]}]}),
    );
    world.pod(
        "eats",
        json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": image,
            "resources": {"limits": {"memory": "16Mi"}},
            "command": ["sh", "-c", "x=a; while true; do x=$x$x; done"]}]}),
    );

    let main = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
    let crash = world
        .until("crash", |pod| {
            main(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let last = &main(&crash)["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["message"]), (&json!(3), &json!("sorry\n")));
    assert_eq!(main(&crash)["restartCount"], 1);
    assert_eq!(logs(&world, "crash", "previous=true").await, "sorry\n");
    let told = world.until("told", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(main(&told)["state"]["terminated"]["message"], "last words");
    let eats = world.until("eats", |pod| pod["status"]["phase"] == "Failed").await;
    println!("{}", main(&eats)["state"]);
    assert_eq!(main(&eats)["state"]["terminated"]["reason"], "OOMKilled");

    for name in ["crash", "told", "eats"] {
        world.plane.delete_pod("web", name, 1);
        world.until_gone(name).await;
    }
}
