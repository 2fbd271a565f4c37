//! Tenants made, listed and deleted, by command and by object.

use std::collections::BTreeSet;

use testkit::{kubectl::Kubectl, platform::Platform};

use crate::{BINARY, apply_web, platform_with_image};

const VIRTUAL_CLUSTER: &str = include_str!("../../../../examples/tenant.yaml");

#[test]
fn tenants_are_made_shown_and_deleted_by_command() {
    let Some(platform) = Platform::start(BINARY) else {
        return;
    };

    let made = platform.json(&["tenant", "create", "acme", "-o", "json"]);
    assert_eq!(
        (&made["name"], &made["phase"]),
        (&"acme".into(), &"Running".into()),
        "{made}"
    );
    let got = platform.json(&["tenant", "get", "acme", "-o", "json"]);
    assert_eq!(got, made);
    let globex = platform.tenant("globex");
    let list = platform.json(&["tenant", "list", "-o", "json"]);
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tenant| tenant["name"].as_str())
        .collect();
    assert_eq!(names, ["acme", "globex"]);
    let table = platform.run(&["tenant", "list"]);
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("acme ") && line.contains("Running")),
        "{table}"
    );

    // Printed, and merged beside another's.
    let text = platform.run(&["tenant", "kubeconfig", "acme"]);
    std::fs::write(platform.kubeconfig("printed"), text).unwrap();
    let printed = platform.known_tenant("printed");
    assert_eq!(printed.names(&["namespaces"]).len(), 4);
    let file = platform.kubeconfig("globex");
    platform.run(&["tenant", "kubeconfig", "acme", "--kubeconfig", file.to_str().unwrap()]);
    printed.run(&["create", "configmap", "mark"]);
    let contexts = globex.run(&["config", "get-contexts", "-o", "name"]);
    assert_eq!(contexts, "acme\nglobex\n");
    assert_eq!(
        globex.names(&["configmaps", "--context", "acme"]),
        ["kube-root-ca.crt", "mark"]
    );
    assert_eq!(
        globex.names(&["configmaps", "--context", "globex"]),
        ["kube-root-ca.crt"]
    );

    let said = platform.run(&["tenant", "delete", "acme"]);
    assert!(said.contains("acme"), "{said}");
    let gone = printed.refused(&["get", "namespaces"]);
    assert!(!gone.contains("kube-system"), "{gone}");
    let list = platform.json(&["tenant", "list", "-o", "json"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");

    // The name is free again, and the new one has nothing of the old one.
    let again = platform.tenant("acme");
    assert_eq!(again.names(&["configmaps"]), ["kube-root-ca.crt"]);
    let refused = printed.refused(&["get", "namespaces"]);
    assert!(!refused.contains("kube-system"), "an old credential: {refused}");
    platform.finish();
}

#[test]
fn a_virtual_cluster_object_makes_a_tenant_and_deleting_it_leaves_nothing() {
    let Some(platform) = platform_with_image() else { return };
    let root = platform.root();
    let before = everything(&root);

    root.apply(VIRTUAL_CLUSTER);
    root.run(&[
        "wait",
        "--for=jsonpath={.status.phase}=Running",
        "virtualcluster/initech",
        "--timeout=30s",
    ]);
    let file = platform.kubeconfig("initech");
    platform.run(&[
        "tenant",
        "kubeconfig",
        "initech",
        "--kubeconfig",
        file.to_str().unwrap(),
    ]);
    let initech = platform.known_tenant("initech");
    assert_eq!(initech.names(&["namespaces"]).len(), 4);
    assert_eq!(initech.names(&["services"]), ["kubernetes"]);

    // Made and left alone it has nothing in the super plane but its own object.
    let alone: Vec<String> = everything(&root).difference(&before).cloned().collect();
    assert_eq!(alone, ["virtualcluster.tenancy.mangrove.io/initech"]);

    apply_web(&initech);
    let with_pods = everything(&root);
    assert!(
        with_pods.iter().filter(|name| name.starts_with("pod/")).count() == 3,
        "{with_pods:#?}"
    );

    root.run(&["delete", "virtualcluster", "initech", "--timeout=100s"]);
    let after = everything(&root);
    let left: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
    let complaint = initech.refused(&["get", "pods"]);
    assert!(!complaint.contains("web"), "{complaint}");
    // Supervisors of its sandboxes are gone with it, at the latest when the node has heard of it.
    root.until("no process of the tenant is left", |_| {
        let processes = platform.machine().groups.processes();
        (processes.len() == 1).then_some(())
    });
    for folder in ["node/pods", "node/logs", "runtime/sandboxes", "runtime/containers"] {
        let entries = std::fs::read_dir(platform.data_dir().join(folder)).unwrap().flatten();
        let entries: Vec<_> = entries.map(|entry| entry.path()).collect();
        assert!(entries.is_empty(), "{entries:#?}");
    }
    platform.finish();
}

/// All objects of the super plane that are not made anew by time alone.
fn everything(root: &Kubectl) -> BTreeSet<String> {
    let kinds = root.run(&["api-resources", "--verbs=list", "-o", "name"]);
    // Events tell what has happened; leases are the node's heartbeat.
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events") && !kind.starts_with("leases"))
        .collect();
    let names = root.run(&["get", &kinds.join(","), "-A", "-o", "name", "--ignore-not-found"]);
    names.lines().map(str::to_owned).collect()
}
