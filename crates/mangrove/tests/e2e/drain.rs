//! Nodes that are cordoned and drained: by the super cluster's operator, and by a tenant in its own view of them.

use serde_json::Value;
use testkit::{kubectl::Kubectl, platform::Platform};

use crate::{
    BINARY,
    other_machines::{OtherMachine, take_the_network_away, with_a_network},
    rolled_out,
};

/// What is drained in daily life: Pods with scratch space that prefer to be apart, a budget, and one Pod a node.
const APP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: app}}}
      containers:
        - name: main
          image: mangrove.test/web:1
          command: ["sleep", "100000"]
          volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes: [{name: scratch, emptyDir: {}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: app}
spec:
  minAvailable: 2
  selector: {matchLabels: {app: app}}
---
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
        - name: main
          image: mangrove.test/web:1
          command: ["sleep", "100000"]
"#;

/// As one types it who has read what the first attempt said.
const DRAIN: [&str; 3] = ["drain", "--ignore-daemonsets", "--delete-emptydir-data"];
/// Tenants' Pods have no owner in the super cluster.
const DRAIN_ALL: [&str; 4] = ["drain", "--ignore-daemonsets", "--delete-emptydir-data", "--force"];

#[test]
fn a_node_is_cordoned_and_drained_by_its_operator_and_by_a_tenant_for_itself() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let platform = with_a_network(platform);
    let mut second = OtherMachine::start(&platform, "second", 2);
    platform.up();
    platform.import_web_image();
    second.join(&platform);
    let (root, acme, globex) = (platform.root(), platform.tenant("acme"), platform.tenant("globex"));
    let first = root
        .names(&["nodes"])
        .into_iter()
        .find(|name| name != "second")
        .unwrap();
    let first = first.as_str();
    for plane in [&root, &acme, &globex] {
        runs_apart(plane);
    }

    a_tenant_cordons_for_itself_alone(&root, &acme, &globex);
    a_budget_holds_a_drain_up_and_lets_it_go(&acme, &DRAIN, first);
    assert_ne!(nodes_of(&globex, "app"), [first, first], "another's Pods stay");
    acme.run(&["uncordon", "second"]);
    what_waits_for_a_node_runs_when_it_is_uncordoned(&acme, first);
    what_a_tenant_can_not_say_of_a_node_is_refused_in_words(&acme);

    runs_apart(&acme);
    a_budget_holds_a_drain_up_and_lets_it_go(&root, &DRAIN_ALL, first);
    for tenant in [&acme, &globex] {
        rolled_out(tenant, "app");
        assert_eq!(nodes_of(tenant, "app"), [first, first]);
        assert_eq!(nodes_of(tenant, "daemon"), sorted([first, "second"]));
    }
    assert_eq!(acme.field(&["node", "second"], ".spec.unschedulable"), "true");
    // Which kubectl tells, and takes for no failure.
    let said = acme.said(&["uncordon", "second"]);
    assert!(said.err.contains("the cluster underneath has cordoned it"), "{said}");
    root.run(&["uncordon", "second"]);

    a_daemon_set_follows_a_node_that_leaves(&root, &[&root, &acme, &globex], second);
    take_the_network_away();
    platform.finish();
}

/// One Pod of the Deployment on each node, whatever was before.
#[track_caller]
fn runs_apart(tenant: &Kubectl) {
    tenant.apply(APP);
    rolled_out(tenant, "app");
    tenant.run(&["rollout", "status", "daemonset/daemon", "--timeout=60s"]);
    tenant.until("its Pods are apart", |tenant| {
        (nodes_of(tenant, "app").len() == 2 && nodes_of(tenant, "daemon").len() == 2).then_some(())
    });
    let nodes = nodes_of(tenant, "app");
    if nodes[0] == nodes[1] {
        // One alone, since those that are on their way out count too: it would rather be where none is.
        let one = tenant.names(&["pods", "-l", "app=app"]).remove(0);
        tenant.run(&["delete", "pod", &one]);
        rolled_out(tenant, "app");
    }
    let nodes = nodes_of(tenant, "app");
    assert_ne!(nodes[0], nodes[1]);
}

/// Where the Pods of an app run, sorted.
fn nodes_of(tenant: &Kubectl, app: &str) -> Vec<String> {
    let pods = tenant.json(&["get", "pods", "-l", &format!("app={app}")]);
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let going = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
    let node = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let mut nodes: Vec<String> = pods.iter().filter(|pod| !going(pod)).map(node).collect();
    nodes.sort();
    nodes
}

