//! The server ends, or is killed, and starts again on the same data directory.

use std::process::Command;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use testkit::{
    kubectl::{Following, Kubectl},
    platform::{Platform, WEB_IMAGE},
    said::Said,
};

use crate::{BINARY, apply_web, platform_with_image, rolled_out};

#[test]
fn a_server_that_is_ended_or_killed_finds_everything_as_before_and_touches_no_container() {
    let Some(platform) = platform_with_image() else { return };
    let tenants = ["acme", "globex"].map(|name| platform.tenant(name));
    tenants.iter().for_each(apply_web);
    tenants[0].run(&["create", "configmap", "note", "--from-literal=text=kept"]);
    let before = tenants.each_ref().map(what_runs);
    let objects = tenants[0].json(&[
        "get",
        "configmaps,secrets,serviceaccounts,services,deployments,replicasets",
    ]);

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        platform.end_server(signal);
        // Traffic goes on without a server.
        let address = before[0][0]["ip"].as_str().unwrap();
        let url = format!("http://{address}:8080/index.html");
        let page = Said::of(Command::new("busybox").args(["wget", "-q", "-O", "-", &url])).out();
        assert!(page.contains("Served from a Pod"), "after {signal}: {page}");

        platform.up();

        for (tenant, before) in tenants.iter().zip(&before) {
            rolled_out(tenant, "web");
            assert_eq!(&what_runs(tenant), before, "after {signal}");
            let said = tenant.run(&["exec", "deployment/web", "--", "echo", "still here"]);
            assert_eq!(said, "still here\n");
            let page = tenant.run(&["exec", "deployment/web", "--", "wget", "-q", "-O", "-", "http://web/"]);
            assert!(page.contains("Served from a Pod"), "after {signal}: {page}");
        }
        let now = tenants[0].json(&[
            "get",
            "configmaps,secrets,serviceaccounts,services,deployments,replicasets",
        ]);
        assert_eq!(now["items"], objects["items"], "after {signal}");
        assert_eq!(tenants[0].field(&["configmap", "note"], ".data.text"), "kept");
        // And it is not only a picture of what was: things still move.
        let mut log = tenants[1].follow(&["logs", "-f", "deployment/web", "--tail=1"]);
        tenants[1].run(&[
            "exec",
            "deployment/web",
            "--",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:8080/",
        ]);
        log.wait_for("");
    }

    // A machine that was shut down in order runs the same Pods when it is up again, in new containers.
    platform.down();
    platform.up();
    for (tenant, before) in tenants.iter().zip(&before) {
        rolled_out(tenant, "web");
        let names = |pods: &[Value]| -> Vec<Value> { pods.iter().map(|pod| pod["name"].clone()).collect() };
        assert_eq!(names(&what_runs(tenant)), names(before));
    }
    tenants[0].run(&["scale", "deployment/web", "--replicas=1"]);
    tenants[0].until("two Pods go", |tenant| {
        (tenant.names(&["pods"]).len() == 1).then_some(())
    });

    platform.finish();
}

/// Who runs where, and whether anything was started anew.
fn what_runs(tenant: &Kubectl) -> Vec<Value> {
    let pods = tenant.json(&["get", "pods", "-l", "app=web"]);
    let pods = pods["items"].as_array().expect("a list");
    let summary = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        json!({"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"], "ip": pod["status"]["podIP"],
            "container": container["containerID"], "restarts": container["restartCount"],
            "started": container["state"]["running"]["startedAt"]})
    };
    let mut summaries: Vec<Value> = pods.iter().map(summary).collect();
    summaries.sort_by_key(|pod| pod["name"].to_string());
    summaries
}

#[test]
fn a_server_in_the_foreground_shows_its_steps_and_leaves_containers_when_interrupted() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let mut up = platform.command(&["up", "--listen", "127.0.0.1:0"]);
    up.arg("--data-dir").arg(platform.data_dir());
    up.arg("--kubeconfig").arg(platform.kubeconfig("super"));
    let mut server = Following::start(&mut up);
    for step in [
        "store",
        "listening on 127.0.0.1:",
        "container runtime",
        "node agent",
        "ready in ",
    ] {
        server.wait_for(step);
    }
    platform.import_web_image();
    // Found without being told where it is.
    let acme = platform.tenant("acme");
    acme.run(&["run", "sleeper", &format!("--image={WEB_IMAGE}"), "--", "sleep", "1000"]);
    acme.run(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]);

    kill(Pid::from_raw(i32::try_from(platform.pid()).unwrap()), Signal::SIGINT).unwrap();
    server.wait_for("containers run on");
    let (code, said) = server.finish();
    assert_eq!(code, Some(0), "{said:#?}");
    // Its supervisor and its process.
    assert_eq!(platform.machine().groups.processes().len(), 2);

    let said = platform.run(&["down"]);
    assert!(said.contains(platform.data_dir().to_str().unwrap()), "{said}");
    assert!(
        platform.machine().leftovers().is_empty(),
        "{:#?}",
        platform.machine().leftovers()
    );
}
