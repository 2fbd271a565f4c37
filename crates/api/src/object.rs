//! One untyped object (D9): the bytes as stored, and a tree parsed when first asked for.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A Kubernetes object: canonical JSON (keys sorted, no spaces) and a lazily parsed tree.
///
/// Cheap to clone. `metadata.resourceVersion` is never part of stored bytes; the registry splices it in.
#[derive(Clone)]
pub struct Object(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    tree: OnceLock<Value>,
}

impl Object {
    /// Takes bytes that are known to be a JSON object, as read from a keyspace.
    pub fn from_stored(bytes: Bytes) -> Object {
        Object(Arc::new(Inner {
            bytes,
            tree: OnceLock::new(),
        }))
    }

    /// Parses bytes that came from outside.
    pub fn parse(bytes: &[u8]) -> Result<Object, serde_json::Error> {
        let tree: Value = serde_json::from_slice(bytes)?;
        Ok(Object::from_tree(tree))
    }

    /// Encodes a tree once, canonically.
    pub fn from_tree(tree: Value) -> Object {
        let mut bytes = serde_json::to_vec(&tree).expect("a JSON value always encodes");
        // It may be kept for years, and a growing buffer has up to as much again to spare.
        bytes.shrink_to_fit();
        let bytes = Bytes::from(bytes);
        let cell = OnceLock::new();
        let _ = cell.set(tree);
        Object(Arc::new(Inner { bytes, tree: cell }))
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The same object in as little memory as can be: no tree, and bytes that keep no larger buffer alive.
    pub fn at_rest(&self) -> Object {
        Object::from_stored(Bytes::copy_from_slice(&self.0.bytes))
    }

    /// The parsed tree; `Null` if the stored bytes are not JSON.
    pub fn tree(&self) -> &Value {
        self.0
            .tree
            .get_or_init(|| serde_json::from_slice(&self.0.bytes).unwrap_or(Value::Null))
    }

    /// A typed read view of the whole object. Never put back whole (D9).
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(self.tree())
    }

    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        self.tree().pointer(pointer)
    }

    fn meta(&self, field: &str) -> &str {
        self.tree()["metadata"][field].as_str().unwrap_or("")
    }

    pub fn name(&self) -> &str {
        self.meta("name")
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.meta("namespace")
    }

    pub fn uid(&self) -> &str {
        self.meta("uid")
    }

    /// Empty where the object was read from a keyspace and not through the API.
    pub fn resource_version(&self) -> &str {
        self.meta("resourceVersion")
    }

    pub fn kind(&self) -> &str {
        self.tree()["kind"].as_str().unwrap_or("")
    }

    pub fn api_version(&self) -> &str {
        self.tree()["apiVersion"].as_str().unwrap_or("")
    }

    pub fn is_deleting(&self) -> bool {
        self.tree()["metadata"]["deletionTimestamp"].is_string()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.tree()["metadata"]["labels"][key].as_str()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.tree()["metadata"]["annotations"][key].as_str()
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind(), self.namespace(), self.name())
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.0.bytes == other.0.bytes
    }
}
