//! One object of every common kind, made and shown by the unmodified kubectl. Skipped, and said so, where there is none.

mod support;

use std::{path::Path, process::Stdio, time::Duration};

use identity::kubeconfig::{self, Credential, Entry};
use support::{Fixture, at};
use tokio::{io::AsyncWriteExt, process::Command};

/// kubectl waits for what it asked for; a test should not.
const PATIENCE: Duration = Duration::from_secs(120);

async fn kubectl(folder: &Path, arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut child = Command::new("kubectl")
        .env("KUBECONFIG", folder.join("admin"))
        .env("HOME", folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.expect("kubectl ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// A plane and a folder with its administrator's kubeconfig; `None` where kubectl is not installed.
async fn start() -> Option<(Fixture, tempfile::TempDir)> {
    if Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .await
        .is_err()
    {
        println!("skipped: kubectl is not installed");
        return None;
    }
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let folder = tempfile::tempdir().unwrap();
    let text = kubeconfig::document(&Entry {
        name: "admin".to_owned(),
        server: format!("https://{}{}", fixture.address, at(acme.id, "")),
        authority_pem: fixture.house.certificate_pem().to_owned(),
        credential: Credential::Certificate(fixture.user(&acme, "admin", &["system:masters"])),
        namespace: Some("web".to_owned()),
    });
    kubeconfig::write(&folder.path().join("admin"), &text.unwrap()).unwrap();
    Some((fixture, folder))
}

const MANIFEST: &str = include_str!("kinds.yaml");

/// In the order of the manifest. What a plane has by birth is left out by name.
const SHOWN: [(&str, &str); 32] = [
    ("namespaces", "web"),
    ("configmaps", "settings"),
    ("secrets", "password"),
    ("serviceaccounts", "robot"),
    ("services", "web"),
    ("endpoints", "web"),
    ("endpointslices", "web"),
    ("pods", "one"),
    ("podtemplates", "template"),
    ("replicationcontrollers", "web"),
    ("deployments", "web"),
    ("replicasets", "web"),
    ("statefulsets", "web"),
    ("daemonsets", "web"),
    ("controllerrevisions", "web-1"),
    ("jobs", "once"),
    ("cronjobs", "nightly"),
    ("poddisruptionbudgets", "web"),
    ("ingresses", "web"),
    ("networkpolicies", "web"),
    ("persistentvolumeclaims", "data"),
    ("leases", "leader"),
    ("events", "seen"),
    ("resourcequotas", "quota"),
    ("limitranges", "limits"),
    ("roles", "reader"),
    ("rolebindings", "reader"),
    ("ingressclasses", "edge"),
    ("storageclasses", "fast"),
    ("priorityclasses", "high"),
    ("runtimeclasses", "vm"),
    ("persistentvolumes", "disk"),
];

#[tokio::test]
async fn get_wide_has_upstreams_columns_and_cells() {
    let Some((_fixture, folder)) = start().await else {
        return;
    };
    let folder = folder.path();

    let (made, _, why) = kubectl(folder, &["create", "-f", "-"], MANIFEST).await;
    assert!(made, "{why}");
    let mut shown = String::new();
    for (kind, name) in SHOWN {
        let (ok, out, why) = kubectl(folder, &["get", kind, name, "-o", "wide"], "").await;
        assert!(ok, "{kind}: {why}");
        shown.push_str(&format!("{kind}\n{}\n", steady(&out)));
    }

    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn quotas_are_described_and_their_refusal_is_told() {
    let Some((_fixture, folder)) = start().await else {
        return;
    };
    let folder = folder.path();
    let (made, _, why) = kubectl(folder, &["create", "-f", "-"], MANIFEST).await;
    assert!(made, "{why}");

    let (_, described, _) = kubectl(folder, &["describe", "quota", "quota"], "").await;
    let (created, _, refused) = kubectl(folder, &["create", "configmap", "second"], "").await;
    let (invalid, _, words) = kubectl(folder, &["scale", "deployment", "web", "--replicas=-1"], "").await;
    let (patched, _, immutable) = kubectl(
        folder,
        &[
            "patch",
            "deployment",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"selector":{"matchLabels":{"app":"db"}}}}"#,
        ],
        "",
    )
    .await;

    assert!(steady(&described).contains("configmaps 2 2"), "{described}");
    assert!(!created && !invalid && !patched);
    assert_eq!(
        refused.trim(),
        "error: failed to create configmap: configmaps \"second\" is forbidden: exceeded quota: quota, requested: \
         configmaps=1, used: configmaps=2, limited: configmaps=2"
    );
    assert!(
        words.contains("must be greater than or equal to 0") || words.contains("replicas"),
        "{words}"
    );
    assert!(immutable.contains("spec.selector: Invalid value:"), "{immutable}");
    assert!(immutable.contains("field is immutable"), "{immutable}");
}

/// Without what differs from run to run: moments, ages, addresses.
fn steady(table: &str) -> String {
    let word = |word: &str| -> String {
        let is_age = word.ends_with(['s', 'm'])
            && word.starts_with(|first: char| first.is_ascii_digit())
            && word
                .chars()
                .all(|letter| letter.is_ascii_digit() || "smh".contains(letter));
        let uid = "batch.kubernetes.io/controller-uid=";
        if word.starts_with(uid) {
            return format!("{uid}UID");
        }
        let is_moment = word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
        let is_address = word.parse::<std::net::Ipv4Addr>().is_ok() && !word.starts_with("10.1.");
        match (is_age, is_moment, is_address) {
            (true, ..) => "AGE".to_owned(),
            (_, true, _) => "TIME".to_owned(),
            (.., true) => "ADDRESS".to_owned(),
            _ => word.to_owned(),
        }
    };
    table
        .lines()
        .map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" "))
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
