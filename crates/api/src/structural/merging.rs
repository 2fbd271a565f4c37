//! What a schema says of how objects merge, for server-side apply.

use serde_json::Value;

use super::{Additional, Schema};
use crate::schema::ListKind;

/// What fields that are not named may be.
#[derive(Clone, Copy, Debug)]
pub enum Others<'a> {
    Of(&'a Schema),
    Anything,
    Nothing,
    Unsaid,
}

impl Schema {
    /// `object`, `array`, ...; `None` if it may be several things.
    pub fn kind_name(&self) -> Option<&'static str> {
        self.kind.filter(|_| !self.int_or_string).map(super::Kind::name)
    }

    pub fn preserves_unknown(&self) -> bool {
        self.preserve_unknown
    }

    pub fn is_embedded(&self) -> bool {
        self.embedded
    }

    pub fn is_atomic_map(&self) -> bool {
        self.atomic_map
    }

    pub fn list_kind(&self) -> &ListKind {
        &self.list
    }

    pub fn has_properties(&self) -> bool {
        !self.properties.is_empty()
    }

    pub fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name)
    }

    pub fn others(&self) -> Others<'_> {
        match &self.additional {
            Additional::Of(schema) => Others::Of(schema),
            Additional::Anything => Others::Anything,
            Additional::Nothing => Others::Nothing,
            Additional::Absent => Others::Unsaid,
        }
    }

    pub fn element(&self) -> Option<&Schema> {
        self.items.as_deref()
    }

    pub fn default_value(&self) -> Option<&Value> {
        self.default.as_ref()
    }
}
