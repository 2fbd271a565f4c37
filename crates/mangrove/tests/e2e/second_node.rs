//! A second machine joins as a node, and its Pods and the first one's are one cluster.

use nix::sys::signal::Signal;
use serde_json::json;
use testkit::{kubectl::Kubectl, platform::Platform, platform::WEB_IMAGE, said::Said};

use crate::{
    BINARY,
    other_machines::{HERE, OtherMachine, take_the_network_away, with_a_network},
};

#[test]
fn a_second_machine_joins_runs_pods_leaves_and_returns() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let platform = with_a_network(platform);
    let mut second = OtherMachine::start(&platform, "second", 2);
    platform.up();
    platform.import_web_image();
    let (root, acme) = (platform.root(), platform.tenant("acme"));

    second.join(&platform);
    assert_eq!(root.field(&["node", "second"], ".spec.podCIDR"), "10.244.1.0/24");
    assert_eq!(
        root.field(&["node", "second"], ".status.addresses[0].address"),
        second.address
    );

    let first = root
        .names(&["nodes"])
        .into_iter()
        .find(|name| name != "second")
        .unwrap();
    run_on(&acme, "here", &first);
    run_on(&acme, "there", "second");
    // Named otherwise than the Pods, which know themselves by name.
    for name in ["here", "there"] {
        let (pod, service) = (format!("pod/{name}"), format!("--name=to-{name}"));
        acme.run(&["expose", &pod, &service, "--port=80", "--target-port=8080"]);
    }
    pods_meet_across_machines(&acme);
    logs_and_commands_reach_the_second_node(&acme);
    another_tenant_reaches_neither(&platform, &acme);
    an_agent_that_ends_and_comes_back_finds_its_pods(&mut second, &platform, &acme);

    second.down();
    take_the_network_away();
    platform.finish();
}

fn run_on(tenant: &Kubectl, name: &str, node: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "nodeName": node,
        "containers": [{"name": "c", "image": WEB_IMAGE, "command": ["/bin/sh", "-c"],
            "args": ["mkdir -p /www; echo from $(hostname) > /www/index.html; exec busybox httpd -f -vv -p 8080 -h /www"]}]}});
    tenant.apply(&pod.to_string());
    tenant.run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

fn fetch(tenant: &Kubectl, from: &str, place: &str) -> Said {
    let url = format!("http://{place}");
    Said::of(&mut tenant.command(&[
        "exec", from, "--", "busybox", "timeout", "3", "wget", "-q", "-O", "-", &url,
    ]))
}

fn pods_meet_across_machines(acme: &Kubectl) {
    for (from, to) in [("here", "there"), ("there", "here"), ("there", "there")] {
        // By the name of its Service: DNS, the Service's address, and the other machine.
        acme.until("a Pod reaches one of the other machine", |acme| {
            let said = fetch(acme, from, &format!("to-{to}/index.html"));
            said.out.contains(&format!("from {to}")).then_some(())
        });
    }
    let address = acme.field(&["pod", "here"], ".status.podIP");
    let log = acme.run(&["logs", "there"]);
    assert!(log.contains(&address), "who asks is seen: {log}");
}

fn logs_and_commands_reach_the_second_node(acme: &Kubectl) {
    assert_eq!(acme.run(&["exec", "there", "--", "hostname"]).trim(), "there");
    assert!(acme.run(&["logs", "there"]).contains("/index.html"));
}

fn another_tenant_reaches_neither(platform: &Platform, acme: &Kubectl) {
    let globex = platform.tenant("globex");
    run_on(&globex, "spy", "second");
    for name in ["here", "there"] {
        let address = acme.field(&["pod", name], ".status.podIP");
        let said = fetch(&globex, "spy", &format!("{address}:8080/index.html"));
        assert_ne!(said.code, Some(0), "{name}: {}", said.out);
    }
    let door = acme.field(&["service", "kubernetes"], ".spec.clusterIP");
    let connects = |address: &str, port: &str| {
        let command = ["exec", "spy", "--", "nc", "-w", "3", address, port, "-e", "/bin/true"];
        Said::of(&mut globex.command(&command)).code == Some(0)
    };
    let own = globex.field(&["service", "kubernetes"], ".spec.clusterIP");
    assert!(connects(&own, "443"), "one's own door, from the other machine");
    assert!(!connects(&door, "443"), "another's door");
    for port in ["6443", "10250"] {
        assert!(!connects(HERE, port), "the first machine's port {port}");
    }
}

fn an_agent_that_ends_and_comes_back_finds_its_pods(second: &mut OtherMachine, platform: &Platform, acme: &Kubectl) {
    let started = acme.field(&["pod", "there"], ".status.containerStatuses[0].containerID");
    second.end_agent(Signal::SIGTERM);
    assert!(
        fetch(acme, "here", "to-there/index.html").out.contains("from there"),
        "Pods don't notice"
    );

    second.join(platform);
    acme.until("commands reach the node again", |acme| {
        (Said::of(&mut acme.command(&["exec", "there", "--", "hostname"])).code == Some(0)).then_some(())
    });
    assert_eq!(
        acme.field(&["pod", "there"], ".status.containerStatuses[0].containerID"),
        started
    );
    let root = platform.root();
    assert_eq!(root.field(&["node", "second"], ".spec.podCIDR"), "10.244.1.0/24");
}
