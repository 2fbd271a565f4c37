//! Keys of caches and queues: the source first, then the plane, then the object (D2).

use std::{fmt, sync::Arc};

use api::PlaneId;

/// A keyspace as seen by a watcher: `super`, `shared`, or one of a dedicated or external plane.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(Arc<str>);

impl SourceId {
    pub fn new(name: &str) -> SourceId {
        SourceId(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which plane, through which source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaneKey {
    pub source: SourceId,
    pub plane: PlaneId,
}

impl PlaneKey {
    pub fn object(&self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            plane: self.clone(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PlaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.plane)
    }
}

impl fmt::Debug for PlaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One object of one resource, anywhere. `namespace` is empty for cluster-scoped ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub plane: PlaneKey,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    /// For [`crate::Client`]'s verbs.
    pub fn namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(&*self.namespace)
    }

    /// Another object of the same namespace (of another resource, perhaps).
    pub fn sibling(&self, name: &str) -> ObjectKey {
        ObjectKey {
            plane: self.plane.clone(),
            namespace: self.namespace.clone(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.plane, self.name)
        } else {
            write!(f, "{} {}/{}", self.plane, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
