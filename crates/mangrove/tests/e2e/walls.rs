//! Whom Pods reach: their own, the outside, and nobody else; and how the outside reaches them.

use std::process::Command;

use serde_json::json;
use testkit::{kubectl::Kubectl, platform::WEB_IMAGE, said::Said};

use crate::{apply_web, platform_with_image};

#[test]
fn tenants_pods_reach_their_own_and_neither_each_other_nor_the_machine() {
    let Some(platform) = platform_with_image() else { return };
    let (acme, globex, root) = (platform.tenant("acme"), platform.tenant("globex"), platform.root());
    for tenant in [&acme, &globex] {
        apply_web(tenant);
    }
    let supers = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ours", "namespace": "default"}, "spec": {
        "containers": [{"name": "c", "image": WEB_IMAGE, "command": ["busybox", "httpd", "-f", "-p", "8080", "-h", "/"]}]}});
    root.apply(&supers.to_string());
    root.run(&["wait", "--for=condition=Ready", "pod/ours", "--timeout=60s"]);
    let address_of = |plane: &Kubectl, name: &str| plane.field(&["pod", name], ".status.podIP");
    let pod = |tenant: &Kubectl| tenant.names(&["pods", "-l", "app=web"])[0].clone();
    let (own, others, ours) = (
        address_of(&acme, &pod(&acme)),
        address_of(&globex, &pod(&globex)),
        address_of(&root, "ours"),
    );
    let service = globex.field(&["service", "web"], ".spec.clusterIP");

    assert!(fetches(&acme, &format!("{own}:8080/index.html")), "one's own Pod");
    assert!(fetches(&acme, "web/index.html"), "one's own Service");
    for (what, place) in [
        ("another tenant's Pod", format!("{others}:8080/index.html")),
        ("another tenant's Service", format!("{service}/index.html")),
        ("a Pod of the super cluster", format!("{ours}:8080/etc/passwd")),
    ] {
        assert!(!fetches(&acme, &place), "{what} at {place}");
    }
    let machines_own = "10.244.0.1";
    let kubelet = root.field(&["nodes"], ".items[0].status.daemonEndpoints.kubeletEndpoint.Port");
    let another_door = globex.field(&["service", "kubernetes"], ".spec.clusterIP");
    let own_door = acme.field(&["service", "kubernetes"], ".spec.clusterIP");
    assert!(connects(&acme, &own_door, "443"), "one's own door");
    for (address, port) in [
        (machines_own, kubelet.as_str()),
        (machines_own, "6443"),
        (&another_door, "443"),
        ("169.254.169.254", "80"),
    ] {
        assert!(!connects(&acme, address, port), "{address}:{port}");
    }

    who_asks_is_seen_behind_a_service(&acme);
    a_node_port_leads_the_machine_to_pods(&acme);
    pods_of_a_headless_service_have_names(&acme);
    a_super_pod_reaches_tenants(&root, &own);
    an_open_network_is_open_to_its_like(&root, &acme, &globex);
    platform.finish();
}

fn fetches(tenant: &Kubectl, place: &str) -> bool {
    let url = format!("http://{place}");
    let command = [
        "exec",
        "deployment/web",
        "--",
        "busybox",
        "timeout",
        "3",
        "wget",
        "-q",
        "-O",
        "-",
        &url,
    ];
    Said::of(&mut tenant.command(&command)).code == Some(0)
}

/// Whether a connection comes about: who connects runs `true`.
fn connects(tenant: &Kubectl, address: &str, port: &str) -> bool {
    let dial = ["nc", "-w", "3", address, port, "-e", "/bin/true"];
    let command: Vec<&str> = ["exec", "deployment/web", "--"].into_iter().chain(dial).collect();
    Said::of(&mut tenant.command(&command)).code == Some(0)
}

fn who_asks_is_seen_behind_a_service(tenant: &Kubectl) {
    let asking = tenant.names(&["pods", "-l", "app=web"])[0].clone();
    let address = tenant.field(&["pod", &asking], ".status.podIP");
    let fetch = ["exec", &asking, "--", "wget", "-q", "-O", "-", "http://web/seen-from"];

    // The page does not exist; who asked for it stands in the log of the Pod that was asked.
    tenant.until("the asking Pod's own address in a log", |tenant| {
        let _ = Said::of(&mut tenant.command(&fetch));
        let log = tenant.run(&["logs", "-l", "app=web", "--tail=-1"]);
        log.contains(&format!("{address}]")).then_some(())
    });
}

fn a_node_port_leads_the_machine_to_pods(tenant: &Kubectl) {
    tenant.run(&[
        "expose",
        "deployment/web",
        "--name=outer",
        "--type=NodePort",
        "--port=80",
        "--target-port=8080",
    ]);
    let port = tenant.field(&["service", "outer"], ".spec.ports[0].nodePort");
    let url = format!("http://10.244.0.1:{port}/index.html");

    tenant.until("the node port answers", |_| {
        let said = Said::of(Command::new("busybox").args(["timeout", "3", "wget", "-q", "-O", "-", &url]));
        (said.code == Some(0)).then_some(())
    });
}

fn pods_of_a_headless_service_have_names(tenant: &Kubectl) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "sql", "port": 5432}]}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0", "labels": {"app": "db"}}, "spec": {
        "hostname": "db-0", "subdomain": "db",
        "containers": [{"name": "c", "image": WEB_IMAGE, "command": ["sleep", "1000"]}]}});
    tenant.apply(&service.to_string());
    tenant.apply(&pod.to_string());
    tenant.run(&["wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s"]);
    let address = tenant.field(&["pod", "db-0"], ".status.podIP");

    for name in ["db", "db-0.db", "db-0.db.default.svc.cluster.local"] {
        tenant.until("the name leads to the Pod", |tenant| {
            let said = Said::of(&mut tenant.command(&["exec", "deployment/web", "--", "ping", "-c", "1", name]));
            said.out.contains(&address).then_some(())
        });
    }
    assert_eq!(tenant.run(&["exec", "db-0", "--", "hostname"]).trim(), "db-0");
}

fn a_super_pod_reaches_tenants(root: &Kubectl, tenants: &str) {
    let url = format!("http://{tenants}:8080/index.html");
    root.run(&[
        "exec", "ours", "--", "busybox", "timeout", "3", "wget", "-q", "-O", "-", &url,
    ]);
}

fn an_open_network_is_open_to_its_like(root: &Kubectl, acme: &Kubectl, globex: &Kubectl) {
    let address = |tenant: &Kubectl| {
        let pod = tenant.names(&["pods", "-l", "app=web"])[0].clone();
        format!("{}:8080/index.html", tenant.field(&["pod", &pod], ".status.podIP"))
    };
    for tenant in ["acme", "globex"] {
        let open = r#"{"spec":{"network":"Open"}}"#;
        root.run(&["patch", "virtualcluster", tenant, "--type=merge", "-p", open]);
    }

    acme.until("open tenants meet", |acme| {
        fetches(acme, &address(globex)).then_some(())
    });

    let closed = r#"{"spec":{"network":"Isolated"}}"#;
    root.run(&["patch", "virtualcluster", "globex", "--type=merge", "-p", closed]);
    acme.until("a closed tenant is alone again", |acme| {
        (!fetches(acme, &address(globex))).then_some(())
    });
}
