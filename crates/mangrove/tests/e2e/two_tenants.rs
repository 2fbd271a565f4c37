//! The main job: two tenants with the same manifest under the same names on one machine.

use std::{io::Read, net::TcpStream, process::Command};

use http::StatusCode;
use testkit::{
    kubectl::{Following, Kubectl},
    said::Said,
};

use crate::{
    WEB,
    door::{Access, block_on},
    platform_with_image, rolled_out,
};

const PAGE: &str = "<h1>Served from a Pod</h1>";

#[test]
fn two_tenants_run_one_manifest_under_the_same_names_and_do_not_see_each_other() {
    let Some(platform) = platform_with_image() else { return };
    let tenants = ["acme", "globex"].map(|name| (name, platform.tenant(name)));
    for (name, tenant) in &tenants {
        tenant.apply(&WEB.replace(PAGE, &page(name)));
    }
    for (_, tenant) in &tenants {
        rolled_out(tenant, "web");
    }
    let [(_, acme), (_, globex)] = &tenants;

    for (name, tenant) in &tenants {
        a_pod_fetches_its_tenants_page_by_name(name, tenant);
        the_machine_fetches_it_by_address(name, tenant);
        logs_are_followed(tenant);
        commands_run_with_what_the_manifest_says(tenant);
        a_terminal_types_and_exits_with_the_commands_code(tenant);
        ports_are_forwarded(&page(name), tenant);
        files_are_copied_in_and_out(tenant, platform.folder());
        each_lists_only_its_own(tenant);
    }
    names_of_one_are_not_known_to_the_other(acme, globex);
    one_kind_has_two_schemas(acme, globex);
    attach_talks_to_the_process(acme);
    pods_are_the_same_pods_on_both_sides(&platform.root(), acme, globex);
    one_tenants_credential_is_refused_at_the_other(acme, globex);
    one_connection_has_one_tenant(acme, globex);

    platform.finish();
}

fn page(tenant: &str) -> String {
    format!("<h1>Served from a Pod of {tenant}</h1>")
}

fn a_pod_fetches_its_tenants_page_by_name(name: &str, tenant: &Kubectl) {
    for host in ["web", "web.default", "web.default.svc.cluster.local"] {
        let url = format!("http://{host}/index.html");
        let got = tenant.run(&["exec", "deployment/web", "--", "wget", "-q", "-O", "-", &url]);
        assert_eq!(got.trim(), page(name), "{url}");
    }
}

fn the_machine_fetches_it_by_address(name: &str, tenant: &Kubectl) {
    let address = tenant.field(&["service", "web"], ".spec.clusterIP");
    let url = format!("http://{address}/index.html");
    // Often enough to meet each of the three Pods.
    for _ in 0..10 {
        let got = Said::of(Command::new("busybox").args(["wget", "-q", "-O", "-", &url])).out();
        assert_eq!(got.trim(), page(name), "{url}");
    }
    let slices = tenant.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web"]);
    let endpoints = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
    assert_eq!(endpoints, 3, "{slices:#}");
}

pub fn logs_are_followed(tenant: &Kubectl) {
    let pod = tenant.names(&["pods", "-l", "app=web"])[0].clone();
    let mut log = tenant.follow(&["logs", "-f", &pod]);
    log.wait_for(&format!("{pod} in default serves on 8080"));

    let address = tenant.field(&["pod", &pod], ".status.podIP");
    let url = format!("http://{address}:8080/there-is-no-such-page");
    tenant.refused(&["exec", "deployment/web", "--", "wget", "-q", "-O", "-", &url]);

    log.wait_for("url:/there-is-no-such-page");
    let said = tenant.run(&["logs", "-l", "app=web", "--prefix", "--tail=1"]);
    assert_eq!(said.lines().count(), 3, "{said}");
}

fn commands_run_with_what_the_manifest_says(tenant: &Kubectl) {
    let words = "echo $PASSWORD; echo $POD_NAMESPACE; hostname; cat /www/index.html; id -u";
    let said = tenant.run(&["exec", "deployment/web", "--", "/bin/sh", "-c", words]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["correct-horse", "default"], "{said}");
    assert!(tenant.names(&["pods"]).contains(&lines[2].to_owned()), "{said}");
    assert_eq!(lines[4], "0", "{said}");
}

