//! Volumes, claims and classes.

use serde_json::{Value, json};

use super::{at, inside, pod::round_amounts, set};

pub(super) fn default_volume(volume: &mut Value) {
    set(at(volume, "status"), "phase", "Pending");
    let spec = at(volume, "spec");
    set(spec, "persistentVolumeReclaimPolicy", "Retain");
    set(spec, "volumeMode", "Filesystem");
    if let Some(capacity) = inside(spec, "capacity") {
        round_amounts(capacity);
    }
    if let Some(host) = inside(spec, "hostPath")
        && host["type"].is_null()
    {
        super::set_over(host, "type", "");
    }
    default_volume_source(spec);
}

pub(super) fn default_claim(claim: &mut Value) {
    set(at(claim, "status"), "phase", "Pending");
    let spec = at(claim, "spec");
    set(spec, "volumeMode", "Filesystem");
    if let Some(resources) = inside(spec, "resources") {
        for list in ["limits", "requests"] {
            if let Some(amounts) = inside(resources, list) {
                round_amounts(amounts);
            }
        }
    }
}

/// Sources that Pods' volumes and persistent volumes have alike.
pub(super) fn default_volume_source(volume: &mut Value) {
    if let Some(iscsi) = inside(volume, "iscsi") {
        set(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = inside(volume, "rbd") {
        set(rbd, "pool", "rbd");
        set(rbd, "user", "admin");
        set(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = inside(volume, "azureDisk") {
        set(disk, "cachingMode", "ReadWrite");
        set(disk, "kind", "Shared");
        set(disk, "fsType", "ext4");
        set(disk, "readOnly", false);
    }
    if let Some(scale) = inside(volume, "scaleIO") {
        set(scale, "storageMode", "ThinProvisioned");
        set(scale, "fsType", "xfs");
    }
}

pub(super) fn default_class(class: &mut Value) {
    set(class, "reclaimPolicy", "Delete");
    set(class, "volumeBindingMode", "Immediate");
}

pub(super) fn default_driver(driver: &mut Value) {
    let spec = at(driver, "spec");
    set(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set(spec, field, false);
    }
    set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec["volumeLifecycleModes"].as_array().is_none_or(Vec::is_empty) {
        super::set_over(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}
