//! The agent as a whole, between a plane and a runtime that are in memory, over the real socket and real TLS.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use streaming::{PodBackend, PodStream, Subresource};
use world::runtime::Runtime;
use world::{World, is_empty, plane::Plane};

fn ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let list = pod["status"]["conditions"].as_array();
    list.into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind)
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
}

fn main_of(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn simple() -> Value {
    json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 7,
        "containers": [{"name": "main", "image": "busybox:1"}]})
}

#[tokio::test]
async fn a_pod_runs_and_ends_and_leaves_nothing_behind() {
    let world = World::new().await;
    world.plane.put(
        "configmaps",
        json!({"metadata": {"name": "settings", "namespace": "web"}, "data": {"color": "green"}}),
    );
    world.plane.put(
        "services",
        json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}}),
    );
    world.pod(
        "one",
        json!({
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 7, "serviceAccountName": "robot",
            "volumes": [
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "scratch", "emptyDir": {}}],
            "containers": [{"name": "main", "image": "busybox:1",
                "env": [{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "volumeMounts": [{"name": "settings", "mountPath": "/s"}, {"name": "token", "mountPath": "/t"},
                    {"name": "scratch", "mountPath": "/scratch"}]}]}),
    );

    let pod = world.until("one", ready).await;

    let container = world.runtime.running("main").await;
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(main_of(&pod)["containerID"], format!("fake://{}", container.status.id));
    assert_eq!(world.runtime.pulls(), ["busybox:1"]);
    let env: Vec<(&str, &str)> = container
        .config
        .envs
        .iter()
        .map(|pair| (pair.key.as_str(), pair.value.as_str()))
        .collect();
    for pair in [
        ("COLOR", "green"),
        ("IP", "127.0.0.1"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ] {
        assert!(env.contains(&pair), "{pair:?} in {env:?}");
    }
    let mount = |inside: &str| {
        let mount = container
            .config
            .mounts
            .iter()
            .find(|mount| mount.container_path == inside);
        std::path::PathBuf::from(&mount.unwrap().host_path)
    };
    assert_eq!(std::fs::read_to_string(mount("/s").join("color")).unwrap(), "green");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        std::fs::read_to_string(mount("/t").join("token")).unwrap(),
        format!("token-1-{uid}")
    );
    assert!(
        std::fs::read_to_string(mount("/etc/hosts"))
            .unwrap()
            .contains("127.0.0.1\tone\n")
    );

    world.plane.put(
        "configmaps",
        json!({"metadata": {"name": "settings", "namespace": "web"}, "data": {"color": "blue"}}),
    );
    world
        .runtime
        .until("the file follows its ConfigMap", |_| {
            std::fs::read_to_string(mount("/s").join("color")).unwrap() == "blue"
        })
        .await;

    world.plane.delete_pod("web", "one", 3);
    world.until_gone("one").await;

    assert!(world.runtime.calls().contains(&"stop main 3".to_owned()));
    world
        .runtime
        .until("everything removed", |runtime| {
            runtime.sandboxes() == 0 && runtime.containers("main").is_empty()
        })
        .await;
    assert!(is_empty(&world.root().join("pods")));
    world
        .runtime
        .until("logs removed", |_| is_empty(&world.root().join("logs")))
        .await;
    let mut reasons: Vec<String> = world
        .plane
        .all("events")
        .iter()
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["Created", "Killing", "Pulled", "Pulling", "Started"]);
}

#[tokio::test]
async fn a_pod_waits_for_its_config_map_and_says_so() {
    let world = World::new().await;
    world.pod(
        "one",
        json!({"volumes": [{"name": "v", "configMap": {"name": "late"}}],
            "containers": [{"name": "main", "image": "busybox:1"}]}),
    );

    let told = world
        .until("one", |pod| {
            main_of(pod)["state"]["waiting"]["reason"] == "ContainerCreating"
        })
        .await;
    assert_eq!(told["status"]["phase"], "Pending");
    world
        .runtime
        .until("the complaint", |_| {
            world.plane.all("events").iter().any(|event| {
                event["reason"] == "FailedMount"
                    && event["message"] == "MountVolume.SetUp failed: configmap \"late\" not found"
            })
        })
        .await;
    assert_eq!(world.runtime.sandboxes(), 0);

    world.plane.put(
        "configmaps",
        json!({"metadata": {"name": "late", "namespace": "web"}, "data": {}}),
    );

    world.until("one", ready).await;
}

