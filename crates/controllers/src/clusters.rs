//! Which planes have nodes and volumes of their own. What the others see of either is shown to them by somebody else, who
//! also says what becomes of Pods there.

use std::sync::Arc;

use client::PlaneKey;

#[derive(Clone)]
pub struct Clusters {
    has: Arc<dyn Fn(&PlaneKey) -> bool + Send + Sync>,
    volumes_root: Arc<str>,
}

impl Clusters {
    /// `volumes_root`: where nodes keep the directories of local volumes, unless they say otherwise.
    pub fn new(has: impl Fn(&PlaneKey) -> bool + Send + Sync + 'static, volumes_root: &str) -> Clusters {
        Clusters {
            has: Arc::new(has),
            volumes_root: volumes_root.into(),
        }
    }

    /// The one cluster there is.
    pub fn only(plane: PlaneKey, volumes_root: &str) -> Clusters {
        Clusters::new(move |other| *other == plane, volumes_root)
    }

    pub fn has(&self, plane: &PlaneKey) -> bool {
        (self.has)(plane)
    }

    pub(crate) fn volumes_root(&self) -> &str {
        &self.volumes_root
    }
}
