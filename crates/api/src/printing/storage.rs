//! Volumes, claims and classes.

use serde_json::{Value, json};

use super::{Column, Printer, age, boolean, column, list, name, number, or, text, wide};

/// `RWO,ROX`, each once.
fn access_modes(modes: &Value) -> String {
    let has = |mode: &str| list(modes).iter().any(|candidate| candidate == mode);
    let short: Vec<&str> = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(mode, _)| has(mode))
    .map(|(_, short)| short)
    .collect();
    short.join(",")
}

fn phase(object: &Value) -> &str {
    if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else {
        text(&object["status"]["phase"])
    }
}

fn class(object: &Value) -> &str {
    let annotated = text(&object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]);
    or(annotated, text(&object["spec"]["storageClassName"]))
}

pub(super) const VOLUMES: Printer = Printer {
    columns: &[
        column("Name"),
        column("Capacity"),
        column("Access Modes"),
        column("Reclaim Policy"),
        column("Status"),
        column("Claim"),
        column("StorageClass"),
        column("VolumeAttributesClass"),
        column("Reason"),
        column("Age"),
        wide("VolumeMode"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let claim = &spec["claimRef"];
        let claim = if claim.is_null() {
            String::new()
        } else {
            format!("{}/{}", text(&claim["namespace"]), text(&claim["name"]))
        };
        vec![
            name(object),
            json!(or(text(&spec["capacity"]["storage"]), "0")),
            json!(access_modes(&spec["accessModes"])),
            json!(text(&spec["persistentVolumeReclaimPolicy"])),
            json!(phase(object)),
            json!(claim),
            json!(class(object)),
            json!(or(text(&spec["volumeAttributesClassName"]), "<unset>")),
            json!(text(&object["status"]["reason"])),
            age(object, now),
            json!(or(text(&spec["volumeMode"]), "<unset>")),
        ]
    },
};

pub(super) const CLAIMS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Status"),
        column("Volume"),
        column("Capacity"),
        column("Access Modes"),
        column("StorageClass"),
        column("VolumeAttributesClass"),
        column("Age"),
        wide("VolumeMode"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let bound = !text(&spec["volumeName"]).is_empty();
        let (capacity, modes) = if bound {
            let capacity = or(text(&status["capacity"]["storage"]), "0");
            (capacity, access_modes(&status["accessModes"]))
        } else {
            ("", String::new())
        };
        vec![
            name(object),
            json!(phase(object)),
            json!(text(&spec["volumeName"])),
            json!(capacity),
            json!(modes),
            json!(class(object)),
            json!(or(text(&spec["volumeAttributesClassName"]), "<unset>")),
            age(object, now),
            json!(or(text(&spec["volumeMode"]), "<unset>")),
        ]
    },
};

const CLASS_COLUMNS: [Column; 6] = [
    column("Name"),
    column("Provisioner"),
    column("ReclaimPolicy"),
    column("VolumeBindingMode"),
    column("AllowVolumeExpansion"),
    column("Age"),
];

pub(super) const CLASSES: Printer = Printer {
    columns: &CLASS_COLUMNS,
    cells: |object, now| {
        let default = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ]
        .into_iter()
        .any(|annotation| object["metadata"]["annotations"][annotation] == "true");
        let mut shown = text(&object["metadata"]["name"]).to_owned();
        if default {
            shown.push_str(" (default)");
        }
        vec![
            json!(shown),
            json!(text(&object["provisioner"])),
            json!(or(text(&object["reclaimPolicy"]), "Delete")),
            json!(or(text(&object["volumeBindingMode"]), "<unset>")),
            json!(object["allowVolumeExpansion"] == true),
            age(object, now),
        ]
    },
};

pub(super) const CSI_NODES: Printer = Printer {
    columns: &[column("Name"), number("Drivers"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            json!(list(&object["spec"]["drivers"]).len()),
            age(object, now),
        ]
    },
};

pub(super) const CSI_DRIVERS: Printer = Printer {
    columns: &[
        column("Name"),
        boolean("AttachRequired"),
        boolean("PodInfoOnMount"),
        boolean("StorageCapacity"),
        column("TokenRequests"),
        boolean("RequiresRepublish"),
        column("Modes"),
        column("Age"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let tokens = match spec["tokenRequests"].as_array() {
            None => "<unset>".to_owned(),
            Some(tokens) => {
                let audiences: Vec<&str> = tokens.iter().map(|token| text(&token["audience"])).collect();
                audiences.join(",")
            }
        };
        let modes: Vec<&str> = list(&spec["volumeLifecycleModes"]).iter().map(text).collect();
        vec![
            name(object),
            json!(spec["attachRequired"] != false),
            json!(spec["podInfoOnMount"] == true),
            json!(spec["storageCapacity"] == true),
            json!(tokens),
            json!(spec["requiresRepublish"] == true),
            json!(or(&modes.join(","), "<none>")),
            age(object, now),
        ]
    },
};

pub(super) const ATTACHMENTS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Attacher"),
        column("PV"),
        column("Node"),
        boolean("Attached"),
        column("Age"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        vec![
            name(object),
            json!(text(&spec["attacher"])),
            json!(text(&spec["source"]["persistentVolumeName"])),
            json!(text(&spec["nodeName"])),
            json!(object["status"]["attached"] == true),
            age(object, now),
        ]
    },
};

pub(super) const ATTRIBUTES_CLASSES: Printer = Printer {
    columns: &[column("Name"), column("DriverName"), column("Age")],
    cells: |object, now| vec![name(object), json!(text(&object["driverName"])), age(object, now)],
};
