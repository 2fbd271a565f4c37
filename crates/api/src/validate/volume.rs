//! Volumes of a Pod and where its containers mount them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{
    check::{Check, list, text},
    env, storage,
};
use crate::{field::Path, names, quantity::Quantity};

/// The volumes that were found in order, by name.
pub type Volumes<'a> = HashMap<&'a str, &'a Value>;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

pub fn check_volumes<'a>(check: &mut Check, path: &Path, volumes: &'a Value) -> Volumes<'a> {
    let mut named = Volumes::new();
    for (at, volume) in list(volumes).iter().enumerate() {
        let path = path.index(at);
        let before = check.causes.len();
        check_source(check, &path, volume);
        let name = text(&volume["name"]);
        check.required_name(&path.field("name"), &volume["name"], names::dns1123_label);
        if named.contains_key(name) {
            check.duplicate(&path.field("name"), name);
        }
        if check.causes.len() == before {
            named.insert(name, volume);
        }
    }
    named
}

fn check_source(check: &mut Check, path: &Path, volume: &Value) {
    let Some(fields) = volume.as_object() else { return };
    let mut count = 0;
    for (kind, source) in fields
        .iter()
        .filter(|(kind, source)| *kind != "name" && !source.is_null())
    {
        let path = path.field(kind);
        count += 1;
        if count > 1 {
            check.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        match kind.as_str() {
            "emptyDir" if Quantity::from_json(&source["sizeLimit"]).is_some_and(|limit| limit.is_negative()) => {
                let detail = "SizeLimit field must be a valid resource quantity";
                check.forbidden(&path.field("sizeLimit"), detail);
            }
            "secret" => {
                check.present(&path.field("secretName"), &source["secretName"]);
                check_files(check, &path, source);
            }
            "configMap" => {
                check.present(&path.field("name"), &source["name"]);
                check_files(check, &path, source);
            }
            "downwardAPI" => check_downward(check, &path, source),
            "projected" => check_projected(check, &path, source),
            "persistentVolumeClaim" => {
                check.present(&path.field("claimName"), &source["claimName"]);
            }
            "image" => {
                check.present(&path.field("reference"), &source["reference"]);
                let pulls = ["Always", "IfNotPresent", "Never"];
                check.one_of(&path.field("pullPolicy"), &source["pullPolicy"], &pulls);
            }
            "ephemeral" => {
                let template_path = path.field("volumeClaimTemplate");
                let template = &source["volumeClaimTemplate"];
                if template.is_null() {
                    check.required(&template_path, "");
                } else {
                    storage::check_claim_spec(check, &template_path.field("spec"), &template["spec"]);
                }
            }
            "gitRepo" => {
                check.present(&path.field("repository"), &source["repository"]);
            }
            _ => {
                check_shared_source(check, &path, kind, source);
                if kind == "csi" && !source["nodePublishSecretRef"].is_null() {
                    let secret = path.field("nodePublishSecretRef");
                    check.present(&secret.field("name"), &source["nodePublishSecretRef"]["name"]);
                }
            }
        }
    }
    if count == 0 {
        check.required(path, "must specify a volume type");
    }
}

/// What the names of drivers may be long.
const DRIVER_BYTES_MAX: usize = 63;

pub fn check_driver_name(check: &mut Check, path: &Path, driver: &Value) {
    if check.present(path, driver) {
        let driver = text(driver);
        if driver.len() > DRIVER_BYTES_MAX {
            check.causes.push(crate::field::too_long(path, DRIVER_BYTES_MAX));
        }
        check.named(path, driver, names::dns1123_subdomain(&driver.to_lowercase()));
    }
}

/// Sources that Pods' volumes and persistent volumes have alike.
pub fn check_shared_source(check: &mut Check, path: &Path, kind: &str, source: &Value) {
    match kind {
        "hostPath" => check_host_path(check, path, source),
        "nfs" => {
            check.present(&path.field("server"), &source["server"]);
            check.present(&path.field("path"), &source["path"]);
            if !text(&source["path"]).starts_with('/') {
                check.invalid(&path.field("path"), text(&source["path"]), "must be an absolute path");
            }
        }
        "csi" => {
            check_driver_name(check, &path.field("driver"), &source["driver"]);
        }
        "iscsi" => {
            check.present(&path.field("targetPortal"), &source["targetPortal"]);
            check.present(&path.field("iqn"), &source["iqn"]);
        }
        _ => {}
    }
}

fn check_host_path(check: &mut Check, path: &Path, source: &Value) {
    if !check.present(&path.field("path"), &source["path"]) {
        return;
    }
    no_way_up(check, &path.field("path"), text(&source["path"]));
    let kinds = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    check.one_of_or_none(&path.field("type"), &source["type"], &kinds);
}

pub fn no_way_up(check: &mut Check, path: &Path, target: &str) {
    if target.split('/').any(|step| step == "..") {
        check.invalid(path, target, "must not contain '..'");
    }
}

fn relative(check: &mut Check, path: &Path, target: &str) {
    if target.starts_with('/') {
        check.invalid(path, target, "must be a relative path");
    }
    no_way_up(check, path, target);
}

/// A path below a volume that the kubelet does not keep for itself.
fn below_volume(check: &mut Check, path: &Path, target: &str) {
    relative(check, path, target);
    if target.starts_with("..") && !target.starts_with("../") {
        check.invalid(path, target, "must not start with '..'");
    }
}

fn check_mode(check: &mut Check, path: &Path, mode: &Value) {
    if let Some(mode) = mode.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        check.invalid(path, mode, FILE_MODE);
    }
}

