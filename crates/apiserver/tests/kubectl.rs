//! What the unmodified kubectl sees. Skipped, and said so, where there is none.

mod support;

use std::{path::Path, process::Stdio, time::Duration};

use identity::kubeconfig::{self, Credential, Entry};
use support::{Fixture, at};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

/// kubectl waits for what it asked for; a test should not.
const PATIENCE: Duration = Duration::from_secs(60);

struct Kubectl {
    _fixture: Fixture,
    folder: tempfile::TempDir,
}

struct Said {
    ok: bool,
    out: String,
    err: String,
}

impl Kubectl {
    /// `None` where kubectl is not installed.
    async fn start() -> Option<Kubectl> {
        let version = Command::new("kubectl").args(["version", "--client"]).output().await;
        if version.is_err() {
            println!("skipped: kubectl is not installed");
            return None;
        }
        let fixture = Fixture::start().await;
        let (acme, _) = fixture.plane("acme").await;
        let folder = tempfile::tempdir().unwrap();
        let admin = fixture.user(&acme, "admin", &["system:masters"]);
        let jane = fixture.user(&acme, "jane", &[]);
        for (name, who) in [("admin", admin), ("jane", jane)] {
            let text = kubeconfig::document(&Entry {
                name: name.to_owned(),
                server: format!("https://{}{}", fixture.address, at(acme.id, "")),
                authority_pem: fixture.house.certificate_pem().to_owned(),
                credential: Credential::Certificate(who),
                namespace: None,
            });
            kubeconfig::write(&folder.path().join(name), &text.unwrap()).unwrap();
        }
        Some(Kubectl {
            _fixture: fixture,
            folder,
        })
    }

