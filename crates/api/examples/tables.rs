//! Makes `crates/api/data/` from the documents that a Kubernetes 1.36 API server publishes.
//!
//! `KUBERNETES_API_DOCUMENTS=<dir with discovery/ and openapi-spec/> cargo run -p api --example tables`
//!
//! The outputs are committed; this runs only when the Kubernetes version moves.

use std::{error::Error, fs, io::Write, path::Path};

use base64::Engine;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let from = std::env::var("KUBERNETES_API_DOCUMENTS")
        .map_err(|_| "KUBERNETES_API_DOCUMENTS names the folder with discovery/ and openapi-spec/")?;
    let from = Path::new(&from);
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    fs::create_dir_all(&to)?;
    resources(from, &to)?;
    schema(from, &to)?;
    openapi_v3(from, &to)?;
    Ok(())
}

fn read(path: &Path) -> Result<Value, Box<dyn Error>> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// `resources.json`: one line a resource, in upstream's order of groups and versions.
fn resources(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let discovery = from.join("discovery");
    let groups = read(&discovery.join("apis.json"))?;
    let mut versions = vec![(String::new(), "v1".to_owned())];
    for group in groups["groups"].as_array().ok_or("apis.json has no groups")? {
        let name = group["name"].as_str().ok_or("a group has no name")?;
        for version in group["versions"].as_array().ok_or("a group has no versions")? {
            let version = version["version"].as_str().ok_or("a version has no name")?;
            versions.push((name.to_owned(), version.to_owned()));
        }
    }
    let mut lines = Vec::new();
    for (group, version) in &versions {
        let file = if group.is_empty() {
            format!("api__{version}.json")
        } else {
            format!("apis__{group}__{version}.json")
        };
        let list = read(&discovery.join(file))?;
        let list = list["resources"].as_array().ok_or("a list has no resources")?;
        for entry in list {
            let name = entry["name"].as_str().ok_or("a resource has no name")?;
            if name.contains('/') {
                continue;
            }
            let kind = entry["kind"].as_str().ok_or("a resource has no kind")?;
            let mut line = Map::new();
            line.insert("group".into(), json!(group));
            line.insert("version".into(), json!(version));
            line.insert("plural".into(), json!(name));
            line.insert("kind".into(), json!(kind));
            line.insert("singular".into(), entry["singularName"].clone());
            line.insert("namespaced".into(), entry["namespaced"].clone());
            for (field, key) in [
                ("shortNames", "short_names"),
                ("categories", "categories"),
                ("verbs", "verbs"),
            ] {
                if let Some(value) = entry.get(field) {
                    line.insert(key.into(), value.clone());
                }
            }
            if let Some(hash) = entry.get("storageVersionHash").and_then(Value::as_str) {
                // Definitions are published with the hash of a version that is no longer served.
                let (group, version) = stored_as(hash, kind, &versions).unwrap_or((group, version));
                line.insert(
                    "storage".into(),
                    json!({"group": group, "version": version, "hash": hash}),
                );
            }
            let prefix = format!("{name}/");
            let subresources: Vec<Value> = list
                .iter()
                .filter_map(|sub| Some((sub, sub["name"].as_str()?.strip_prefix(&prefix)?)))
                .map(|(sub, name)| {
                    json!({
                        "name": name,
                        "group": sub.get("group").cloned().unwrap_or(json!(group)),
                        "version": sub.get("version").cloned().unwrap_or(json!(version)),
                        "kind": sub["kind"],
                        "verbs": sub["verbs"],
                    })
                })
                .collect();
            if !subresources.is_empty() {
                line.insert("subresources".into(), Value::Array(subresources));
            }
            lines.push(serde_json::to_string(&line)?);
        }
    }
    fs::write(to.join("resources.json"), format!("[\n{}\n]\n", lines.join(",\n")))?;
    println!("resources.json: {} resources", lines.len());
    Ok(())
}

/// The group and version whose hash upstream publishes as the stored one.
fn stored_as<'a>(hash: &str, kind: &str, versions: &'a [(String, String)]) -> Option<(&'a str, &'a str)> {
    versions.iter().find_map(|(group, version)| {
        let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
        let ours = base64::engine::general_purpose::STANDARD.encode(&digest[..8]);
        (ours == hash).then_some((group.as_str(), version.as_str()))
    })
}

/// `schema.json.gz`: the definitions without descriptions, with the defaults that only the newer documents have. `openapi-v2.json.gz`: the whole document.
fn schema(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let swagger = read(&from.join("openapi-spec/swagger.json"))?;
    let whole = gzip(&serde_json::to_vec(&swagger)?)?;
    println!("openapi-v2.json.gz: {} bytes", whole.len());
    fs::write(to.join("openapi-v2.json.gz"), whole)?;

    let mut definitions = swagger["definitions"].clone();
    for definition in definitions.as_object_mut().ok_or("no definitions")?.values_mut() {
        drop_descriptions(definition);
    }
    add_defaults(from, &mut definitions)?;
    let packed = gzip(&serde_json::to_vec(&definitions)?)?;
    println!("schema.json.gz: {} bytes", packed.len());
    fs::write(to.join("schema.json.gz"), packed)?;
    Ok(())
}

/// They say which fields are never absent in upstream's types (`{}`, and texts and numbers that are not pointers).
fn add_defaults(from: &Path, definitions: &mut Value) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(from.join("openapi-spec/v3"))? {
        let document = read(&entry?.path())?;
        for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                let Some(default) = property.get("default") else {
                    continue;
                };
                if let Some(known) = definitions[name]["properties"].get_mut(field) {
                    known["default"] = default.clone();
                }
            }
        }
    }
    Ok(())
}

fn drop_descriptions(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("description");
    for (key, value) in schema.iter_mut() {
        match key.as_str() {
            "properties" => value
                .as_object_mut()
                .into_iter()
                .flat_map(|fields| fields.values_mut())
                .for_each(drop_descriptions),
            "items" | "additionalProperties" => drop_descriptions(value),
            _ => {}
        }
    }
}

/// `openapi-v3.pack`: a line of JSON (the index), then one gzip member a document.
fn openapi_v3(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let folder = from.join("openapi-spec/v3");
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut index = Vec::new();
    let mut body = Vec::new();
    for name in names {
        let Some(path) = name.strip_suffix("_openapi.json").map(|path| path.replace("__", "/")) else {
            continue;
        };
        let document = serde_json::to_vec(&read(&folder.join(&name))?)?;
        let packed = gzip(&document)?;
        let hash: String = Sha256::digest(&document)[..32]
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        index.push(json!({"path": path, "hash": hash, "start": body.len(), "length": packed.len()}));
        body.extend(packed);
    }
    let mut pack = serde_json::to_vec(&index)?;
    pack.push(b'\n');
    pack.extend(&body);
    println!("openapi-v3.pack: {} documents, {} bytes", index.len(), pack.len());
    fs::write(to.join("openapi-v3.pack"), pack)?;
    Ok(())
}