#[tokio::test]
async fn a_crash_is_seen_by_event_restarted_at_once_and_then_with_back_off() {
    let world = World::new().await;
    world.pod("one", simple());
    world.until("one", ready).await;

    world.runtime.exit("main", 3);
    let restarted = world
        .until("one", |pod| main_of(pod)["restartCount"] == 1 && ready(pod))
        .await;
    assert_eq!(main_of(&restarted)["lastState"]["terminated"]["exitCode"], 3);

    world.runtime.exit("main", 4);
    let waiting = world
        .until("one", |pod| {
            main_of(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;

    assert_eq!(condition(&waiting, "Ready"), "False");
    assert_eq!(waiting["status"]["phase"], "Running");
    assert!(
        main_of(&waiting)["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container=main pod=one_web(")
    );
    world
        .runtime
        .until("an Event tells of it", |_| {
            let events = world.plane.all("events");
            events.iter().any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["reason"] == "BackOff"
                    && message.starts_with("Back-off restarting failed container main in pod one_web(")
            })
        })
        .await;
}

#[tokio::test]
async fn a_restart_of_the_agent_touches_no_container_and_ends_what_the_plane_no_longer_has() {
    let mut world = World::new().await;
    world.pod(
        "stays",
        json!({"containers": [{"name": "stays", "image": "busybox:1",
        "readinessProbe": {"exec": {"command": ["ok"]}, "periodSeconds": 1}}]}),
    );
    world.pod(
        "leaves",
        json!({"containers": [{"name": "leaves", "image": "busybox:1"}]}),
    );
    world.until("stays", ready).await;
    world.until("leaves", ready).await;
    world.runtime.exit("stays", 1);
    let before = world
        .until("stays", |pod| main_of(pod)["restartCount"] == 1 && ready(pod))
        .await;

    world.stop_agent().await;
    world.plane.remove("pods", "web", "leaves");
    let revision = world.plane.get("pods", "web", "stays").unwrap()["metadata"]["resourceVersion"].clone();
    world.start_agent().await;
    world
        .runtime
        .until("the orphan's end", |runtime| {
            runtime.containers("leaves").is_empty() && runtime.sandboxes() == 1
        })
        .await;

    let after = world.plane.get("pods", "web", "stays").unwrap();
    assert_eq!(main_of(&after)["containerID"], main_of(&before)["containerID"]);
    assert_eq!(main_of(&after)["restartCount"], 1);
    assert_eq!(
        after["metadata"]["resourceVersion"], revision,
        "nothing has changed, so nothing was written"
    );
    assert!(!world.runtime.calls().iter().any(|call| call.starts_with("stop stays")));
}

#[tokio::test]
async fn probes_decide_readiness_and_a_failed_liveness_probe_restarts() {
    let world = World::new().await;
    world.runtime.exec_exits("ready?", 1);
    world.pod(
        "one",
        json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "busybox:1",
        "readinessProbe": {"exec": {"command": ["ready?"]}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["alive?"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
    );

    let pod = world
        .until("one", |pod| main_of(pod)["state"]["running"].is_object())
        .await;
    assert!(!ready(&pod));
    world.runtime.exec_exits("ready?", 0);
    world.until("one", ready).await;
    world.runtime.exec_exits("alive?", 1);
    world.until("one", |pod| main_of(pod)["restartCount"] == 1).await;

    assert!(world.runtime.calls().contains(&"stop main 1".to_owned()));
    let messages: Vec<String> = world
        .plane
        .all("events")
        .iter()
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect();
    for message in [
        "Liveness probe failed: said no",
        "Container main failed liveness probe, will be restarted",
    ] {
        assert!(
            messages.iter().any(|known| known == message),
            "{message} in {messages:?}"
        );
    }
}

#[tokio::test]
async fn a_job_like_pod_succeeds_and_keeps_its_log() {
    let world = World::new().await;
    world.pod(
        "one",
        json!({"restartPolicy": "Never",
        "initContainers": [{"name": "first", "image": "busybox:1"}],
        "containers": [{"name": "main", "image": "busybox:1"}]}),
    );
    world.runtime.running("first").await;
    assert!(world.runtime.containers("main").is_empty());
    world.runtime.exit("first", 0);
    world.runtime.running("main").await;
    world.runtime.write_log("main", "done");
    world.until("one", |pod| pod["status"]["phase"] == "Running").await;

    world.runtime.exit("main", 0);

    let pod = world.until("one", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(main_of(&pod)["state"]["terminated"]["reason"], "Completed");
    world
        .runtime
        .until("its sandbox stopped", |runtime| {
            runtime.calls().iter().any(|call| call.starts_with("stop sandbox"))
        })
        .await;
    assert_eq!(logs(&world, "one", "").await, (200, "done\n".to_owned()));
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_named_and_tried_again_later() {
    let world = World::new().await;
    world.pod("one", json!({"containers": [{"name": "main", "image": "missing:1"}]}));
    world.pod(
        "two",
        json!({"containers": [{"name": "main", "image": "absent:1", "imagePullPolicy": "Never"}]}),
    );

    let one = world
        .until("one", |pod| {
            main_of(pod)["state"]["waiting"]["reason"] == "ErrImagePull"
        })
        .await;
    assert_eq!(
        main_of(&one)["state"]["waiting"]["message"],
        "missing:1: not found in the registry"
    );
    world
        .until("two", |pod| {
            main_of(pod)["state"]["waiting"]["reason"] == "ErrImageNeverPull"
        })
        .await;
    assert_eq!(world.runtime.pulls(), ["missing:1"]);
    assert_eq!(
        logs(&world, "one", "").await,
        (
            400,
            "container \"main\" in pod \"one\" is waiting to start: image can't be pulled".to_owned()
        )
    );
}

#[tokio::test]
async fn a_runtime_without_events_is_asked() {
    let runtime = Runtime::new();
    runtime.tell_no_events();
    let world = World::with(Plane::new(), runtime).await;
    world.pod("one", simple());
    world.until("one", ready).await;

    world.runtime.exit("main", 1);

    world.until("one", |pod| main_of(pod)["restartCount"] == 1).await;
}

#[tokio::test]
async fn a_deletion_with_finalizers_or_a_shorter_grace_is_followed() {
    let world = World::new().await;
    world.pod(
        "one",
        json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "main", "image": "busybox:1",
        "lifecycle": {"preStop": {"sleep": {"seconds": 500}}}}]}),
    );
    world.until("one", ready).await;

    world.plane.delete_pod("web", "one", 600);
    world.plane.delete_pod("web", "one", 0);

    world.until_gone("one").await;
    assert!(world.runtime.calls().contains(&"stop main 0".to_owned()));
}

#[tokio::test]
async fn a_pod_without_grace_that_is_taken_out_of_the_plane_is_stopped_once() {
    let world = World::new().await;
    world.pod(
        "one",
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "busybox:1"}]}),
    );
    world.until("one", ready).await;

    world.plane.remove("pods", "web", "one");

    world.runtime.until("it ends", |runtime| runtime.sandboxes() == 0).await;
    let calls = world.runtime.calls();
    let stops: Vec<&String> = calls.iter().filter(|call| call.starts_with("stop main")).collect();
    assert_eq!(stops, ["stop main 1"]);
}

