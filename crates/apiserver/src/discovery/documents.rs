//! Documents that follow a plane's definitions: made when asked for, kept within a bound, shared by all planes that
//! have no definitions of their own.

use std::sync::Arc;

use api::PlaneId;
use bytes::Bytes;
use keyspace::Revision;
use sha2::{Digest, Sha256};

use crate::planes::{Bounded, CustomResources, Plane};

/// Documents of planes with definitions of their own; from 1 KiB (a group) to 4 MiB (`/openapi/v2`), of which a plane
/// that is looked at has a handful.
const OWN_MAX: usize = 256;

/// Documents of all other planes together: one a path and form.
const COMMON_MAX: usize = 512;

/// A document ready to be sent.
#[derive(Clone)]
pub struct Document {
    pub bytes: Bytes,
    /// Without quotes.
    pub etag: Arc<str>,
}

impl Document {
    pub fn new(bytes: impl Into<Bytes>) -> Document {
        let bytes = bytes.into();
        let digest = Sha256::digest(&bytes);
        Document {
            etag: digest
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
            bytes,
        }
    }
}

pub struct Documents {
    own: Bounded<(PlaneId, String), (Revision, Document)>,
    common: Bounded<String, Document>,
}

impl Default for Documents {
    fn default() -> Documents {
        Documents {
            own: Bounded::new(OWN_MAX),
            common: Bounded::new(COMMON_MAX),
        }
    }
}

impl Documents {
    /// The document under `key`, made by `make` if the plane's definitions are not those it was made from.
    pub fn get(
        &self,
        plane: &Plane,
        custom: &CustomResources,
        key: &str,
        make: impl FnOnce() -> Option<Bytes>,
    ) -> Option<Document> {
        if custom.served.is_empty() {
            if let Some(document) = self.common.get(&key.to_owned()) {
                return Some(document);
            }
            let document = Document::new(make()?);
            self.common.insert(key.to_owned(), document.clone());
            return Some(document);
        }
        let own_key = (plane.id, key.to_owned());
        if let Some((made_at, document)) = self.own.get(&own_key)
            && made_at == custom.revision
        {
            return Some(document);
        }
        let document = Document::new(make()?);
        self.own.insert(own_key, (custom.revision, document.clone()));
        Some(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_documents_have_equal_tags() {
        assert_eq!(Document::new("a").etag, Document::new("a").etag);
        assert_ne!(Document::new("a").etag, Document::new("b").etag);
    }
}
