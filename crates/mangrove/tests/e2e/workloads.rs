//! What people do with Deployments, Pods, volumes, namespaces and kinds of their own; each step in one tenant's plane.

use serde_json::Value;
use testkit::{
    image::ImageBuilder,
    kubectl::Kubectl,
    platform::{Platform, WEB_IMAGE},
    registry::Registry,
    said::Said,
};

use crate::{apply_web, platform_with_image, rolled_out};

#[test]
fn deployments_are_rolled_out_taken_back_scaled_and_deleted_with_all_they_own() {
    let Some(platform) = platform_with_image() else { return };
    let acme = platform.tenant("acme");
    apply_web(&acme);

    a_change_rolls_out_and_can_be_taken_back(&acme);
    scaling_makes_and_ends_pods(&acme);
    a_pod_that_is_deleted_is_replaced(&acme);
    a_pod_that_is_not_ready_gets_no_traffic(&acme);
    deleting_takes_all_that_is_owned(&platform, &acme);

    platform.finish();
}

fn a_change_rolls_out_and_can_be_taken_back(acme: &Kubectl) {
    acme.run(&["set", "env", "deployment/web", "COLOUR=blue"]);
    rolled_out_of(acme, 3);
    let colour = [
        "exec",
        "deployment/web",
        "--",
        "/bin/sh",
        "-c",
        "echo \"colour $COLOUR\"",
    ];
    assert_eq!(acme.run(&colour), "colour blue\n");
    let history = acme.run(&["rollout", "history", "deployment/web"]);
    let revisions: Vec<&str> = history
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert_eq!(revisions, ["1", "2"], "{history}");

    acme.run(&["rollout", "undo", "deployment/web"]);
    rolled_out_of(acme, 3);
    assert_eq!(acme.run(&colour), "colour \n");
    assert_eq!(
        acme.names(&["replicasets"]).len(),
        2,
        "the first ReplicaSet is used again"
    );

    acme.run(&["rollout", "restart", "deployment/web"]);
    rolled_out_of(acme, 3);
    assert_eq!(acme.names(&["replicasets"]).len(), 3);
}

/// Rolled out, and old Pods gone.
#[track_caller]
fn rolled_out_of(acme: &Kubectl, replicas: usize) {
    acme.run(&["rollout", "status", "deployment/web", "--timeout=100s"]);
    acme.until("old Pods go", |acme| {
        (acme.names(&["pods", "-l", "app=web"]).len() == replicas).then_some(())
    });
    rolled_out(acme, "web");
}

fn scaling_makes_and_ends_pods(acme: &Kubectl) {
    for replicas in [5, 1, 3] {
        acme.run(&["scale", "deployment/web", &format!("--replicas={replicas}")]);
        rolled_out_of(acme, replicas);
        let endpoints = acme.until("endpoints follow", |acme| {
            let slices = acme.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web"]);
            let count = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
            (count == replicas).then_some(count)
        });
        assert_eq!(endpoints, replicas);
    }
}

fn a_pod_that_is_deleted_is_replaced(acme: &Kubectl) {
    let before = acme.names(&["pods", "-l", "app=web"]);
    let mut watch = acme.follow(&["get", "pods", "-l", "app=web", "-w"]);
    watch.wait_for(&before[0]);
    acme.run(&["delete", "pod", &before[0]]);
    watch.wait_for("Terminating");
    watch.wait_for("ContainerCreating");
    watch.wait_for("1/1");
    rolled_out_of(acme, 3);
    let after = acme.names(&["pods", "-l", "app=web"]);
    assert!(!after.contains(&before[0]));
    assert_eq!(after.iter().filter(|pod| before.contains(pod)).count(), 2);
}