#[tokio::test]
async fn the_node_registers_and_renews_its_lease() {
    let world = World::new().await;

    let node = world
        .plane
        .until("nodes", "", "n1", |node| node.is_some())
        .await
        .unwrap();
    world
        .plane
        .until("leases", "kube-node-lease", "n1", |lease| lease.is_some())
        .await;

    assert_eq!(node["spec"]["podCIDR"], "10.244.0.0/24");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1.0");
    assert_eq!(
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"],
        world.agent.as_ref().unwrap().kubelet_address().port()
    );
}

fn stream(name: &str, subresource: Subresource, query: &str) -> PodStream {
    PodStream {
        plane: "super".to_owned(),
        namespace: "web".to_owned(),
        name: name.to_owned(),
        uid: String::new(),
        node: "n1".to_owned(),
        subresource,
        request: http::Request::get(format!("/x?{query}"))
            .body(streaming::body::empty())
            .unwrap(),
    }
}

/// Status and text of `kubectl logs`.
async fn logs(world: &World, name: &str, query: &str) -> (u16, String) {
    let backend = world.backend("kube-apiserver-kubelet-client", &[]);
    let response = backend.stream(stream(name, Subresource::Log, query)).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    match serde_json::from_str::<Value>(&text) {
        Ok(status) if code >= 400 => (code, status["message"].as_str().unwrap().to_owned()),
        _ => (code, text),
    }
}

