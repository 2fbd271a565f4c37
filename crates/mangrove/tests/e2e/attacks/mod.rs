//! Isolation, by attack, where it takes a machine: from inside a tenant's Pod, and at every socket that the platform listens on.
//! Numbers as in `docs/tenancy.md`; the other attacks are tried on planes in memory (`crates/tenancy/tests/together/attacks`).

mod from_a_pod;
mod sockets;

use std::net::{Ipv4Addr, SocketAddrV4};

use testkit::{kubectl::Kubectl, platform::Platform};

/// What only the victim has.
const CANARY: &str = "CANARY-7f3a91";

const VICTIM: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: canary}
stringData: {canary: CANARY-7f3a91}
---
apiVersion: v1
kind: Pod
metadata: {name: victim, labels: {app: victim}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: mangrove.test/in-cluster:1
    command: [/bin/sh, -c, "sleep 1000"]
    env: [{name: CANARY, valueFrom: {secretKeyRef: {name: canary, key: canary}}}]
    volumeMounts: [{name: canary, mountPath: /canary}]
  volumes: [{name: canary, secret: {secretName: canary}}]
"#;

/// A platform with the attacker `acme`, who has a shell in a Pod of its own, and the victim `globex`.
fn arena() -> Option<(Platform, Kubectl, Kubectl)> {
    let platform = Platform::start(crate::BINARY)?;
    platform.import(&crate::in_cluster::image());
    let (acme, globex) = (platform.tenant("acme"), platform.tenant("globex"));
    globex.apply(VICTIM);
    acme.apply(crate::in_cluster::MANIFEST);
    crate::in_cluster::pod(&acme, "shell", "sleep 1000", "");
    acme.run(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]);
    globex.run(&["wait", "--for=condition=Ready", "pod/victim", "--timeout=60s"]);
    Some((platform, acme, globex))
}

/// What a command in the attacker's Pod says, whatever comes of it. Nothing of it is the victim's.
fn shell(acme: &Kubectl, words: &str) -> String {
    let words = format!("{{ {words} ; }} 2>&1; true");
    let said = acme.run(&["exec", "shell", "--", "/bin/sh", "-c", &words]);
    assert!(!said.contains(CANARY), "{words}: {said}");
    said
}

/// Where somebody on this machine listens, from `/proc/net`: sockets of all addresses are at the loop's.
fn listening() -> Vec<SocketAddrV4> {
    let mut sockets = Vec::new();
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // State 0A is LISTEN; addresses are in the machine's own byte order.
        if let (Some(local), Some(&"0A")) = (words.get(1), words.get(3))
            && let Some((address, port)) = local.rsplit_once(':')
        {
            let address = Ipv4Addr::from(u32::from_str_radix(address, 16).unwrap().to_ne_bytes());
            let address = if address.is_unspecified() {
                Ipv4Addr::LOCALHOST
            } else {
                address
            };
            sockets.push(SocketAddrV4::new(address, u16::from_str_radix(port, 16).unwrap()));
        }
    }
    sockets.sort_unstable();
    sockets.dedup();
    sockets
}
