//! Nodes that are lost and come back: one whose agent is killed, and one whose cable is pulled.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::{
    kubectl::Kubectl,
    platform::{Platform, WEB_IMAGE},
};

use crate::{
    BINARY,
    other_machines::{self, OtherMachine, take_the_network_away, with_a_network},
};

const LOST: [&str; 2] = ["killed", "unplugged"];

#[test]
fn pods_leave_a_lost_node_and_one_that_comes_back_finds_its_own_as_they_were() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let platform = with_a_network(platform);
    let mut killed = OtherMachine::start(&platform, LOST[0], 2);
    let mut unplugged = OtherMachine::start(&platform, LOST[1], 3);
    platform.up();
    platform.import_web_image();
    let (root, acme) = (platform.root(), platform.tenant("acme"));
    let first = root.names(&["nodes"]).pop().unwrap();
    acme.apply(DAEMON);
    acme.run(&["rollout", "status", "daemonset/daemon", "--timeout=60s"]);
    killed.join(&platform);
    unplugged.join(&platform);

    // A DaemonSet follows nodes that join.
    acme.until("each node has its daemon", |acme| {
        (acme.field(&["daemonset", "daemon"], ".status.numberReady") == "3").then_some(())
    });
    for node in LOST {
        for pod in [stays(node), is_forced_away(node)] {
            acme.apply(&pod.to_string());
        }
        acme.apply(&moves(node).to_string());
        for name in ["stays", "forced"] {
            acme.run(&[
                "wait",
                "--for=condition=Ready",
                &format!("pod/{name}-{node}"),
                "--timeout=60s",
            ]);
        }
        acme.run(&[
            "rollout",
            "status",
            &format!("deployment/moves-{node}"),
            "--timeout=60s",
        ]);
        assert_eq!(pod_of(&acme, node)["spec"]["nodeName"], node);
    }
    let before = LOST.map(|node| standing(&acme, node));
    let moved = LOST.map(|node| name_of(&pod_of(&acme, node)));
    assert_eq!([killed.containers(), unplugged.containers()], [4, 4]);

    killed.end_agent(Signal::SIGKILL);
    unplugged.unplug();

    for (node, moved) in LOST.iter().zip(&moved) {
        for kubectl in [&root, &acme] {
            kubectl.run(&[
                "wait",
                "--for=condition=Ready=Unknown",
                &format!("node/{node}"),
                "--timeout=110s",
            ]);
            kubectl.until("it is tainted", |kubectl| {
                let taints = kubectl.field(&["node", node], ".spec.taints[*].effect");
                (taints.contains("NoExecute") && taints.contains("NoSchedule")).then_some(())
            });
            assert!(kubectl.run(&["get", "node", node]).contains("NotReady"));
        }
        // After its patience of a second it is on its way out, and another runs where somebody is heard of.
        acme.until("another runs elsewhere", |acme| {
            let pod = pod_of(acme, node);
            (name_of(&pod) != *moved && pod["spec"]["nodeName"] == *first && is_ready(&pod)).then_some(())
        });
        let old = acme.json(&["get", "pod", moved]);
        assert!(old["metadata"]["deletionTimestamp"].is_string(), "nobody knows its end");
        acme.until("who is silent gets no traffic", |acme| {
            (!is_ready(&acme.json(&["get", "pod", &format!("stays-{node}")]))).then_some(())
        });
        assert_eq!(uid(&acme, &format!("stays-{node}")), before_uid(&before, node));
        acme.run(&[
            "delete",
            "pod",
            &format!("forced-{node}"),
            "--force",
            "--grace-period=0",
        ]);
        assert!(!acme.names(&["pods"]).contains(&format!("forced-{node}")));
    }

    killed.join(&platform);
    unplugged.plug_in();
    other_machines::is_ready(&root, LOST[1]);

    for (at, (node, machine)) in LOST.iter().zip([&killed, &unplugged]).enumerate() {
        acme.until("what was to leave has left", |acme| {
            (!acme.names(&["pods"]).contains(&moved[at])).then_some(())
        });
        acme.run(&[
            "wait",
            "--for=condition=Ready",
            &format!("pod/stays-{node}"),
            "--timeout=60s",
        ]);
        for kubectl in [&root, &acme] {
            kubectl.until("its taints are gone", |kubectl| {
                kubectl.field(&["node", node], ".spec.taints").is_empty().then_some(())
            });
        }
        acme.until("its containers are those that belong there", |_| {
            (machine.containers() == 2).then_some(())
        });
        assert_eq!(standing(&acme, node), before[at], "untouched");
        let said = acme.run(&["exec", &format!("stays-{node}"), "--", "hostname"]);
        assert_eq!(said.trim(), format!("stays-{node}"));
    }
    assert_eq!(acme.field(&["daemonset", "daemon"], ".status.numberReady"), "3");

    // Forgotten while it is away, it is a new node when it comes back, with nothing of before.
    killed.end_agent(Signal::SIGKILL);
    root.run(&["delete", "node", LOST[0]]);
    acme.until("its Pods are gone with it", |acme| {
        let pods = acme.names(&["pods"]);
        (!pods.contains(&format!("stays-{}", LOST[0]))).then_some(())
    });
    killed.join(&platform);
    acme.until("it has its daemon, and nothing else", |acme| {
        (acme.field(&["daemonset", "daemon"], ".status.numberReady") == "3" && killed.containers() == 1).then_some(())
    });

    killed.down();
    unplugged.down();
    take_the_network_away();
    platform.finish();
}