fn a_pod_that_is_not_ready_gets_no_traffic(acme: &Kubectl) {
    let pod = acme.names(&["pods", "-l", "app=web"])[0].clone();
    let address = acme.field(&["pod", &pod], ".status.podIP");
    // Its page goes, and with it what the probe asks for.
    let patch = r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/readinessProbe/httpGet/path", "value": "/nothing"},
        {"op": "replace", "path": "/spec/template/metadata/labels/app", "value": "sick"},
        {"op": "replace", "path": "/spec/selector/matchLabels/app", "value": "sick"},
        {"op": "replace", "path": "/metadata/name", "value": "sick"}]"#;
    let web = acme.json(&["get", "deployment", "web"]);
    let mut sick = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": web["spec"]});
    for step in serde_json::from_str::<Vec<Value>>(patch).unwrap() {
        *sick.pointer_mut(step["path"].as_str().unwrap()).unwrap() = step["value"].clone();
    }
    sick["spec"]["replicas"] = 1.into();
    acme.apply(&sick.to_string());
    let service = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sick"},
        "spec": {"selector": {"app": "sick"}, "ports": [{"port": 80, "targetPort": "http"}]}}"#;
    acme.apply(service);

    acme.until("the tenant hears of the failed probe", |acme| {
        let events = acme.run(&[
            "get",
            "events",
            "--field-selector",
            "reason=Unhealthy",
            "-o",
            "jsonpath={.items[*].message}",
        ]);
        events.contains("Readiness probe failed").then_some(())
    });
    let ready = acme.field(
        &["pods", "-l", "app=sick"],
        ".items[0].status.containerStatuses[0].ready",
    );
    assert_eq!(ready, "false");
    let slices = acme.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=sick"]);
    let endpoint = &slices["items"][0]["endpoints"][0];
    assert_eq!(endpoint["conditions"]["ready"], false, "{slices:#}");
    assert_ne!(endpoint["addresses"][0], address.as_str());
    let status = acme.run(&[
        "get",
        "deployment",
        "sick",
        "-o",
        "jsonpath={.status.unavailableReplicas}",
    ]);
    assert_eq!(status, "1");
    // Nobody answers for it: refused at once, and not a silence.
    let fetch = ["exec", "deployment/web", "--", "wget", "-q", "-O", "-", "http://sick/"];
    let complaint = acme.refused(&fetch);
    assert!(complaint.contains("refused"), "{complaint}");
    acme.run(&["delete", "deployment/sick", "service/sick"]);
}

fn deleting_takes_all_that_is_owned(platform: &Platform, acme: &Kubectl) {
    acme.run(&["delete", "deployment", "web"]);
    acme.until("ReplicaSets and Pods go", |acme| {
        acme.names(&["replicasets,pods"]).is_empty().then_some(())
    });
    let root = platform.root();
    root.until("super Pods go", |root| {
        root.names(&["pods", "-A"]).is_empty().then_some(())
    });
    assert!(
        acme.names(&["configmaps"]).contains(&"web-page".to_owned()),
        "what it did not own stays"
    );
}

#[test]
fn pods_fail_wait_and_read_what_they_are_given_and_their_tenant_sees_why() {
    let Some(platform) = platform_with_image() else { return };
    let acme = platform.tenant("acme");

    a_pod_that_keeps_failing_backs_off(&acme);
    init_containers_go_first_and_a_job_like_pod_ends(&acme);
    volumes_hold_what_the_manifest_names(&acme);
    a_pod_that_names_what_is_not_there_says_so(&acme);
    an_image_comes_from_a_registry(&acme);
    a_namespace_goes_with_all_it_holds(&platform, &acme);
    kinds_of_ones_own_are_checked_by_their_schema(&acme);
    what_is_not_done_yet_is_refused_clearly(&acme);

    platform.finish();
}

fn a_pod_that_keeps_failing_backs_off(acme: &Kubectl) {
    acme.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: failing}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: "mangrove.test/web:1", command: ["/bin/sh", "-c", "echo last words; exit 3"]}
"#,
    );
    acme.until("it backs off", |acme| {
        let reason = acme.field(&["pod", "failing"], ".status.containerStatuses[0].state.waiting.reason");
        (reason == "CrashLoopBackOff").then_some(())
    });
    let status = acme.json(&["get", "pod", "failing"])["status"]["containerStatuses"][0].clone();
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3, "{status:#}");
    assert!(status["restartCount"].as_u64() >= Some(1), "{status:#}");
    let table = acme.run(&["get", "pod", "failing"]);
    assert!(table.contains("CrashLoopBackOff"), "{table}");
    assert_eq!(acme.run(&["logs", "failing", "--previous"]), "last words\n");
    acme.until("an Event says so", |acme| {
        let events = acme.run(&["events", "--for", "pod/failing"]);
        events.contains("BackOff").then_some(())
    });
    let described = acme.run(&["describe", "pod", "failing"]);
    assert!(
        described.contains("Back-off restarting failed container"),
        "{described}"
    );
    acme.run(&["delete", "pod", "failing"]);
}

fn init_containers_go_first_and_a_job_like_pod_ends(acme: &Kubectl) {
    acme.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: first, image: "mangrove.test/web:1", command: ["/bin/sh", "-c", "echo written first > /desk/note"], volumeMounts: [{name: desk, mountPath: /desk}]}
  containers:
  - {name: main, image: "mangrove.test/web:1", command: ["cat", "/desk/note"], volumeMounts: [{name: desk, mountPath: /desk}]}
  volumes: [{name: desk, emptyDir: {}}]
