//! Which planes have nodes and volumes of their own. What the others see of either is shown to them by somebody else, who
//! also says what becomes of Pods there.

use std::sync::Arc;

use client::PlaneKey;
use futures::stream::{self, BoxStream, StreamExt};

/// A plane is shown other nodes than before, or the same otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reshown {
    To(PlaneKey),
    /// So many that they were not told one by one.
    ToMany,
}

type Listen = dyn Fn() -> BoxStream<'static, Reshown> + Send + Sync;

#[derive(Clone)]
pub struct Clusters {
    has: Arc<dyn Fn(&PlaneKey) -> bool + Send + Sync>,
    reshown: Option<Arc<Listen>>,
    volumes_root: Arc<str>,
}

impl Clusters {
    /// `volumes_root`: where nodes keep the directories of local volumes, unless they say otherwise.
    pub fn new(has: impl Fn(&PlaneKey) -> bool + Send + Sync + 'static, volumes_root: &str) -> Clusters {
        Clusters {
            has: Arc::new(has),
            reshown: None,
            volumes_root: volumes_root.into(),
        }
    }

    /// The one cluster there is.
    pub fn only(plane: PlaneKey, volumes_root: &str) -> Clusters {
        Clusters::new(move |other| *other == plane, volumes_root)
    }

    /// `listen` tells from when it is called which planes are shown their nodes anew though no node has changed.
    #[must_use]
    pub fn told_of_nodes_by(
        self,
        listen: impl Fn() -> BoxStream<'static, Reshown> + Send + Sync + 'static,
    ) -> Clusters {
        Clusters {
            reshown: Some(Arc::new(listen)),
            ..self
        }
    }

    pub(crate) fn reshown(&self) -> BoxStream<'static, Reshown> {
        match &self.reshown {
            Some(listen) => listen(),
            None => stream::pending().boxed(),
        }
    }

    pub fn has(&self, plane: &PlaneKey) -> bool {
        (self.has)(plane)
    }

    pub(crate) fn volumes_root(&self) -> &str {
        &self.volumes_root
    }
}
