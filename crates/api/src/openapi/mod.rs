//! OpenAPI documents: v2 as JSON and as gnostic's protobuf, v3 as an index and a document a group version.
//!
//! What upstream publishes for built-in kinds is embedded and shared by all planes; a plane's custom resources are
//! added to it. Nothing is kept unpacked here: who serves documents often keeps them.

mod custom;
mod gnostic;
mod pack;

use std::{io::Read, sync::OnceLock};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{discovery::Served, table::ResourceInfo};

static V2: &[u8] = include_bytes!("../../data/openapi-v2.json.gz");

/// Clients ask for v2 in this form alone; there is no JSON fallback in client-go. Newer ones write a dot for the `@`.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The `Content-Type` of the answer: `@` may be asked for, but is no character of a media type that clients parse.
pub const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A custom resource to be described: one served version of a definition.
#[derive(Clone, Copy)]
pub struct Custom<'a> {
    pub info: &'a ResourceInfo,
    pub list_kind: &'a str,
    /// `openAPIV3Schema`, or null.
    pub schema: &'a Value,
}

/// `/openapi/v2` as JSON (about 3 MiB).
pub fn v2_json(custom: &[Custom]) -> Bytes {
    let base = unpack(V2);
    if custom.is_empty() {
        return Bytes::from(base);
    }
    let own = custom::v2(custom);
    // Keys are sorted, so definitions come first; no definition has a field `paths` whose first key is a path.
    let definitions = b"{\"definitions\":{";
    let paths = b"\"paths\":{\"/";
    let split = find(&base, paths).expect("the embedded document has paths") + paths.len() - 2;
    let mut document = Vec::with_capacity(base.len() + 64 * 1024);
    document.extend_from_slice(definitions);
    push_entries(&mut document, &own["definitions"]);
    document.extend_from_slice(&base[definitions.len()..split]);
    push_entries(&mut document, &own["paths"]);
    document.extend_from_slice(&base[split..]);
    Bytes::from(document)
}

/// The entries of an object, each followed by a comma.
fn push_entries(document: &mut Vec<u8>, object: &Value) {
    for (key, value) in object.as_object().into_iter().flatten() {
        document.extend_from_slice(Value::String(key.clone()).to_string().as_bytes());
        document.push(b':');
        document.extend_from_slice(value.to_string().as_bytes());
        document.push(b',');
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// `/openapi/v2` as [`V2_PROTOBUF_ANSWER`] (about 3 MiB).
pub fn v2_protobuf(custom: &[Custom]) -> Bytes {
    // Kept packed: it is asked for rarely, and making it anew takes a tenth of a second.
    static BASE: OnceLock<Bytes> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let document: Value = serde_json::from_slice(&unpack(V2)).expect("the embedded document is well formed");
        Bytes::from(pack_bytes(&gnostic::document(&document)))
    });
    let mut bytes = unpack(base);
    if !custom.is_empty() {
        // Messages that follow each other are one message, merged.
        bytes.extend(gnostic::document(&custom::v2(custom)));
    }
    Bytes::from(bytes)
}

/// `/openapi/v3`: which documents there are. `prefix` is what stands before `/openapi` in the plane's URLs.
pub fn v3_index(served: &Served, custom: &[Custom], prefix: &str) -> Value {
    let mut paths = serde_json::Map::new();
    let mut add = |path: &str, hash: &str| {
        let url = format!("{prefix}/openapi/v3/{path}?hash={hash}");
        paths.insert(path.to_owned(), json!({"serverRelativeURL": url}));
    };
    for entry in pack::entries().iter().filter(|entry| is_served(served, &entry.path)) {
        add(&entry.path, &entry.hash);
    }
    for path in custom_paths(custom) {
        if let Some(document) = v3_document(served, custom, &path) {
            add(&path, &hash(&document));
        }
    }
    json!({"paths": paths})
}

/// `/openapi/v3/<path>` as JSON, such as `apis/apps/v1`; `None` if there is none.
pub fn v3_document(served: &Served, custom: &[Custom], path: &str) -> Option<Bytes> {
    if let Some(entry) = pack::entries().iter().find(|entry| entry.path == path)
        && is_served(served, path)
    {
        return Some(Bytes::from(unpack(pack::packed(entry))));
    }
    let of_path: Vec<Custom> = custom
        .iter()
        .copied()
        .filter(|custom| group_path(custom.info) == path)
        .collect();
    if of_path.is_empty() {
        return None;
    }
    let document = custom::v3(&of_path, meta_schemas());
    Some(Bytes::from(document.to_string()))
}

/// The hash of a document, as in the index's URLs.
pub fn hash(document: &[u8]) -> String {
    Sha256::digest(document)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

fn group_path(info: &ResourceInfo) -> String {
    format!("apis/{}/{}", info.resource.group, info.resource.version)
}

fn custom_paths(custom: &[Custom]) -> Vec<String> {
    let mut paths: Vec<String> = custom.iter().map(|custom| group_path(custom.info)).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| pack::entries().iter().all(|entry| entry.path != *path));
    paths
}

fn is_served(served: &Served, path: &str) -> bool {
    match path.strip_prefix("apis/") {
        Some(rest) => (served.group)(rest.split('/').next().unwrap_or(rest)),
        None => true,
    }
}

/// The schemas of metadata, options and statuses that every document refers to.
fn meta_schemas() -> &'static Value {
    static SCHEMAS: OnceLock<Value> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        // The smallest document that refers to all of them.
        let entry = pack::entries()
            .iter()
            .find(|entry| entry.path == "apis/coordination.k8s.io/v1")
            .expect("the embedded documents have that of leases");
        let mut document: Value =
            serde_json::from_slice(&unpack(pack::packed(entry))).expect("the embedded document is well formed");
        let mut schemas = document["components"]["schemas"].take();
        if let Some(schemas) = schemas.as_object_mut() {
            schemas.retain(|name, _| name.starts_with("io.k8s.apimachinery."));
        }
        schemas
    })
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .expect("embedded documents are gzip streams");
    bytes
}

fn pack_bytes(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests;
