//! One object out of a list or a watch, with what a cache needs of it read without parsing its whole tree.

use std::borrow::Cow;

use api::{Object, PlaneId, Resource};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// An object as it came from a list or a watch; `plane` is set behind the all-planes door.
#[derive(Clone, Debug)]
pub struct Item {
    pub plane: Option<PlaneId>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub resource_version: Box<str>,
    pub object: Object,
}

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "apiVersion")]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: PeekMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeekMeta<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct OnlyMeta<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// How much of an object is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    Whole,
    /// `apiVersion`, `kind` and `metadata`, whatever the server sent.
    Metadata,
}

/// What a server sends that was asked for metadata alone.
const PARTIAL: &str = "PartialObjectMetadata";

impl Item {
    /// `bytes` is one object's JSON. Upstream leaves `kind` and `apiVersion` out of list items: they are put back.
    pub(crate) fn read(
        plane: Option<PlaneId>,
        bytes: Bytes,
        resource: &Resource,
        keep: Keep,
    ) -> Result<Item, serde_json::Error> {
        let peek: Peek = serde_json::from_slice(&bytes)?;
        let typed = peek.kind.as_deref().is_some_and(|kind| !kind.is_empty())
            && peek.api_version.as_deref().is_some_and(|version| !version.is_empty());
        let object = match keep {
            Keep::Metadata => {
                let only: OnlyMeta = serde_json::from_slice(&bytes)?;
                let says = typed && peek.kind.as_deref() != Some(PARTIAL);
                let (api_version, kind) = match (&peek.api_version, &peek.kind) {
                    (Some(api_version), Some(kind)) if says => (api_version.to_string(), kind.as_ref()),
                    _ => (resource.api_version(), &*resource.kind),
                };
                Object::from_stored(Bytes::from(format!(
                    "{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",\"metadata\":{}}}",
                    only.metadata.get(),
                )))
            }
            Keep::Whole if typed => Object::from_stored(bytes.clone()),
            Keep::Whole => Object::from_stored(with_type(&bytes, resource)),
        };
        Ok(Item {
            plane,
            namespace: peek.metadata.namespace.into(),
            name: peek.metadata.name.into(),
            resource_version: peek.metadata.resource_version.into(),
            object,
        })
    }
}

/// Puts `apiVersion` and `kind` before the first field of a JSON object that has neither.
fn with_type(bytes: &[u8], resource: &Resource) -> Bytes {
    let inside = bytes.iter().position(|&byte| byte == b'{').map_or(0, |at| at + 1);
    let mut typed = format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",",
        resource.api_version(),
        resource.kind
    )
    .into_bytes();
    typed.extend_from_slice(&bytes[inside..]);
    Bytes::from(typed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::resource::{DEPLOYMENTS, PODS};

    #[test]
    fn an_item_of_an_upstream_list_gets_its_type_back() {
        let bytes = Bytes::from_static(br#"{"metadata":{"name":"a","namespace":"n","resourceVersion":"7"},"spec":{}}"#);

        let item = Item::read(None, bytes, &DEPLOYMENTS, Keep::Whole).unwrap();

        assert_eq!(
            (item.object.kind(), item.object.api_version()),
            ("Deployment", "apps/v1")
        );
        assert_eq!(
            (&*item.namespace, &*item.name, &*item.resource_version),
            ("n", "a", "7")
        );
    }

    #[test]
    fn metadata_only_keeps_no_spec_and_the_true_kind() {
        let bytes = Bytes::from_static(
            br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","uid":"u"},"spec":{"x":1}}"#,
        );

        let item = Item::read(None, bytes, &PODS, Keep::Metadata).unwrap();

        assert_eq!(
            item.object.tree(),
            &serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "u"}})
        );
    }
}
