//! What a Pod needs to know of its own plane and must not learn from the super cluster's: tokens minted by the tenant's
//! plane, that plane's CA, the tenant's namespace and uid. They travel in one Secret a Pod, which works with any kubelet
//! (trap 8, D11): volumes that would ask the super cluster for them are rewritten to read the Secret.

use serde_json::{Value, json};

use crate::identity::{self, Tenant};

/// The keys of a Pod's own Secret.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodValues {
    pub tokens: Vec<TokenWanted>,
    pub literals: Vec<(String, String)>,
}

/// A bound token that has to be asked for at the tenant's plane, and kept fresh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenWanted {
    /// Key in the Pod's Secret.
    pub key: String,
    /// `None` is the plane's own audience.
    pub audience: Option<String>,
    pub expiration_seconds: u64,
}

/// Upstream's default for `expirationSeconds` of a projected token.
const TOKEN_SECONDS: u64 = 3600;

/// The ConfigMap that every namespace has of its own plane; the super cluster has one by this name in each of its
/// namespaces too, with the wrong CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";

impl PodValues {
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.literals.is_empty()
    }

    fn literal(&mut self, key: String, value: String) -> String {
        if !self.literals.iter().any(|(known, _)| *known == key) {
            self.literals.push((key.clone(), value));
        }
        key
    }

    /// Rewrites one volume in place to read from the Secret `secret` what it must not read from the super cluster.
    pub fn take_from_volume(&mut self, tenant: &Tenant, pod: &Value, volume: &mut Value, secret: &str) {
        if volume["configMap"]["name"] == ROOT_CA {
            let key = self.literal("ca.crt".to_owned(), tenant.ca_pem.clone());
            let source = volume["configMap"].take();
            let mut replaced = json!({"secretName": secret, "items": items(&source["items"], &key)});
            if !source["defaultMode"].is_null() {
                replaced["defaultMode"] = source["defaultMode"].clone();
            }
            remove(volume, "configMap");
            volume["secret"] = replaced;
        }
        if volume["downwardAPI"].is_object() && has_identity(&volume["downwardAPI"]["items"]) {
            // A Secret volume can't carry the other fields, so the volume becomes a projected one of both.
            let source = volume["downwardAPI"].take();
            let sources = self.split_downward(pod, &source["items"], secret);
            let mut projected = json!({"sources": sources});
            if !source["defaultMode"].is_null() {
                projected["defaultMode"] = source["defaultMode"].clone();
            }
            remove(volume, "downwardAPI");
            volume["projected"] = projected;
        } else if let Some(sources) = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut) {
            let rewritten = std::mem::take(sources);
            *sources = rewritten
                .into_iter()
                .flat_map(|source| self.take_from_source(tenant, pod, source, secret))
                .collect();
        }
    }

    fn take_from_source(&mut self, tenant: &Tenant, pod: &Value, source: Value, secret: &str) -> Vec<Value> {
        if let Some(token) = source.get("serviceAccountToken") {
            let key = format!("token-{}", self.tokens.len());
            self.tokens.push(TokenWanted {
                key: key.clone(),
                audience: token["audience"]
                    .as_str()
                    .filter(|audience| !audience.is_empty())
                    .map(str::to_owned),
                expiration_seconds: token["expirationSeconds"].as_u64().unwrap_or(TOKEN_SECONDS),
            });
            return vec![json!({"secret": {"name": secret, "items": [{"key": key, "path": token["path"]}]}})];
        }
        if source["configMap"]["name"] == ROOT_CA {
            let key = self.literal("ca.crt".to_owned(), tenant.ca_pem.clone());
            return vec![json!({"secret": {"name": secret, "items": items(&source["configMap"]["items"], &key)}})];
        }
        if source["downwardAPI"].is_object() && has_identity(&source["downwardAPI"]["items"]) {
            return self.split_downward(pod, &source["downwardAPI"]["items"], secret);
        }
        vec![source]
    }

    /// The items that tell a Pod its namespace and uid become literals; the others stay with the kubelet.
    fn split_downward(&mut self, pod: &Value, items: &Value, secret: &str) -> Vec<Value> {
        let mut ours = Vec::new();
        let mut kept = Vec::new();
        for item in items.as_array().into_iter().flatten() {
            match identity_value(pod, &item["fieldRef"]["fieldPath"]) {
                Some((name, value)) => {
                    let key = self.literal(name, value);
                    let mut ours_item = json!({"key": key, "path": item["path"]});
                    if !item["mode"].is_null() {
                        ours_item["mode"] = item["mode"].clone();
                    }
                    ours.push(ours_item);
                }
                None => kept.push(item.clone()),
            }
        }
        let mut sources = vec![json!({"secret": {"name": secret, "items": ours}})];
        if !kept.is_empty() {
            sources.push(json!({"downwardAPI": {"items": kept}}));
        }
        sources
    }
}

fn has_identity(items: &Value) -> bool {
    items
        .as_array()
        .into_iter()
        .flatten()
        .any(|item| item["fieldRef"]["fieldPath"].as_str().is_some_and(is_identity))
}

fn is_identity(field: &str) -> bool {
    matches!(field, "metadata.namespace" | "metadata.uid" | "metadata.labels")
        || field.starts_with("metadata.annotations")
}

/// The tenant's value of a field that differs on the two sides, and the Secret's key for it.
pub fn identity_value(pod: &Value, field: &Value) -> Option<(String, String)> {
    let metadata = &pod["metadata"];
    let field = field.as_str()?;
    let (name, value) = match field {
        "metadata.namespace" => ("namespace", metadata["namespace"].as_str()?.to_owned()),
        "metadata.uid" => ("uid", metadata["uid"].as_str()?.to_owned()),
        // Without the marks that they carry below. They may change while the Pod runs, and the Secret follows.
        "metadata.labels" => ("labels", lines(&metadata["labels"])),
        "metadata.annotations" => ("annotations", lines(&metadata["annotations"])),
        // Not all annotations go down.
        one => {
            let key = one.strip_prefix("metadata.annotations['")?.strip_suffix("']")?;
            let value = metadata["annotations"][key].as_str().unwrap_or("").to_owned();
            return Some((format!("annotation-{}", identity::hash(&[key])), value));
        }
    };
    Some((name.to_owned(), value))
}

/// A map as kubelets write it into a file: sorted, a line each, values quoted as Go does.
fn lines(map: &Value) -> String {
    let map = map.as_object().into_iter().flatten();
    let sorted: std::collections::BTreeMap<&String, &str> =
        map.map(|(key, value)| (key, value.as_str().unwrap_or(""))).collect();
    let lines: Vec<String> = sorted
        .into_iter()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

/// Go's `%q`.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `key` in place of `ca.crt` in a list of items, or the whole file under its usual name.
fn items(items: &Value, key: &str) -> Value {
    match items.as_array().filter(|items| !items.is_empty()) {
        Some(items) => items
            .iter()
            .map(|item| {
                let mut item = item.clone();
                if item["key"] == "ca.crt" {
                    item["key"] = key.into();
                }
                item
            })
            .collect(),
        None => json!([{"key": key, "path": "ca.crt"}]),
    }
}

fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_written_as_kubelets_do() {
        let map = json!({"b": "two", "a": "say \"hi\"\n\\ \u{1}ä"});

        assert_eq!(lines(&map), "a=\"say \\\"hi\\\"\\n\\\\ \\x01ä\"\nb=\"two\"");
        assert_eq!(lines(&Value::Null), "");
    }
}
