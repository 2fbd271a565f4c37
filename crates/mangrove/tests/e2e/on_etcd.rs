//! The same platform with its state in Debian's etcd.

use std::process::Command;

use nix::sys::signal::Signal;
use testkit::{etcd::Etcd, platform::Platform, said::Said};

use crate::{BINARY, apply_web};

#[test]
fn the_platform_keeps_its_state_in_a_real_etcd_and_takes_it_all_back() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let Some(etcd) = Etcd::start(platform.folder()) else {
        return;
    };
    let platform = platform.with_options(&["--etcd-servers", &etcd.url()]);
    platform.up();
    platform.import_web_image();
    let acme = platform.tenant("acme");
    let globex = platform.tenant("globex");
    let plane = platform.json(&["tenant", "get", "acme", "-o", "json"])["plane"]
        .as_str()
        .unwrap()
        .to_owned();

    apply_web(&acme);
    globex.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\ndata: {text: kept}\n");
    let keys = keys(&etcd);
    assert!(
        keys.iter()
            .any(|key| key.contains(&plane) && key.ends_with("/default/web")),
        "{keys:#?}"
    );
    assert!(!platform.data_dir().join("store").exists(), "nothing is kept twice");

    platform.end_server(Signal::SIGKILL);
    platform.up();
    apply_web(&acme);
    let restarts = acme.field(&["pods"], ".items[*].status.containerStatuses[*].restartCount");
    assert_eq!(restarts, "0 0 0");
    assert_eq!(globex.field(&["configmap", "note"], ".data.text"), "kept");

    platform.run(&["tenant", "delete", "acme"]);
    let left: Vec<String> = self::keys(&etcd)
        .into_iter()
        .filter(|key| key.contains(&plane))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(globex.field(&["configmap", "note"], ".data.text"), "kept");

    platform.down();
    drop(etcd);
    let leftovers = platform.machine().leftovers();
    assert!(leftovers.is_empty(), "{leftovers:#?}");
}

fn keys(etcd: &Etcd) -> Vec<String> {
    let mut get = Command::new("etcdctl");
    get.env("ETCDCTL_API", "3")
        .args(["--endpoints", &etcd.url(), "get", "", "--prefix", "--keys-only"]);
    Said::of(&mut get)
        .out()
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}