#[tokio::test]
async fn logs_come_through_the_api_server_and_a_follower_ends_with_its_container() {
    let world = World::new().await;
    world.pod("one", simple());
    world.until("one", ready).await;
    world.runtime.write_log("main", "first");
    let backend = world.backend("kube-apiserver-kubelet-client", &[]);
    let follower = backend.stream(stream("one", Subresource::Log, "follow=true")).await;
    let mut body = follower.into_body();
    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece, "first\n");

    world.runtime.write_log("main", "second");
    world.runtime.exit("main", 1);

    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(rest, "second\n");
    world.until("one", |pod| main_of(pod)["restartCount"] == 1).await;
    assert_eq!(
        logs(&world, "one", "previous=true&tailLines=1&timestamps=true").await,
        (200, "2026-01-01T00:00:01.000000000Z second\n".to_owned())
    );
    assert_eq!(
        logs(&world, "one", "container=nope").await,
        (400, "container nope is not valid for pod one".to_owned())
    );
    assert_eq!(logs(&world, "none", "").await.0, 404);
}

#[tokio::test]
async fn who_is_neither_administrator_nor_api_server_is_refused() {
    let world = World::new().await;
    world.pod("one", simple());
    world.until("one", ready).await;

    let response = world
        .backend("acme", &["system:nodes"])
        .stream(stream("one", Subresource::Log, ""))
        .await;
    let admin = world
        .backend("anyone", &["system:masters"])
        .stream(stream("one", Subresource::Log, ""))
        .await;

    assert_eq!(response.status().as_u16(), 500);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("the kubelet refused us"));
    assert_eq!(admin.status().as_u16(), 200);
}

#[tokio::test]
async fn exec_reaches_the_runtimes_stream_through_api_server_and_kubelet() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let world = World::new().await;
    world.pod("one", simple());
    world.until("one", ready).await;
    // The runtime's streaming server: switches protocols and says everything back.
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world
        .runtime
        .stream_at(&format!("http://{}/exec/secret", echo.local_addr().unwrap()));
    let asked = tokio::spawn(async move {
        let (mut socket, _) = echo.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        socket
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            .await
            .unwrap();
        let (mut read, mut write) = socket.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    // An API server in front of the backend.
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let backend = world.backend("kube-apiserver-kubelet-client", &[]);
    // The backend owns its streams: as long as the API server has it they go on.
    let _kept = backend.clone();
    let server = tokio::spawn(async move {
        let (socket, _) = front.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let backend = backend.clone();
            async move {
                let mut stream = stream("one", Subresource::Exec, "");
                stream.request = request.map(streaming::body::boxed);
                Ok::<_, std::convert::Infallible>(backend.stream(stream).await)
            }
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(socket), service)
            .with_upgrades()
            .await
            .unwrap();
    });

    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    caller
        .write_all(
            b"POST /api/v1/namespaces/web/pods/one/exec?command=echo&command=a%20b&stdin=true&stdout=true HTTP/1.1\r\n\
              host: x\r\nconnection: upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\r\n",
        )
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(caller.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    caller.write_all(b"hello").await.unwrap();
    let mut said = [0; 5];
    caller.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
    drop(caller);

    let asked = asked.await.unwrap().to_lowercase();
    assert!(asked.starts_with("post /exec/secret http/1.1"), "{asked}");
    assert!(
        asked.contains("x-stream-protocol-version: v4.channel.k8s.io"),
        "{asked}"
    );
    assert!(
        world
            .runtime
            .calls()
            .contains(&"stream echo a b stdin=true tty=false".to_owned())
    );
    server.abort();
}