    fn command(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.folder.path().join(who))
            .env("HOME", self.folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run_as(&self, who: &str, arguments: &[&str]) -> Said {
        let output = tokio::time::timeout(PATIENCE, self.command(who, arguments).output());
        let output = output.await.expect("kubectl ends").unwrap();
        Said {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it as admin; it has to succeed.
    async fn run(&self, arguments: &[&str]) -> String {
        let said = self.run_as("admin", arguments).await;
        assert!(said.ok, "kubectl {}: {}{}", arguments.join(" "), said.out, said.err);
        said.out
    }

    async fn run_with(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self.command("admin", arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "kubectl {}: {out}{err}", arguments.join(" "));
        out.into_owned()
    }
}

const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {colour: green}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: web:1}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_created_applied_changed_shown_and_deleted() {
    let Some(kubectl) = Kubectl::start().await else { return };

    let made = kubectl.run_with(&["create", "-f", "-"], MANIFEST).await;
    assert_eq!(made, "configmap/settings created\ndeployment.apps/web created\n");
    kubectl.run(&["delete", "deployment", "web", "--wait=false"]).await;
    kubectl.run(&["delete", "configmap", "settings"]).await;

    let first = kubectl.run_with(&["apply", "-f", "-"], MANIFEST).await;
    assert_eq!(first, "configmap/settings created\ndeployment.apps/web created\n");
    let second = kubectl.run_with(&["apply", "-f", "-"], MANIFEST).await;
    assert_eq!(second, "configmap/settings unchanged\ndeployment.apps/web unchanged\n");
    let blue = MANIFEST.replace("green", "blue").replace("replicas: 2", "replicas: 3");
    let third = kubectl.run_with(&["apply", "-f", "-"], &blue).await;
    assert_eq!(third, "configmap/settings configured\ndeployment.apps/web configured\n");

    let shown = kubectl.run(&["get", "configmap", "settings"]).await;
    assert!(shown.starts_with("NAME       DATA   AGE\nsettings   1 "), "{shown}");
    let colour = kubectl
        .run(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"])
        .await;
    assert_eq!(colour, "blue");
    let listed = kubectl.run(&["get", "deploy", "-o", "wide"]).await;
    assert!(
        listed.starts_with("NAME   READY   UP-TO-DATE   AVAILABLE   AGE   CONTAINERS   IMAGES   SELECTOR\nweb "),
        "{listed}"
    );
    let labelled = kubectl.run(&["get", "cm", "-l", "app=web", "-o", "name"]).await;
    assert_eq!(labelled, "configmap/settings\n");

    let patch = r#"{"data":{"shape":"round"}}"#;
    kubectl.run(&["patch", "cm", "settings", "-p", patch]).await;
    kubectl.run(&["scale", "deploy", "web", "--replicas=5"]).await;
    kubectl.run(&["label", "cm", "settings", "tier=front"]).await;
    let yaml = kubectl.run(&["get", "cm", "settings", "-o", "yaml"]).await;
    assert!(yaml.contains("shape: round") && yaml.contains("tier: front"), "{yaml}");
    let replicas = kubectl
        .run(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"])
        .await;
    assert_eq!(replicas, "5");

    let gone = kubectl.run(&["delete", "cm", "settings"]).await;
    assert!(gone.starts_with("configmap \"settings\" deleted"), "{gone}");
    let missing = kubectl.run_as("admin", &["get", "cm", "settings"]).await;
    assert!(
        missing
            .err
            .contains("Error from server (NotFound): configmaps \"settings\" not found"),
        "{}",
        missing.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_applied_by_the_server() {
    let Some(kubectl) = Kubectl::start().await else { return };
    let server_side = ["apply", "--server-side", "-f", "-"];
    let deployed = "configmap/settings serverside-applied\ndeployment.apps/web serverside-applied\n";
    let managers = [
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.metadata.managedFields[*].manager}",
    ];

    // What client-side apply wrote becomes the same kubectl's.
    kubectl.run_with(&["apply", "-f", "-"], MANIFEST).await;
    let taken = kubectl
        .run_with(&server_side, &MANIFEST.replace("replicas: 2", "replicas: 3"))
        .await;
    assert_eq!(taken, deployed);
    let now = kubectl.run(&managers).await;
    let mut now: Vec<&str> = now.split(' ').collect();
    now.sort_unstable();
    assert_eq!(now, ["kubectl", "kubectl-last-applied"]);

    // What somebody else changed is theirs, until it is forced.
    kubectl.run(&["scale", "deploy", "web", "--replicas=5"]).await;
    let mut refused = kubectl.command("admin", &server_side);
    let said = run_to_refusal(&mut refused, MANIFEST).await;
    assert!(
        said.starts_with(
            "error: Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: \
             .spec.replicas\nPlease review the fields above"
        ),
        "{said}"
    );
    let forced = [&server_side[..], &["--force-conflicts"]].concat();
    assert_eq!(kubectl.run_with(&forced, MANIFEST).await, deployed);

    // Another manager shares what is equal, and gives up what it no longer says.
    let labels = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, labels: {tier: front}}\n";
    let other = [&server_side[..], &["--field-manager=labeller"]].concat();
    kubectl.run_with(&other, labels).await;
    let shown = kubectl
        .run(&["get", "cm", "settings", "-o", "yaml", "--show-managed-fields"])
        .await;
    assert!(
        shown.contains("manager: labeller") && shown.contains("f:tier: {}"),
        "{shown}"
    );
    let hidden = kubectl.run(&["get", "cm", "settings", "-o", "yaml"]).await;
    assert!(
        !hidden.contains("managedFields") && hidden.contains("tier: front"),
        "{hidden}"
    );
    kubectl.run_with(&other, &labels.replace("tier: front", "")).await;
    let left = kubectl
        .run(&["get", "cm", "settings", "-o", "jsonpath={.metadata.labels}"])
        .await;
    assert_eq!(left, r#"{"app":"web"}"#);
}

async fn run_to_refusal(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_changes_as_they_happen() {
    let Some(kubectl) = Kubectl::start().await else { return };
    let mut child = kubectl
        .command("admin", &["get", "cm", "-w", "-o", "name"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .expect("a change is told");
        line.unwrap()
    };
    assert_eq!(next().await.as_deref(), Some("configmap/kube-root-ca.crt"));

    kubectl.run(&["create", "cm", "one"]).await;
    assert_eq!(next().await.as_deref(), Some("configmap/one"));
    kubectl.run(&["label", "cm", "one", "a=b"]).await;
    assert_eq!(next().await.as_deref(), Some("configmap/one"));

    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_made_with_kubectl_are_obeyed_at_once() {
    let Some(kubectl) = Kubectl::start().await else { return };
    let can = async |verb: &str, resource: &str| {
        kubectl
            .run_as("jane", &["auth", "can-i", verb, resource])
            .await
            .out
            .trim()
            .to_owned()
    };

    assert_eq!(can("list", "pods").await, "no");
    let refused = kubectl.run_as("jane", &["get", "pods"]).await;
    assert_eq!(
        refused.err,
        "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \
         \"\" in the namespace \"default\"\n"
    );
    kubectl
        .run(&[
            "create",
            "role",
            "reader",
            "--verb=get,list,create",
            "--resource=pods,roles.rbac.authorization.k8s.io",
        ])
        .await;
    kubectl
        .run(&["create", "rolebinding", "jane", "--role=reader", "--user=jane"])
        .await;

    assert_eq!(can("list", "pods").await, "yes");
    assert_eq!(can("delete", "pods").await, "no");
    let listed = kubectl.run_as("jane", &["get", "pods"]).await;
    assert_eq!(
        (listed.ok, listed.err.as_str()),
        (true, "No resources found in default namespace.\n")
    );
    let rules = kubectl.run_as("jane", &["auth", "can-i", "--list"]).await;
    assert!(rules.out.contains("pods"), "{}{}", rules.out, rules.err);
    // She may make roles, but none that hold more than she has.
    let more = ["create", "role", "more", "--verb=get", "--resource=secrets"];
    let escalated = kubectl.run_as("jane", &more).await;
    assert!(
        escalated
            .err
            .contains("is attempting to grant RBAC permissions not currently held"),
        "{}",
        escalated.err
    );
    let same = ["create", "role", "same", "--verb=get", "--resource=pods"];
    let given = kubectl.run_as("jane", &same).await;
    assert!(given.ok, "{}", given.err);

    kubectl.run(&["delete", "rolebinding", "jane"]).await;
    assert_eq!(can("list", "pods").await, "no");
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_listed_and_explained() {
    let Some(kubectl) = Kubectl::start().await else { return };

    let resources = kubectl.run(&["api-resources"]).await;
    assert!(resources.lines().count() > 50, "{resources}");
    let versions = kubectl.run(&["api-versions"]).await;
    assert!(
        versions.contains("apps/v1\n") && versions.contains("\nv1\n"),
        "{versions}"
    );
    let explained = kubectl.run(&["explain", "pods.spec.containers"]).await;
    assert!(
        explained.contains("KIND:       Pod") && explained.contains("imagePullPolicy"),
        "{explained}"
    );
    let version = kubectl.run(&["version"]).await;
    assert!(version.contains("Server Version: v1.36"), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_with_kubectl_is_a_credential() {
    let Some(kubectl) = Kubectl::start().await else { return };

    let token = kubectl.run(&["create", "token", "default"]).await;

    let empty = kubectl.folder.path().join("none");
    tokio::fs::write(&empty, "").await.unwrap();
    let server = kubectl
        .run(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])
        .await;
    let who = Command::new("kubectl")
        .env("KUBECONFIG", Path::new(&empty))
        .args([
            "--server",
            &server,
            "--insecure-skip-tls-verify",
            "--token",
            token.trim(),
        ])
        .args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])
        .kill_on_drop(true)
        .output();
    let who = tokio::time::timeout(PATIENCE, who).await.unwrap().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&who.stdout),
        "system:serviceaccount:default:default",
        "{}",
        String::from_utf8_lossy(&who.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_adds_a_resource_at_once() {
    let Some(kubectl) = Kubectl::start().await else { return };
    let definition = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, description: How large it is.}}}
";
    kubectl.run_with(&["apply", "-f", "-"], definition).await;
    kubectl
        .run(&[
            "wait",
            "--for=condition=Established",
            "crd/widgets.example.com",
            "--timeout=30s",
        ])
        .await;

    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: one}\nspec: {size: 3}\n";
    let made = kubectl.run_with(&["apply", "-f", "-"], widget).await;
    assert_eq!(made, "widget.example.com/one created\n");
    let shown = kubectl.run(&["get", "wd"]).await;
    assert_eq!(shown, "NAME   SIZE\none    3\n");
    let explained = kubectl.run(&["explain", "widgets.spec"]).await;
    assert!(explained.contains("How large it is."), "{explained}");
}
