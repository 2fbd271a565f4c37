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
    check_origin(check, path, spec);
    let attributes = text(&spec["volumeAttributesClassName"]);
    if !attributes.is_empty() {
        let problems = names::dns1123_subdomain(attributes);
        check.named(&path.field("volumeAttributesClassName"), attributes, problems);
    }
}

/// What a claim's volume is filled with at first.
fn check_origin(check: &mut Check, path: &Path, spec: &Value) {
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    for (field, origin) in [("dataSource", source), ("dataSourceRef", reference)] {
        if origin.is_null() {
            continue;
        }
        let path = path.field(field);
        for field in ["name", "kind"] {
            check.present(&path.field(field), &origin[field]);
        }
        let (group, kind) = (text(&origin["apiGroup"]), text(&origin["kind"]));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            check.invalid(&path, kind, detail);
        }
        if !group.is_empty() {
            check.named(&path.field("apiGroup"), group, names::dns1123_subdomain(group));
        }
        let namespace = text(&origin["namespace"]);
        if !namespace.is_empty() {
            check.named(&path.field("namespace"), namespace, names::dns1123_label(namespace));
        }
    }
    if source.is_null() {
        return;
    }
    let own = path.field("dataSource").to_string();
    if !text(&reference["namespace"]).is_empty() {
        check.invalid(
            path,
            own,
            "may not be specified when dataSourceRef.namespace is specified",
        );
    } else if !reference.is_null() {
        let same = |field: &str| text(&source[field]) == text(&reference[field]);
        if !["apiGroup", "kind", "name"].into_iter().all(same) {
            check.invalid(path, own, "must match dataSourceRef");
        }
    }
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
    check.immutable(
        &Path::ROOT.field("volumeMode"),
        &spec["volumeMode"],
        &old["spec"]["volumeMode"],
    );
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
            volume::check_shared_source(check, &path.field(first), first, &spec[*first]);
            check_own_source(check, &path.field(first), first, spec);
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

/// What only persistent volumes have, or have in another form.
fn check_own_source(check: &mut Check, path: &Path, kind: &str, spec: &Value) {
    let source = &spec[kind];
    match kind {
        "hostPath" if source["path"] == "/" && spec["persistentVolumeReclaimPolicy"] == "Recycle" => {
            let path = Path::ROOT.field("spec");
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            check.forbidden(&path.field("persistentVolumeReclaimPolicy"), detail);
        }
        "local" if check.present(&path.field("path"), &source["path"]) => {
            volume::no_way_up(check, &path.field("path"), text(&source["path"]));
        }
        "csi" => {
            check.present(&path.field("volumeHandle"), &source["volumeHandle"]);
            for secret in [
                "controllerPublishSecretRef",
                "controllerExpandSecretRef",
                "nodePublishSecretRef",
                "nodeExpandSecretRef",
            ] {
                if !source[secret].is_null() {
                    let path = path.field(secret);
                    for field in ["name", "namespace"] {
                        check.required_name(&path.field(field), &source[secret][field], names::dns1123_subdomain);
                    }
                }
            }
        }
        _ => {}
    }
}

const PARAMETERS_MAX: usize = 512;

const PARAMETERS_BYTES_MAX: usize = 256 * 1024;

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
    let parameters = field("parameters");
    let (mut count, mut size) = (0, 0);
    for (key, value) in entries(&class["parameters"]) {
        count += 1;
        size += key.len() + text(value).len();
        if key.is_empty() {
            check.invalid(&parameters, key.as_str(), "field can not be empty.");
        }
    }
    if count > PARAMETERS_MAX {
        check
            .causes
            .push(crate::field::too_many(&parameters, count, PARAMETERS_MAX));
    }
    if size > PARAMETERS_BYTES_MAX {
        check
            .causes
            .push(crate::field::too_long(&parameters, PARAMETERS_BYTES_MAX));
    }
    if let Some(old) = old {
        for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            check.immutable(&field(name), &class[name], &old[name]);
        }
    }
}
