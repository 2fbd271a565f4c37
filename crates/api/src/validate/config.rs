//! ConfigMaps and Secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::check::{Check, entries, text};
use crate::{
    field::{self, Path},
    names,
};

/// Upstream's `MaxSecretSize`, for either kind.
const DATA_BYTES_MAX: usize = 1024 * 1024;

const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub fn check_config_map(check: &mut Check, new: &Value, old: Option<&Value>) {
    let mut size = 0;
    let data = Path::ROOT.field("data");
    for (key, value) in entries(&new["data"]) {
        let path = data.key(key);
        check.named(&path, key, names::config_key(key));
        if new["binaryData"].get(key).is_some() {
            check.invalid(&path, key.as_str(), "duplicate of key present in binaryData");
        }
        size += text(value).len();
    }
    let binary = Path::ROOT.field("binaryData");
    for (key, value) in entries(&new["binaryData"]) {
        check.named(&binary.key(key), key, names::config_key(key));
        size += decoded_len(value);
    }
    if size > DATA_BYTES_MAX {
        check
            .causes
            .push(field::too_long(&Path::ROOT.field(""), DATA_BYTES_MAX));
    }
    if let Some(old) = old {
        check_frozen(check, new, old, &["data", "binaryData"]);
    }
}

fn check_frozen(check: &mut Check, new: &Value, old: &Value, fields: &[&str]) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        check.forbidden(&Path::ROOT.field("immutable"), IMMUTABLE);
    }
    for field in fields {
        if new[*field] != old[*field] {
            check.forbidden(&Path::ROOT.field(field), IMMUTABLE);
        }
    }
}

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(text(value)).unwrap_or_default()
}

fn decoded_len(value: &Value) -> usize {
    let encoded = text(value).trim_end_matches('=');
    encoded.len() * 3 / 4
}

pub fn check_secret(check: &mut Check, new: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("data");
    let mut size = 0;
    for (key, value) in entries(&new["data"]) {
        check.named(&path.key(key), key, names::config_key(key));
        size += decoded_len(value);
    }
    if size > DATA_BYTES_MAX {
        check.causes.push(field::too_long(&path, DATA_BYTES_MAX));
    }
    check_secret_type(check, new);
    if let Some(old) = old {
        check.immutable(&Path::ROOT.field("type"), &new["type"], &old["type"]);
        check_frozen(check, new, old, &["data"]);
    }
}

fn check_secret_type(check: &mut Check, secret: &Value) {
    let data = &secret["data"];
    let path = Path::ROOT.field("data");
    let has = |key: &str| data.get(key).is_some();
    match text(&secret["type"]) {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            if text(&secret["metadata"]["annotations"][ACCOUNT]).is_empty() {
                let annotations = Path::ROOT.field("metadata");
                let annotations = annotations.field("annotations");
                check.required(&annotations.key(ACCOUNT), "");
            }
        }
        kind @ ("kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson") => {
            let key = if kind.ends_with("json") {
                ".dockerconfigjson"
            } else {
                ".dockercfg"
            };
            let path = path.key(key);
            if !has(key) {
                check.required(&path, "");
            } else if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded(&data[key])) {
                check.invalid(&path, "<secret contents redacted>", error);
            }
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            check.required(&path.key("username"), "");
            check.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if text(&data["ssh-privatekey"]).is_empty() => {
            check.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    check.required(&path.key(key), "");
                }
            }
        }
        _ => {}
    }
}