fn check_files(check: &mut Check, path: &Path, source: &Value) {
    check_mode(check, &path.field("defaultMode"), &source["defaultMode"]);
    check_items(check, &path.field("items"), &source["items"]);
}

fn check_items(check: &mut Check, path: &Path, items: &Value) {
    for (at, item) in list(items).iter().enumerate() {
        let path = path.index(at);
        check.present(&path.field("key"), &item["key"]);
        check.present(&path.field("path"), &item["path"]);
        below_volume(check, &path.field("path"), text(&item["path"]));
        check_mode(check, &path.field("mode"), &item["mode"]);
    }
}

const DOWNWARD_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

fn check_downward(check: &mut Check, path: &Path, source: &Value) {
    check_mode(check, &path.field("defaultMode"), &source["defaultMode"]);
    for item in list(&source["items"]) {
        check.present(&path.field("path"), &item["path"]);
        below_volume(check, &path.field("path"), text(&item["path"]));
        if !item["fieldRef"].is_null() {
            env::check_field_ref(check, &path.field("fieldRef"), &item["fieldRef"], &DOWNWARD_FIELDS);
            if !item["resourceFieldRef"].is_null() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                check.invalid(path, "resource", detail);
            }
        } else if !item["resourceFieldRef"].is_null() {
            let path = path.field("resourceFieldRef");
            check.present(&path.field("containerName"), &item["resourceFieldRef"]["containerName"]);
            env::check_resource_ref(check, &path, &item["resourceFieldRef"]);
        } else {
            check.required(path, "one of fieldRef and resourceFieldRef is required");
        }
        check_mode(check, &path.field("mode"), &item["mode"]);
    }
}

