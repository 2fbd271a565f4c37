//! The same platform with its state in a real etcd, which it reaches over mutual TLS.

use std::{fs, path::Path, time::Duration};

use identity::{Ca, Certified, SubjectName};
use nix::sys::signal::Signal;
use testkit::{
    etcd::{Etcd, EtcdTls},
    platform::Platform,
    said::Said,
};
use world::World;

use crate::{BINARY, apply_web};

#[test]
fn the_platform_keeps_its_state_in_a_real_etcd_and_takes_it_all_back() {
    let Some(platform) = Platform::prepare(BINARY) else {
        return;
    };
    let Some(etcd) = Etcd::start(platform.folder(), certificates(platform.folder())) else {
        return;
    };
    let options = etcd.options();
    let platform = platform.with_options(&options.each_ref().map(String::as_str));
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

fn certificates(folder: &Path) -> EtcdTls {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let world = World::real();
    let (now, random) = (world.clock.wall(), &*world.random);
    let ca = Ca::generate("etcd", now, random).unwrap();
    let names = [SubjectName::of("127.0.0.1")];
    let server = ca.issue_server("etcd", &names, DAY, now, random).unwrap();
    let client = ca.issue_client("mangrove", &[], DAY, now, random).unwrap();
    let written = |name: &str, of: &Certified| {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        fs::write(&certificate, &of.certificate_pem).unwrap();
        fs::write(&key, &of.key_pem).unwrap();
        (certificate, key)
    };
    let authority = folder.join("etcd-ca.crt");
    fs::write(&authority, ca.certificate_pem()).unwrap();
    EtcdTls {
        authority,
        server: written("etcd", &server),
        client: written("etcd-client", &client),
    }
}

fn keys(etcd: &Etcd) -> Vec<String> {
    Said::of(etcd.ctl().args(["get", "", "--prefix", "--keys-only"]))
        .out()
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}
