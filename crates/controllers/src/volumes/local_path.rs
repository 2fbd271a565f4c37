//! The built-in provisioner: a volume is a directory on one node, made and removed by the node's agent.

use api::Object;
use serde_json::{Value, json};

pub const PROVISIONER: &str = "mangrove.io/local-path";
pub const CLASS: &str = "local-path";
/// Holds a volume until its directory is gone; taken away by the node's agent.
pub const DIRECTORY: &str = "volume.mangrove.io/directory";
/// On a Node: where it keeps such directories, if not in the usual place.
const ROOT: &str = "volume.mangrove.io/local-path-root";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The class that every cluster has; the default one, and shown to planes without volumes of their own.
pub fn class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            "labels": {"tenancy.mangrove.io/public": "true"}},
        "provisioner": PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
    })
}

pub fn volume_name(claim: &Object) -> String {
    format!("pvc-{}", claim.uid())
}

/// A volume for `claim` on `node`; or why there can be none.
pub fn volume(claim: &Object, class: &Object, node: &Object, usual_root: &str) -> Result<Value, String> {
    let (wants, class_tree) = (&claim.tree()["spec"], class.tree());
    if wants["volumeMode"] == "Block" {
        return Err("a local path is a directory and cannot be a block device".to_owned());
    }
    let modes = wants["accessModes"].as_array().map_or(&[][..], Vec::as_slice);
    if modes
        .iter()
        .any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
    {
        return Err(
            "a local path can be used on one node only: ReadWriteOnce and ReadWriteOncePod are supported".to_owned(),
        );
    }
    let Some(host) = node.tree()["metadata"]["labels"][HOSTNAME].as_str() else {
        return Err(format!("node {} has no label {HOSTNAME}", node.name()));
    };
    let name = volume_name(claim);
    let root = node.annotation(ROOT).unwrap_or(usual_root).trim_end_matches('/');
    // The name says to people whose it is; the uid alone makes it unique.
    let path = format!("{root}/{name}_{}_{}", claim.namespace(), claim.name());
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": [DIRECTORY],
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": wants["resources"]["requests"]["storage"]},
            "accessModes": wants["accessModes"], "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": class_tree["reclaimPolicy"].as_str().unwrap_or("Delete"),
            "storageClassName": class.name(),
            "claimRef": super::plan::reference(claim),
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": HOSTNAME, "operator": "In", "values": [host]}]}]}},
        },
    });
    if class_tree["mountOptions"].is_array() {
        volume["spec"]["mountOptions"] = class_tree["mountOptions"].clone();
    }
    Ok(volume)
}

/// Whether we made a volume, and have it removed.
pub fn is_ours(volume: &Object) -> bool {
    volume.annotation("pv.kubernetes.io/provisioned-by") == Some(PROVISIONER)
}

/// The host on which a volume's directory is.
pub fn host(volume: &Object) -> Option<&str> {
    let required = &volume.tree()["spec"]["nodeAffinity"]["required"];
    required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0].as_str()
}

pub fn is_on(node: &Object, host: &str) -> bool {
    node.tree()["metadata"]["labels"][HOSTNAME] == host
}