pub fn a_terminal_types_and_exits_with_the_commands_code(tenant: &Kubectl) {
    let mut shell = tenant.follow(&["exec", "-i", "deployment/web", "--", "/bin/sh"]);
    shell.type_line("echo typed $((40 + 2))");
    shell.wait_for("typed 42");
    shell.type_line("exit 7");
    let (code, lines) = shell.finish();
    assert_eq!(code, Some(7), "{lines:#?}");
}

pub fn ports_are_forwarded(page: &str, tenant: &Kubectl) {
    let mut forward = tenant.follow(&["port-forward", "service/web", ":80"]);
    let line = forward.wait_for("Forwarding from 127.0.0.1:");
    let port: u16 = line
        .trim_start_matches("Forwarding from 127.0.0.1:")
        .split_whitespace()
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{line} names a port"));
    for _ in 0..3 {
        let got = fetch(port);
        assert!(got.contains(page), "{got}");
    }
}

fn fetch(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("kubectl listens");
    std::io::Write::write_all(&mut stream, b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

pub fn files_are_copied_in_and_out(tenant: &Kubectl, folder: &std::path::Path) {
    let pod = tenant.names(&["pods", "-l", "app=web"])[0].clone();
    let (there, back) = (folder.join("there.bin"), folder.join("back.bin"));
    // Every byte, and more than one frame of any protocol in between.
    let content: Vec<u8> = (0..300_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&there, &content).unwrap();
    let inside = format!("{pod}:/tmp/copied.bin");

    tenant.run(&["cp", there.to_str().unwrap(), &inside]);
    tenant.run(&["cp", &inside, back.to_str().unwrap()]);

    assert_eq!(std::fs::read(&back).unwrap(), content);
    std::fs::remove_file(back).unwrap();
}

fn each_lists_only_its_own(tenant: &Kubectl) {
    assert_eq!(tenant.names(&["deployments", "-A"]), ["web"]);
    assert_eq!(tenant.names(&["services", "-A"]), ["kubernetes", "web"]);
    assert_eq!(tenant.names(&["pods", "-A"]).len(), 3);
    let namespaces = ["default", "kube-node-lease", "kube-public", "kube-system"];
    assert_eq!(tenant.names(&["namespaces"]), namespaces);
    let complaint = tenant.refused(&["get", "virtualclusters"]);
    assert!(
        complaint.contains("the server doesn't have a resource type"),
        "{complaint}"
    );
}

fn names_of_one_are_not_known_to_the_other(acme: &Kubectl, globex: &Kubectl) {
    globex.run(&["create", "service", "clusterip", "secret-plan", "--tcp=80:8080"]);
    globex.run(&["set", "selector", "service", "secret-plan", "app=web"]);
    let fetch = [
        "exec",
        "deployment/web",
        "--",
        "wget",
        "-q",
        "-O",
        "-",
        "http://secret-plan/",
    ];
    globex.until("the new name is known to its own", |globex| {
        globex.said(&fetch).succeeded().then_some(())
    });
    let complaint = acme.refused(&fetch);
    assert!(complaint.contains("bad address"), "{complaint}");
    globex.run(&["delete", "service", "secret-plan"]);
}

/// D1: two tenants, one name, two schemas.
fn one_kind_has_two_schemas(acme: &Kubectl, globex: &Kubectl) {
    for (tenant, kind) in [(acme, "integer"), (globex, "string")] {
        let schema = serde_json::json!({"type": "object", "properties": {"size": {"type": kind}}});
        let definition = serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "hats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "hats", "singular": "hat", "kind": "Hat"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
        tenant.apply(&definition.to_string());
        tenant.run(&[
            "wait",
            "--for=condition=Established",
            "crd/hats.example.com",
            "--timeout=30s",
        ]);
    }
    let hat = |size: serde_json::Value| {
        serde_json::json!({"apiVersion": "example.com/v1", "kind": "Hat", "metadata": {"name": "top"}, "size": size})
            .to_string()
    };
    let put_on = |tenant: &Kubectl, hat: &str| {
        Said::with_input(&mut tenant.command(&["apply", "--validate=false", "-f", "-"]), hat)
    };
    put_on(acme, &hat(7.into())).out();
    put_on(globex, &hat("seven".into())).out();
    let complaint = put_on(globex, &hat(7.into())).complaint();
    assert!(complaint.contains("size"), "{complaint}");
    assert_eq!(acme.field(&["hat", "top"], ".size"), "7");
    assert_eq!(globex.field(&["hat", "top"], ".size"), "seven");
    acme.run(&["delete", "crd", "hats.example.com"]);
    assert_eq!(globex.field(&["hat", "top"], ".size"), "seven");
    globex.run(&["delete", "crd", "hats.example.com"]);
}

pub fn attach_talks_to_the_process(tenant: &Kubectl) {
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: parrot}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: parrot
    image: mangrove.test/web:1
    stdin: true
    stdinOnce: true
    command: ["/bin/sh", "-c", "while read line; do echo parrot says $line; done"]
"#;
    tenant.apply(manifest);
    tenant.run(&["wait", "--for=condition=Ready", "pod/parrot", "--timeout=60s"]);

    let mut attached: Following = tenant.follow(&["attach", "-i", "parrot"]);
    attached.type_line("hello");
    attached.wait_for("parrot says hello");
    attached.finish();

    // Its input has ended with the first one who was attached.
    tenant.until("the parrot is silent", |tenant| {
        (tenant.field(&["pod", "parrot"], ".status.phase") == "Succeeded").then_some(())
    });
    assert_eq!(tenant.run(&["logs", "parrot"]), "parrot says hello\n");
    tenant.run(&["delete", "pod", "parrot"]);
}

fn pods_are_the_same_pods_on_both_sides(root: &Kubectl, acme: &Kubectl, globex: &Kubectl) {
    let list = |kubectl: &Kubectl| {
        let pods = kubectl.json(&["get", "pods", "-A"]);
        pods["items"].as_array().expect("a list").clone()
    };
    let below = list(root);
    assert_eq!(below.len(), 6);
    for pod in [list(acme), list(globex)].concat() {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let counterparts = below.iter().filter(|below| {
            let annotations = below["metadata"]["annotations"].as_object();
            annotations.is_some_and(|annotations| annotations.values().any(|value| value == uid))
        });
        let [one] = counterparts.collect::<Vec<_>>()[..] else {
            panic!("there is not one super Pod of {uid}")
        };
        assert_eq!(one["metadata"]["name"], pod["metadata"]["name"]);
        assert_eq!(one["status"]["podIP"], pod["status"]["podIP"]);
        assert_ne!(one["metadata"]["namespace"], pod["metadata"]["namespace"]);
        assert_ne!(one["metadata"]["uid"], pod["metadata"]["uid"]);
    }
}

fn one_tenants_credential_is_refused_at_the_other(acme: &Kubectl, globex: &Kubectl) {
    let server = globex.run(&[
        "config",
        "view",
        "--minify",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ]);
    for arguments in [["get", "pods"], ["get", "namespaces"], ["delete", "deployment/web"]] {
        let complaint = acme.refused(&[&["--server", &server], &arguments[..]].concat());
        assert!(
            complaint.contains("Unauthorized") || complaint.contains("provide credentials"),
            "{complaint}"
        );
    }
    assert_eq!(globex.names(&["deployments"]), ["web"]);
    // Nor is it anyone in the super plane.
    let root = server.split("/planes/").next().unwrap();
    let complaint = acme.refused(&["--server", root, "get", "nodes"]);
    assert!(
        complaint.contains("Unauthorized") || complaint.contains("provide credentials"),
        "{complaint}"
    );
}

/// The test of D8: the handshake proves a key, every request is judged by its own plane.
fn one_connection_has_one_tenant(acme: &Kubectl, globex: &Kubectl) {
    let (acme, globex) = (Access::of(acme), Access::of(globex));
    block_on(async {
        let mut door = acme.open().await.unwrap();
        let pods = |access: &Access| format!("{}/api/v1/namespaces/default/pods", access.prefix);
        for _ in 0..2 {
            let (status, list) = door.get(&pods(&acme)).await;
            assert_eq!(status, StatusCode::OK, "{list}");
            assert_eq!(list["items"].as_array().map(Vec::len), Some(3));

            let (status, refusal) = door.get(&pods(&globex)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{refusal}");
            assert_eq!(refusal["kind"], "Status");
            let (status, refusal) = door.get("/api/v1/nodes").await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{refusal}");
            let (status, refusal) = door.get("/planes/*/api/v1/pods").await;
            assert!(
                [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND, StatusCode::FORBIDDEN].contains(&status),
                "{status} {refusal}"
            );
        }
    });
}
