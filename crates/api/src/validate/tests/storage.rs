//! Claims, volumes and classes.

use serde_json::{Value, json};

use super::{created, updated};
use crate::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, Resource, Scope};

fn claim(spec: Value) -> Value {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"metadata": {"name": "c", "namespace": "n"}, "spec": whole})
}

fn volume(spec: Value) -> Value {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"metadata": {"name": "v"}, "spec": whole})
}

#[test]
fn a_claim_says_what_it_wants() {
    for (spec, expected) in [
        (json!({}), vec![]),
        (
            json!({"accessModes": []}),
            vec!["spec.accessModes: Required value: at least 1 access mode is required"],
        ),
        (
            json!({"accessModes": ["ReadWriteOncePod", "ReadWriteMany"]}),
            vec!["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        (
            json!({"resources": {"requests": {"storage": "0"}}}),
            vec!["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
        ),
        (
            json!({"resources": {}}),
            vec!["spec.resources[storage]: Required value"],
        ),
        (
            json!({"dataSource": {"kind": "Snapshot", "name": "s"}}),
            vec![
                "spec.dataSource: Invalid value: \"Snapshot\": must be 'PersistentVolumeClaim' when referencing the \
                 default apiGroup",
            ],
        ),
        (
            json!({
                "dataSource": {"kind": "PersistentVolumeClaim", "name": "a"},
                "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "b"},
            }),
            vec!["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"],
        ),
        (
            json!({"volumeMode": "Tape"}),
            vec!["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
        ),
    ] {
        assert_eq!(
            created(&PERSISTENT_VOLUME_CLAIMS, claim(spec.clone())),
            expected,
            "{spec}"
        );
    }
    let changed = updated(
        &PERSISTENT_VOLUME_CLAIMS,
        claim(json!({"storageClassName": "slow"})),
        claim(json!({"storageClassName": "fast"})),
    );
    assert_eq!(changed.len(), 1);
    assert!(
        changed[0].starts_with("spec: Forbidden: spec is immutable after creation except resources.requests and"),
        "{changed:?}"
    );
}

#[test]
fn a_volume_is_of_one_source() {
    for (spec, expected) in [
        (json!({"hostPath": {"path": "/data"}}), vec![]),
        (json!({}), vec!["spec: Required value: must specify a volume type"]),
        (
            json!({"hostPath": {"path": "/a"}, "nfs": {"server": "s", "path": "/b"}}),
            vec!["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"hostPath": {"path": "/a/../b"}}),
            vec!["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
        ),
        (
            json!({"nfs": {"server": "s", "path": "b"}}),
            vec!["spec.nfs.path: Invalid value: \"b\": must be an absolute path"],
        ),
        (
            json!({"local": {"path": "/disk"}}),
            vec!["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (
            json!({"csi": {"driver": "d.example.com"}}),
            vec!["spec.csi.volumeHandle: Required value"],
        ),
        (
            json!({"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}),
            vec!["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
        ),
        (
            json!({"hostPath": {"path": "/a"}, "capacity": {}}),
            vec!["spec.capacity: Required value"],
        ),
    ] {
        assert_eq!(created(&PERSISTENT_VOLUMES, volume(spec.clone())), expected, "{spec}");
    }
}

#[test]
fn a_class_stays_what_it_is() {
    let kind = Resource::built_in("storage.k8s.io", "v1", "storageclasses", "StorageClass", Scope::Cluster);
    let class = |provisioner: &str, parameter: &str| json!({"metadata": {"name": "c"}, "provisioner": provisioner, "parameters": {"type": parameter}});

    assert_eq!(created(&kind, class("example.com/disk", "ssd")), Vec::<String>::new());
    assert_eq!(created(&kind, class("", "ssd")), ["provisioner: Required value"]);
    assert_eq!(
        updated(
            &kind,
            class("example.com/disk", "ssd"),
            class("example.com/disk", "hdd")
        ),
        ["parameters: Invalid value: {\"type\":\"ssd\"}: field is immutable"]
    );
}

#[test]
fn drivers_are_checked_with_what_nodes_have_of_them() {
    let drivers = Resource::built_in("storage.k8s.io", "v1", "csidrivers", "CSIDriver", Scope::Cluster);
    let nodes = Resource::built_in("storage.k8s.io", "v1", "csinodes", "CSINode", Scope::Cluster);
    let driver = |spec: Value| created(&drivers, json!({"metadata": {"name": "d.example.com"}, "spec": spec}));

    assert_eq!(driver(json!({})), Vec::<String>::new());
    assert_eq!(
        driver(json!({"tokenRequests": [{"audience": "a", "expirationSeconds": 60}, {"audience": "a"}]})),
        [
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\""
        ]
    );
    assert_eq!(
        created(
            &nodes,
            json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d.example.com", "nodeID": ""}]}})
        ),
        ["spec.drivers[0].nodeID: Required value"]
    );
}
