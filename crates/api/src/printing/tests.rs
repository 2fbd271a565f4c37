use serde_json::{Value, json};

use super::*;
use crate::resource::{self, DEPLOYMENTS, ENDPOINTS, EVENTS, NODES, PODS, SERVICES};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn cells(resource: &Resource, mut object: Value) -> Vec<String> {
    object["metadata"]["name"] = json!("one");
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:55:00Z");
    let table = table(resource, &[&object], now(), Include::None);
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells.len(), columns, "as many cells as columns");
    cells
        .iter()
        .map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned))
        .collect()
}

fn pod_status(pod: Value) -> (String, String, String) {
    let cells = cells(&PODS, pod);
    (cells[1].clone(), cells[2].clone(), cells[3].clone())
}

#[test]
fn a_pods_status_tells_its_story() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
    let running = |name: &str| json!({"name": name, "ready": true, "restartCount": 0, "state": {"running": {}}});
    let waiting = |reason: &str| json!({"name": "a", "restartCount": 0, "state": {"waiting": {"reason": reason}}});
    let ended = |code: i64, reason: &str| json!({"name": "a", "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}});
    let initialized = json!([{"type": "Initialized", "status": "True"}]);
    for (status, ready, reason) in [
        (json!({"phase": "Pending"}), "0/2", "Pending"),
        (
            json!({"phase": "Running", "containerStatuses": [running("a"), running("b")]}),
            "2/2",
            "Running",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff"), running("b")]}),
            "1/2",
            "ImagePullBackOff",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running("b")]}),
            "1/2",
            "NotReady",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended(3, "")]}),
            "0/2",
            "ExitCode:3",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended(1, "Error")]}),
            "0/2",
            "Error",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted"),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            "0/2",
            "Init:0/1",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "0/2",
            "Init:Error",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "0/2",
            "Init:CrashLoopBackOff",
        ),
        (
            json!({"phase": "Pending", "conditions": initialized, "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}], "containerStatuses": [waiting("PodInitializing")]}),
            "0/2",
            "PodInitializing",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
        ),
    ] {
        let (found_ready, found_reason, _) = pod_status(json!({"spec": spec, "status": status}));
        assert_eq!(
            (found_ready.as_str(), found_reason.as_str()),
            (ready, reason),
            "{status}"
        );
    }
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:59:00Z"}, "spec": spec, "status": {"phase": "Running"}});
    assert_eq!(pod_status(deleting).1, "Terminating");
}

