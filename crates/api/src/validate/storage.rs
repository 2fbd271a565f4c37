//! Volumes, claims and classes.

use serde_json::Value;

use super::{
    check::{Check, entries, list, text},
    scheduling, volume,
};
use crate::{field::Path, names, quantity::Quantity};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn check_access_modes(check: &mut Check, path: &Path, modes: &Value) {
    for mode in list(modes) {
        if !ACCESS_MODES.contains(&text(mode)) {
            check.not_supported(path, mode.clone(), &ACCESS_MODES);
        }
    }
    let alone = list(modes).iter().any(|mode| mode == "ReadWriteOncePod");
    if alone && list(modes).iter().any(|mode| mode != "ReadWriteOncePod") {
        check.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn check_size(check: &mut Check, path: &Path, size: &Value) {
    match Quantity::from_json(size) {
        None => check.required(path, ""),
        Some(size) if size <= Quantity::ZERO => {
            check.invalid(path, size.to_string(), "must be greater than zero");
        }
        Some(size) if !size.is_integer() => check.invalid(path, size.to_string(), "must be an integer"),
        Some(_) => {}
    }
}

pub fn check_claim_spec(check: &mut Check, path: &Path, spec: &Value) {
    let modes = path.field("accessModes");
    if list(&spec["accessModes"]).is_empty() {
        check.required(&modes, "at least 1 access mode is required");
    }
    check.label_selector(&path.field("selector"), &spec["selector"]);
    check_access_modes(check, &modes, &spec["accessModes"]);
    let resources = path.field("resources");
    check_size(
        check,
        &resources.key("storage"),
        &spec["resources"]["requests"]["storage"],
    );
    let class = text(&spec["storageClassName"]);
    if !class.is_empty() {
        check.named(&path.field("storageClassName"), class, names::dns1123_subdomain(class));
    }
    check.one_of_or_none(&path.field("volumeMode"), &spec["volumeMode"], &["Block", "Filesystem"]);
}

pub fn check_claim(check: &mut Check, claim: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &claim["spec"];
    check_claim_spec(check, &path, spec);
    let Some(old) = old else { return };
    let bound = old["status"]["phase"] == "Bound";
    let mut munged = spec.clone();
    if let Some(fields) = munged.as_object_mut() {
        let was = |field: &str| old["spec"].get(field).cloned();
        let mut put_back = |field: &str, allowed: bool| {
            if allowed {
                match was(field) {
                    Some(value) => fields.insert(field.to_owned(), value),
                    None => fields.remove(field),
                };
            }
        };
        put_back("volumeName", text(&old["spec"]["volumeName"]).is_empty());
        put_back("storageClassName", old["spec"]["storageClassName"].is_null());
        put_back("resources", bound);
        put_back("volumeAttributesClassName", bound);
    }
    if munged != old["spec"] {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims\n";
        check.forbidden(&path, detail);
    }
    let size = |claim: &Value, field: &str| Quantity::from_json(&claim.pointer(field).cloned().unwrap_or_default());
    let new_size = size(claim, "/spec/resources/requests/storage");
    let shrinks = new_size < size(old, "/spec/resources/requests/storage");
    if shrinks && new_size <= size(old, "/status/capacity/storage") {
        let resources = path.field("resources");
        let requests = resources.field("requests");
        check.forbidden(&requests.field("storage"), "field can not be less than status.capacity");
    }
}

const SOURCES: [&str; 23] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
    "image",
];

pub fn check_volume(check: &mut Check, volume: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &volume["spec"];
    let modes = path.field("accessModes");
    if list(&spec["accessModes"]).is_empty() {
        check.required(&modes, "");
    }
    check_access_modes(check, &modes, &spec["accessModes"]);
    let capacity = path.field("capacity");
    if entries(&spec["capacity"]).next().is_none() {
        check.required(&capacity, "");
    } else if spec["capacity"].get("storage").is_none() {
        let names: Vec<&str> = entries(&spec["capacity"]).map(|(name, _)| name.as_str()).collect();
        check.not_supported(&capacity, serde_json::json!(names), &["storage"]);
    } else {
        check_size(check, &capacity.key("storage"), &spec["capacity"]["storage"]);
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = path.field("persistentVolumeReclaimPolicy");
    check.one_of_or_none(&policy, &spec["persistentVolumeReclaimPolicy"], &policies);
    let present: Vec<&str> = SOURCES.into_iter().filter(|source| !spec[*source].is_null()).collect();
    match present.as_slice() {
        [] => check.required(&path, "must specify a volume type"),
        [first, rest @ ..] => {
            if *first == "hostPath" {
                volume::check_host_path(check, &path.field("hostPath"), &spec["hostPath"]);
            }
            for source in rest {
                check.forbidden(&path.field(source), "may not specify more than 1 volume type");
            }
        }
    }
    let class = text(&spec["storageClassName"]);
    if !class.is_empty() {
        check.named(&path.field("storageClassName"), class, names::dns1123_subdomain(class));
    }
    check.one_of_or_none(&path.field("volumeMode"), &spec["volumeMode"], &["Block", "Filesystem"]);
    let affinity = path.field("nodeAffinity");
    let required = &spec["nodeAffinity"]["required"];
    if !spec["nodeAffinity"].is_null() {
        if required.is_null() {
            check.required(&affinity.field("required"), "must specify required node constraints");
        } else {
            scheduling::check_node_selector(check, &affinity.field("required"), required);
        }
    } else if !spec["local"].is_null() {
        check.required(&affinity, "Local volume requires node affinity");
    }
    if let Some(old) = old {
        if SOURCES.iter().any(|source| spec[*source] != old["spec"][*source]) {
            let detail = "spec.persistentvolumesource is immutable after creation\n";
            check.forbidden(&path.field("persistentvolumesource"), detail);
        }
        check.immutable(
            &Path::ROOT.field("volumeMode"),
            &spec["volumeMode"],
            &old["spec"]["volumeMode"],
        );
    }
}

pub fn check_class(check: &mut Check, class: &Value, old: Option<&Value>) {
    let field = |name| Path::ROOT.field(name);
    let provisioner = text(&class["provisioner"]);
    if provisioner.is_empty() {
        check.required(&field("provisioner"), provisioner);
    } else {
        check.named(
            &field("provisioner"),
            provisioner,
            names::qualified_name(&provisioner.to_lowercase()),
        );
    }
    check.one_of_or_none(&field("reclaimPolicy"), &class["reclaimPolicy"], &["Delete", "Retain"]);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    check.one_of(&field("volumeBindingMode"), &class["volumeBindingMode"], &modes);
    if let Some(old) = old {
        for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            check.immutable(&field(name), &class[name], &old[name]);
        }
    }
}