"#,
    );
    acme.run(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/once",
        "--timeout=60s",
    ]);
    assert_eq!(acme.run(&["logs", "once"]), "written first\n");
    acme.run(&["delete", "pod", "once"]);
}

fn volumes_hold_what_the_manifest_names(acme: &Kubectl) {
    acme.apply(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, "nested.conf": "a=1\nb=2\n"}
binaryData: {bytes: AAEC/w==}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: tr0ub4dor}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {app: reader}, annotations: {note: from the manifest}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: mangrove.test/web:1
    command: ["sleep", "1000"]
    envFrom: [{configMapRef: {name: settings}, prefix: FROM_}, {secretRef: {name: keys}}]
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: keys, mountPath: /keys}
    - {name: all, mountPath: /all}
    - {name: one, mountPath: /one/file, subPath: nested.conf}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: one, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - name: all
    projected:
      sources:
      - {configMap: {name: settings, items: [{key: colour, path: paint/colour}]}}
      - {secret: {name: keys}}
      - {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: annotations, fieldRef: {fieldPath: metadata.annotations}}]}}
"#,
    );
    acme.run(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]);
    let read = |words: &str| acme.run(&["exec", "reader", "--", "/bin/sh", "-c", words]);
    assert_eq!(read("cat /settings/colour"), "blue");
    assert_eq!(read("cat /settings/nested.conf"), "a=1\nb=2\n");
    assert_eq!(read("od -An -tx1 /settings/bytes").trim(), "00 01 02 ff");
    assert_eq!(
        read("cat /keys/password; stat -L -c ' %a' /keys/password"),
        "tr0ub4dor 400\n"
    );
    assert_eq!(
        read("cat /all/paint/colour /all/password /all/name"),
        "bluetr0ub4dorreader"
    );
    assert_eq!(read("cat /all/labels"), "app=\"reader\"");
    let annotations = read("cat /all/annotations");
    assert!(annotations.contains("note=\"from the manifest\""), "{annotations}");
    assert!(
        !annotations.contains("tenancy.mangrove.io"),
        "what is below is not the tenant's: {annotations}"
    );
    assert_eq!(read("cat /one/file"), "a=1\nb=2\n");
    assert_eq!(read("echo $FROM_colour $password"), "blue tr0ub4dor\n");
    assert_eq!(
        read("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"),
        "default"
    );

    // What changes in the plane changes in the Pod.
    acme.run(&[
        "patch",
        "configmap",
        "settings",
        "--type=merge",
        "-p",
        r#"{"data": {"colour": "green"}}"#,
    ]);
    acme.until("the volume follows", |_| {
        (read("cat /settings/colour") == "green").then_some(())
    });
    acme.run(&["delete", "pod/reader", "configmap/settings", "secret/keys"]);
}

fn a_pod_that_names_what_is_not_there_says_so(acme: &Kubectl) {
    acme.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: wanting}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: mangrove.test/web:1
    command: ["sleep", "1000"]
    env: [{name: COLOUR, valueFrom: {configMapKeyRef: {name: later, key: colour}}}]
"#,
    );
    acme.until("it says what is missing", |acme| {
        let events = acme.run(&["events", "--for", "pod/wanting"]);
        let reason = acme.field(&["pod", "wanting"], ".status.containerStatuses[0].state.waiting.reason");
        (events.contains("later") || reason == "CreateContainerConfigError").then_some(())
    });
    acme.run(&["create", "configmap", "later", "--from-literal=colour=red"]);
    acme.run(&["wait", "--for=condition=Ready", "pod/wanting", "--timeout=60s"]);
    assert_eq!(
        acme.run(&["exec", "wanting", "--", "/bin/sh", "-c", "echo $COLOUR"]),
        "red\n"
    );
    acme.run(&["delete", "pod/wanting", "configmap/later"]);
}

