//! What planes have alike (D6): read through from the binary's template and the plane's record, not stored.
//!
//! The template has two parts. [`bootstrap`] is the same for all planes but for uid and time; its objects are encoded
//! once, with slots of fixed width, so that rendering one is a copy. [`birthright`] depends on the plane: its
//! namespaces, their accounts and root certificates, its `kubernetes` Service.
//!
//! uid = UUIDv5(plane's uid, kind, namespace, name); resourceVersion = the record's. The first write of such an object
//! stores it, a delete leaves a [`WHITEOUT`].

mod birthright;
mod bootstrap;
mod materialise;

use std::sync::OnceLock;

use api::{Object, Resource};
use bytes::Bytes;
use serde_json::Value;

use crate::planes::PlaneRecord;

pub(crate) use materialise::{advertise, materialise, own_definition};

/// Raised with every change of the template; older planes are upgraded when next opened.
pub const VERSION: u32 = 1;

/// The value of a key whose templated object was deleted. Not JSON, so that nothing takes it for an object.
pub const WHITEOUT: &[u8] = b"whiteout";

/// One object of the template.
pub struct Entry {
    pub resource: &'static Resource,
    pub namespace: Option<&'static str>,
    pub name: &'static str,
    body: Body,
}

enum Body {
    Encoded(bootstrap::Encoded),
    Rendered(fn(&PlaneRecord, &Entry) -> Value),
}

impl Entry {
    /// The object as that plane has it, in stored form.
    pub fn render(&self, record: &PlaneRecord) -> Bytes {
        match &self.body {
            Body::Encoded(encoded) => encoded.render(&self.uid(record), &record.created),
            Body::Rendered(render) => {
                let mut tree = render(record, self);
                let metadata = &mut tree["metadata"];
                metadata["uid"] = self.uid(record).into();
                metadata["creationTimestamp"] = record.created.clone().into();
                metadata["name"] = self.name.into();
                if let Some(namespace) = self.namespace {
                    metadata["namespace"] = namespace.into();
                }
                tree["apiVersion"] = self.resource.api_version().into();
                tree["kind"] = self.resource.kind.clone().into();
                Object::from_tree(tree).bytes().clone()
            }
        }
    }

    /// `<namespace>/<name>`, or the name: what follows the plane's prefix in a key.
    pub fn suffix(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.to_owned(),
        }
    }

    fn uid(&self, record: &PlaneRecord) -> String {
        derived_uid(record, self.resource, self.namespace.unwrap_or_default(), self.name)
    }
}

/// The uid of an object that a plane has by birth.
pub(crate) fn derived_uid(record: &PlaneRecord, resource: &Resource, namespace: &str, name: &str) -> String {
    let plane = uuid::Uuid::parse_str(&record.uid).unwrap_or_default();
    let path = format!("{}/{}/{namespace}/{name}", resource.group, resource.kind);
    uuid::Uuid::new_v5(&plane, path.as_bytes()).to_string()
}

/// The template's objects of a resource (in its storage version), in the order of their keys.
pub fn entries(storage: &Resource) -> &'static [Entry] {
    // Some twenty resources: a walk is as good as a map.
    static TEMPLATE: OnceLock<Vec<Vec<Entry>>> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let mut template: Vec<Vec<Entry>> = Vec::new();
        for entry in bootstrap::entries().into_iter().chain(birthright::entries()) {
            match template
                .iter_mut()
                .find(|entries| entries[0].resource == entry.resource)
            {
                Some(entries) => entries.push(entry),
                None => template.push(vec![entry]),
            }
        }
        for entries in &mut template {
            entries.sort_by_cached_key(Entry::suffix);
        }
        template
    });
    let of_storage = |entries: &&Vec<Entry>| {
        let resource = entries[0].resource;
        resource.group == storage.group && resource.plural == storage.plural
    };
    template.iter().find(of_storage).map_or(&[], Vec::as_slice)
}

/// The template's object of that name, if there is one.
pub fn find(storage: &Resource, namespace: Option<&str>, name: &str) -> Option<&'static Entry> {
    entries(storage)
        .iter()
        .find(|entry| entry.name == name && entry.namespace == namespace)
}

/// Every resource of which the template has objects.
fn resources() -> Vec<&'static Resource> {
    let mut resources = Vec::new();
    for info in api::table::resources().iter().filter(|info| info.is_stored()) {
        if info.resource == info.storage && !entries(&info.storage).is_empty() {
            resources.push(&info.storage);
        }
    }
    resources
}