fn a_tenant_cordons_for_itself_alone(root: &Kubectl, acme: &Kubectl, globex: &Kubectl) {
    let said = acme.run(&["cordon", "second"]);
    assert_eq!(said, "node/second cordoned\n");
    assert!(acme.run(&["cordon", "second"]).contains("already cordoned"));
    assert!(acme.run(&["get", "nodes"]).contains("Ready,SchedulingDisabled"));
    for other in [root, globex] {
        assert!(!other.run(&["get", "nodes"]).contains("SchedulingDisabled"));
    }

    // What comes after goes elsewhere, and what runs there runs on.
    acme.run(&["scale", "deployment/app", "--replicas=4"]);
    rolled_out(acme, "app");
    let on_second = |nodes: Vec<String>| nodes.iter().filter(|node| *node == "second").count();
    assert_eq!(on_second(nodes_of(acme, "app")), 1);
    globex.run(&["scale", "deployment/app", "--replicas=4"]);
    rolled_out(globex, "app");
    assert_eq!(on_second(nodes_of(globex, "app")), 2);
    for tenant in [acme, globex] {
        tenant.run(&["scale", "deployment/app", "--replicas=2"]);
        tenant.until("two go", |tenant| (nodes_of(tenant, "app").len() == 2).then_some(()));
    }
    runs_apart(globex);
}

fn a_budget_holds_a_drain_up_and_lets_it_go(plane: &Kubectl, drain: &[&str], first: &str) {
    let complaint = plane.refused(&["drain", "second"]);
    assert!(complaint.contains("--delete-emptydir-data"), "{complaint}");
    assert!(complaint.contains("--ignore-daemonsets"), "{complaint}");

    plane.until("the budget is spent", |plane| {
        (plane.field(&["pdb", "app"], ".status.disruptionsAllowed") == "0").then_some(())
    });
    let mut held = plane.follow(&[drain, &["second", "--timeout=100s"]].concat());
    held.wait_for("would violate the pod's disruption budget");
    assert!(nodes_of(plane, "app").contains(&"second".to_owned()));

    let lets_go = r#"{"spec":{"minAvailable":1}}"#;
    plane.run(&["patch", "pdb", "app", "--type=merge", "-p", lets_go]);
    let (code, said) = held.finish();
    assert_eq!(code, Some(0), "{said:#?}");
    rolled_out(plane, "app");
    assert_eq!(nodes_of(plane, "app"), [first, first]);
    assert_eq!(nodes_of(plane, "daemon"), sorted([first, "second"]));
}

fn sorted<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    names.sort_unstable();
    names
}

fn what_waits_for_a_node_runs_when_it_is_uncordoned(acme: &Kubectl, first: &str) {
    for node in [first, "second"] {
        acme.run(&["cordon", node]);
    }
    acme.run(&["run", "waits", "--image=mangrove.test/web:1", "--", "sleep", "100000"]);
    acme.until("it is told why it waits", |acme| {
        let told = acme.field(
            &["pod", "waits"],
            ".status.conditions[?(@.type=='PodScheduled')].message",
        );
        told.contains("nodes are available").then_some(())
    });

    acme.run(&["uncordon", "second"]);

    acme.run(&["wait", "--for=condition=Ready", "pod/waits", "--timeout=60s"]);
    assert_eq!(acme.field(&["pod", "waits"], ".spec.nodeName"), "second");
    acme.run(&["uncordon", first]);
    acme.run(&["delete", "pod", "waits", "--grace-period=0", "--force"]);
}

fn what_a_tenant_can_not_say_of_a_node_is_refused_in_words(acme: &Kubectl) {
    acme.run(&["taint", "node", "second", "mine=yes:NoSchedule"]);
    assert_eq!(acme.field(&["node", "second"], ".spec.taints[0].key"), "mine");
    acme.run(&["taint", "node", "second", "mine-"]);
    for (command, reason) in [
        (&["taint", "node", "second", "mine=yes:NoExecute"][..], "NoSchedule"),
        (&["label", "node", "second", "mine=yes"], "cluster underneath"),
        (&["annotate", "node", "second", "mine=yes"], "cluster underneath"),
        (&["delete", "node", "second"], "cluster underneath"),
    ] {
        let refusal = acme.refused(command);
        assert!(refusal.contains(reason), "{command:?}: {refusal}");
    }
}

fn a_daemon_set_follows_a_node_that_leaves(root: &Kubectl, tenants: &[&Kubectl], second: OtherMachine) {
    root.run(&[&DRAIN_ALL[..], &["second", "--timeout=100s"]].concat());
    second.down();
    root.run(&["delete", "node", "second"]);
    for tenant in tenants {
        tenant.until("its daemon there is gone", |tenant| {
            let pods = tenant.json(&["get", "pods", "-l", "app=daemon"]);
            (pods["items"].as_array()?.len() == 1).then_some(())
        });
        tenant.run(&["rollout", "status", "daemonset/daemon", "--timeout=60s"]);
        assert_eq!(tenant.names(&["nodes"]).len(), 1);
    }
}