fn check_projected(check: &mut Check, path: &Path, projected: &Value) {
    check_mode(check, &path.field("defaultMode"), &projected["defaultMode"]);
    let sources = path.field("sources");
    for (at, source) in list(&projected["sources"]).iter().enumerate() {
        let path = sources.index(at);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            if !source[kind].is_null() {
                count += 1;
                let path = path.field(kind);
                check.present(&path.field("name"), &source[kind]["name"]);
                check_items(check, &path.field("items"), &source[kind]["items"]);
            }
        }
        if !source["downwardAPI"].is_null() {
            count += 1;
            check_downward(check, &path.field("downwardAPI"), &source["downwardAPI"]);
        }
        let token = &source["serviceAccountToken"];
        if !token.is_null() {
            count += 1;
            let path = path.field("serviceAccountToken");
            let seconds = token["expirationSeconds"].as_i64().unwrap_or(3600);
            if seconds < 600 {
                let detail = "may not specify a duration less than 10 minutes";
                check.invalid(&path.field("expirationSeconds"), seconds, detail);
            } else if seconds > 1 << 32 {
                let detail = "may not specify a duration larger than 2^32 seconds";
                check.invalid(&path.field("expirationSeconds"), seconds, detail);
            }
            check.present(&path.field("path"), &token["path"]);
        }
        for kind in ["clusterTrustBundle", "podCertificate"] {
            count += usize::from(!source[kind].is_null());
        }
        if count > 1 {
            check.forbidden(&path, "may not specify more than 1 volume type");
        }
    }
}

/// Mounts and devices of a container.
pub fn check_mounts(check: &mut Check, path: &Path, container: &Value, volumes: &Volumes) {
    let mounts = path.field("volumeMounts");
    let mut paths: HashSet<&str> = HashSet::new();
    for (at, mount) in list(&container["volumeMounts"]).iter().enumerate() {
        let item = mounts.index(at);
        let name = text(&mount["name"]);
        if name.is_empty() {
            check.required(&item.field("name"), "");
        }
        if !volumes.contains_key(name) {
            check.causes.push(crate::field::not_found(&item.field("name"), name));
        }
        let target = text(&mount["mountPath"]);
        if target.is_empty() {
            check.required(&item.field("mountPath"), "");
        }
        if !paths.insert(target) {
            check.invalid(&item.field("mountPath"), target, "must be unique");
        }
        let (sub, expression) = (text(&mount["subPath"]), text(&mount["subPathExpr"]));
        if !sub.is_empty() {
            relative(check, &mounts.field("subPath"), sub);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                check.invalid(&item.field("subPathExpr"), expression, detail);
            }
            relative(check, &mounts.field("subPathExpr"), expression);
        }
        let propagation = &mount["mountPropagation"];
        let propagation_path = mounts.field("mountPropagation");
        let modes = ["Bidirectional", "HostToContainer", "None"];
        check.one_of_or_none(&propagation_path, propagation, &modes);
        if propagation == "Bidirectional" && container["securityContext"]["privileged"] != true {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            check.forbidden(&propagation_path, detail);
        }
    }
    let devices = path.field("volumeDevices");
    for (at, device) in list(&container["volumeDevices"]).iter().enumerate() {
        let item = devices.index(at);
        let name = text(&device["name"]);
        if name.is_empty() {
            check.required(&item.field("name"), "");
        }
        match volumes.get(name) {
            None => check.causes.push(crate::field::not_found(&item.field("name"), name)),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                check.invalid(&item.field("name"), name, detail);
            }
            Some(_) => {}
        }
        check.present(&item.field("devicePath"), &device["devicePath"]);
    }
}

/// Variables that are read from a file have it in an empty directory of the Pod.
pub fn check_file_keys(check: &mut Check, path: &Path, spec: &Value) {
    let volumes: HashMap<&str, &Value> = list(&spec["volumes"])
        .iter()
        .map(|volume| (text(&volume["name"]), volume))
        .collect();
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = path.field(kind);
        for (at, container) in list(&spec[kind]).iter().enumerate() {
            let container_path = containers.index(at);
            let variables = container_path.field("env");
            for (at, variable) in list(&container["env"]).iter().enumerate() {
                let reference = &variable["valueFrom"]["fileKeyRef"];
                if reference.is_null() {
                    continue;
                }
                let name = text(&reference["volumeName"]);
                let variable = variables.index(at);
                let from = variable.field("valueFrom");
                let file = from.field("fileKeyRef");
                let path = file.field("volumeName");
                match volumes.get(name) {
                    None => check.causes.push(crate::field::not_found(&path, name)),
                    Some(volume) if volume["emptyDir"].is_null() => {
                        check.invalid(&path, name, "referenced volume must be of type emptyDir");
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