const DAEMON: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: daemon}
spec:
  selector: {matchLabels: {app: daemon}}
  template:
    metadata: {labels: {app: daemon}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: main, image: "mangrove.test/web:1", command: ["sleep", "100000"]}
"#;

fn spec(extra: Value) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": WEB_IMAGE, "command": ["sleep", "100000"]}]});
    for (field, value) in extra.as_object().expect("fields") {
        spec[field] = value.clone();
    }
    spec
}

fn pod(name: String, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// Waits for its node as long as it takes.
fn stays(node: &str) -> Value {
    let tolerations = json!([{"operator": "Exists", "effect": "NoExecute"}]);
    pod(
        format!("stays-{node}"),
        spec(json!({"nodeName": node, "tolerations": tolerations})),
    )
}

/// Is taken out of the plane while its node can't be asked.
fn is_forced_away(node: &str) -> Value {
    let tolerations = json!([{"operator": "Exists", "effect": "NoExecute"}]);
    pod(
        format!("forced-{node}"),
        spec(json!({"nodeName": node, "tolerations": tolerations})),
    )
}

/// Likes its node, and waits a second for it.
fn moves(node: &str) -> Value {
    let patience = |taint: &str| {
        json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 1})
    };
    let likes = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {
        "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}}]}});
    let app = format!("moves-{node}");
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app}, "spec": {
        "selector": {"matchLabels": {"app": app}},
        "template": {"metadata": {"labels": {"app": app}}, "spec": spec(json!({"affinity": likes,
            "tolerations": [patience("unreachable"), patience("not-ready")]}))}}})
}

/// The Deployment's Pod that is not on its way out; null if there is none yet.
fn pod_of(acme: &Kubectl, node: &str) -> Value {
    let pods = acme.json(&["get", "pods", "-l", &format!("app=moves-{node}")]);
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let here = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null();
    pods.into_iter().find(here).unwrap_or_default()
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn uid(acme: &Kubectl, pod: &str) -> String {
    acme.field(&["pod", pod], ".metadata.uid")
}

/// The Pods that belong to a node whatever happens, and their containers.
fn standing(acme: &Kubectl, node: &str) -> Vec<Value> {
    let pods = acme.json(&["get", "pods", "--field-selector", &format!("spec.nodeName={node}")]);
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let belongs = |pod: &&Value| name_of(pod).starts_with("stays-") || name_of(pod).starts_with("daemon-");
    let summary = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        json!({"name": name_of(pod), "uid": pod["metadata"]["uid"], "container": container["containerID"],
            "restarts": container["restartCount"], "address": pod["status"]["podIP"]})
    };
    let mut all: Vec<Value> = pods.iter().filter(belongs).map(summary).collect();
    all.sort_by_key(|pod| pod["name"].to_string());
    all
}

fn before_uid(before: &[Vec<Value>; 2], node: &str) -> String {
    let all = before.iter().flatten();
    let pod = all.into_iter().find(|pod| pod["name"] == format!("stays-{node}"));
    pod.and_then(|pod| pod["uid"].as_str()).unwrap_or_default().to_owned()
}