fn an_image_comes_from_a_registry(acme: &Kubectl) {
    let mut image = ImageBuilder::busybox("unused:1").expect("busybox-static is installed");
    image
        .file("etc/motd", 0o644, b"a layer that no other image has\n")
        .unwrap();
    let image = image.configure("Cmd", serde_json::json!(["cat", "/etc/motd"]));
    let registry = Registry::serve("team/pulled", "1", &image.build().unwrap()).unwrap();
    let run = |name: &str, image: &str| {
        let image = format!("--image={}/{image}", registry.host());
        acme.run(&[
            "run",
            name,
            &image,
            "--restart=Never",
            "--image-pull-policy=IfNotPresent",
        ]);
    };

    run("pulled", "team/pulled:1");
    acme.run(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/pulled",
        "--timeout=60s",
    ]);
    assert_eq!(acme.run(&["logs", "pulled"]), "a layer that no other image has\n");
    let served = registry.served();
    assert!(
        served >= 3,
        "manifest, configuration and layer were asked for: {served}"
    );
    run("again", "team/pulled:1");
    acme.run(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/again",
        "--timeout=60s",
    ]);
    assert_eq!(registry.served(), served, "an image that is there is not fetched again");

    run("missing", "team/nothing:1");
    acme.until("a missing image is named", |acme| {
        let reason = acme.field(&["pod", "missing"], ".status.containerStatuses[0].state.waiting.reason");
        ["ErrImagePull", "ImagePullBackOff"]
            .contains(&reason.as_str())
            .then_some(())
    });
    acme.run(&["delete", "pod", "pulled", "again", "missing"]);
}

/// A Pod that sleeps, and ends at once when it is told to.
fn sleeper(name: &str, namespace: &str) -> String {
    let container = serde_json::json!({"name": "main", "image": WEB_IMAGE, "command": ["sleep", "1000"]});
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
    .to_string()
}

fn a_namespace_goes_with_all_it_holds(platform: &Platform, acme: &Kubectl) {
    acme.run(&["create", "namespace", "shop"]);
    acme.run(&["create", "configmap", "stock", "-n", "shop"]);
    acme.apply(&sleeper("till", "shop"));
    acme.run(&[
        "wait",
        "--for=condition=Ready",
        "pod/till",
        "-n",
        "shop",
        "--timeout=60s",
    ]);
    assert_eq!(platform.root().names(&["pods", "-A"]), ["till"]);

    acme.run(&["delete", "namespace", "shop", "--timeout=100s"]);

    assert!(!acme.names(&["namespaces"]).contains(&"shop".to_owned()));
    let complaint = acme.refused(&["get", "configmap", "stock", "-n", "shop"]);
    assert!(complaint.contains("NotFound"), "{complaint}");
    let root = platform.root();
    root.until("the super namespace goes", |root| {
        root.names(&["namespaces"])
            .iter()
            .all(|name| !name.contains("shop"))
            .then_some(())
    });
    // The same name again is another namespace.
    acme.run(&["create", "namespace", "shop"]);
    assert_eq!(acme.names(&["configmaps", "-n", "shop"]), ["kube-root-ca.crt"]);
    acme.run(&["delete", "namespace", "shop"]);
}

const WIDGETS: &str = r#"
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
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [size], properties: {size: {type: integer, minimum: 1}, colour: {type: string, default: grey}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

fn kinds_of_ones_own_are_checked_by_their_schema(acme: &Kubectl) {
    acme.apply(WIDGETS);
    acme.run(&[
        "wait",
        "--for=condition=Established",
        "crd/widgets.example.com",
        "--timeout=30s",
    ]);
    let widget = |size: u32| {
        let metadata = serde_json::json!({"name": "one"});
        serde_json::json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata, "spec": {"size": size}})
            .to_string()
    };
    acme.until("the new kind is served", |acme| {
        Said::with_input(&mut acme.command(&["apply", "-f", "-"]), &widget(3))
            .succeeded()
            .then_some(())
    });
    assert_eq!(acme.field(&["widget", "one"], ".spec.colour"), "grey");
    let table = acme.run(&["get", "wd"]);
    assert!(
        table.lines().next().is_some_and(|line| line.contains("SIZE")),
        "{table}"
    );
    let complaint =
        Said::with_input(&mut acme.command(&["apply", "-f", "-", "--validate=false"]), &widget(0)).complaint();
    assert!(
        complaint.contains("spec.size") && complaint.contains("greater than or equal to 1"),
        "{complaint}"
    );
    acme.run(&["delete", "widget", "one"]);
    acme.run(&["delete", "crd", "widgets.example.com"]);
    let complaint = acme.refused(&["get", "widgets"]);
    assert!(
        complaint.contains("could not find the requested resource"),
        "{complaint}"
    );
}

fn what_is_not_done_yet_is_refused_clearly(acme: &Kubectl) {
    let host = r#"{"spec": {"hostNetwork": true}}"#;
    let run = ["run", "host", "--image=mangrove.test/web:1", "--overrides", host];
    acme.run(&run);
    acme.until("the tenant is told that the host's network is not theirs", |acme| {
        let described = acme.run(&["describe", "pod", "host"]);
        described.contains("hostNetwork is not allowed").then_some(())
    });
    acme.run(&["delete", "pod", "host"]);
}