#[test]
fn restarts_tell_when_the_last_was() {
    let status = json!({"phase": "Running", "containerStatuses": [{
        "name": "a", "ready": true, "restartCount": 3, "state": {"running": {}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:57:00Z"}},
    }]});

    let found = pod_status(json!({"spec": {"containers": [{"name": "a"}]}, "status": status}));

    assert_eq!(found.2, "3 (3m ago)");
}

#[test]
fn a_sidecar_counts_as_a_container() {
    let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
    let status = json!({
        "phase": "Running",
        "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
        "containerStatuses": [{"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}}],
    });

    let found = pod_status(json!({"spec": spec, "status": status}));

    assert_eq!(found, ("2/2".to_owned(), "Running".to_owned(), "1".to_owned()));
}

#[test]
fn other_kinds_have_upstreams_cells() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}});
    assert_eq!(
        cells(
            &DEPLOYMENTS,
            json!({"spec": {"replicas": 3, "template": template, "selector": {"matchLabels": {"app": "web"}}}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
        ),
        ["one", "2/3", "3", "2", "5m", "a,b", "x:1,y", "app=web"]
    );
    assert_eq!(
        cells(
            &SERVICES,
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        ),
        [
            "one",
            "NodePort",
            "10.0.0.1",
            "<none>",
            "80:30080/TCP,53/UDP",
            "5m",
            "<none>"
        ]
    );
    assert_eq!(
        cells(
            &ENDPOINTS,
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
        ),
        ["one", "1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...", "5m"]
    );
    assert_eq!(
        cells(
            &NODES,
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"}}}),
        )[1..5],
        ["Ready,SchedulingDisabled", "control-plane", "5m", "v1.36.0"]
    );
    assert_eq!(
        cells(
            &EVENTS,
            json!({"type": "Warning", "reason": "Failed", "message": " no \n", "involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-01-01T00:59:30Z", "source": {"component": "kubelet", "host": "n"}}),
        )[..7],
        ["30s", "Warning", "Failed", "pod/p", "", "kubelet, n", "no"]
    );
    assert_eq!(
        cells(
            &resource::JOBS,
            json!({"spec": {"completions": 2}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:58:00Z"}})
        )[..4],
        ["one", "Running", "1/2", "2m"]
    );
    assert_eq!(
        cells(&resource::CUSTOM_RESOURCE_DEFINITIONS, json!({})),
        ["one", "2026-01-01T00:55:00Z"]
    );
}

#[test]
fn every_kind_has_as_many_cells_as_columns() {
    for info in crate::table::resources() {
        cells(&info.resource, json!({}));
    }
}

#[test]
fn custom_columns_follow_their_paths() {
    let definition = crate::table::virtual_cluster_definition();
    let columns = Columns::custom(&definition["spec"]["versions"][0]);
    let object = json!({
        "metadata": {"name": "acme", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Ready", "message": "made"},
    });

    let table = columns.table(&[&object], now(), Include::Metadata);

    assert_eq!(table["rows"][0]["cells"], json!(["acme", "Ready", "made", "60m"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["columnDefinitions"][1]["name"], "Phase");
    let bare = Columns::custom(&json!({})).table(&[&object], now(), Include::Object);
    assert_eq!(bare["rows"][0]["cells"], json!(["acme", "60m"]));
    assert_eq!(bare["rows"][0]["object"], object);
}

#[test]
fn a_finished_pods_row_says_so() {
    let pod = json!({"kind": "Pod", "metadata": {}, "status": {"phase": "Succeeded"}});

    let table = table(&PODS, &[&pod], now(), Include::None);

    assert_eq!(table["rows"][0]["conditions"][0]["type"], "Completed");
}

/// The columns of every kind that is served, those of `-o wide` in brackets.
#[test]
fn columns_are_upstreams() {
    let mut lines = Vec::new();
    for info in crate::table::resources().iter().filter(|info| info.is_stored()) {
        let resource = &info.resource;
        let definitions = Columns::of(resource).definitions();
        let columns: Vec<String> = definitions
            .as_array()
            .unwrap()
            .iter()
            .map(|column| match column["priority"].as_i64() {
                Some(0) => column["name"].as_str().unwrap().to_owned(),
                _ => format!("[{}]", column["name"].as_str().unwrap()),
            })
            .collect();
        lines.push(format!(
            "{} {}: {}",
            resource.api_version(),
            resource.plural,
            columns.join(" | ")
        ));
    }
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_a_plane_is_made_of_has_upstreams_cells() {
    let kind = |group: &'static str, plural: &'static str| {
        let info = crate::table::resources()
            .iter()
            .find(|info| info.resource.group == group && info.resource.plural == plural);
        info.unwrap().resource.clone()
    };
    for (resource, object, expected) in [
        (
            kind("storage.k8s.io", "csidrivers"),
            json!({"spec": {"attachRequired": false, "volumeLifecycleModes": ["Persistent", "Ephemeral"]}}),
            vec![
                "one",
                "false",
                "false",
                "false",
                "<unset>",
                "false",
                "Persistent,Ephemeral",
                "5m",
            ],
        ),
        (
            kind("storage.k8s.io", "volumeattachments"),
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}, "status": {"attached": true}}),
            vec!["one", "a", "pv", "n", "true", "5m"],
        ),
        (
            kind("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
            json!({"spec": {"policyName": "p", "paramRef": {"name": "x"}}}),
            vec!["one", "p", "*/x", "5m"],
        ),
        (
            kind("networking.k8s.io", "servicecidrs"),
            json!({"spec": {"cidrs": ["10.0.0.0/8", "fd00::/64"]}}),
            vec!["one", "10.0.0.0/8,fd00::/64", "5m"],
        ),
        (
            kind("networking.k8s.io", "ipaddresses"),
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}}),
            vec!["one", "services/n/s"],
        ),
        (kind("", "limitranges"), json!({}), vec!["one", "2026-01-01T00:55:00Z"]),
        (
            kind("resource.k8s.io", "resourceclaims"),
            json!({"status": {"allocation": {}, "reservedFor": [{}]}}),
            vec!["one", "allocated,reserved", "5m"],
        ),
    ] {
        assert_eq!(cells(&resource, object), expected, "{resource:?}");
    }
}
