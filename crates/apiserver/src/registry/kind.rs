//! A resource as served, built-in or custom.

use std::{borrow::Cow, sync::Arc};

use api::{Resource, resource::Scope, table::ResourceInfo};

use crate::planes::CustomResource;

#[derive(Clone)]
pub enum Kind {
    BuiltIn(&'static ResourceInfo),
    Custom(Arc<CustomResource>),
}

impl Kind {
    pub fn info(&self) -> &ResourceInfo {
        match self {
            Kind::BuiltIn(info) => info,
            Kind::Custom(custom) => &custom.info,
        }
    }

    /// What is known of the stored version.
    pub fn storage_info(&self) -> Cow<'_, ResourceInfo> {
        let info = self.info();
        if info.resource == info.storage {
            return Cow::Borrowed(info);
        }
        let storage = &info.storage;
        match api::table::find(&storage.group, &storage.version, &storage.plural) {
            Some(info) => Cow::Borrowed(info),
            None => Cow::Owned(ResourceInfo {
                resource: storage.clone(),
                ..info.clone()
            }),
        }
    }

    /// As asked for.
    pub fn resource(&self) -> &Resource {
        &self.info().resource
    }

    /// As stored.
    pub fn storage(&self) -> &Resource {
        &self.info().storage
    }

    /// The uid of the definition, of a custom one.
    pub fn definition(&self) -> Option<&str> {
        match self {
            Kind::BuiltIn(_) => None,
            Kind::Custom(custom) => Some(&custom.definition),
        }
    }

    pub fn custom(&self) -> Option<&Arc<CustomResource>> {
        match self {
            Kind::BuiltIn(_) => None,
            Kind::Custom(custom) => Some(custom),
        }
    }

    pub fn is_namespaced(&self) -> bool {
        self.resource().scope == Scope::Namespaced
    }

    pub fn is(&self, group: &str, plural: &str) -> bool {
        let storage = self.storage();
        storage.group == group && storage.plural == plural
    }

    pub fn is_core(&self, plural: &str) -> bool {
        self.is("", plural)
    }

    pub fn list_kind(&self) -> String {
        match self {
            Kind::BuiltIn(info) => format!("{}List", info.resource.kind),
            Kind::Custom(custom) => custom.list_kind.clone(),
        }
    }

    /// Whether `status` is written by its own subresource alone.
    pub fn has_status(&self) -> bool {
        match self {
            Kind::BuiltIn(info) => info.has_status(),
            Kind::Custom(custom) => custom.has_status,
        }
    }

    /// `pods` or `deployments.apps`, as messages name it.
    pub fn qualified(&self) -> String {
        qualified(self.resource())
    }
}

pub fn qualified(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.plural.to_string()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}
