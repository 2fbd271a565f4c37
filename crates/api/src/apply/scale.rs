//! Owners of the number of replicas, seen through `scale`, and seen from there again.

use super::{
    element::Element,
    managed::{Managed, Owned},
    set::Set,
};

const SCALE_VERSION: &str = "autoscaling/v1";

/// Where versions of a kind keep their number of replicas.
pub trait ReplicasPaths {
    /// The version is not known: `None`; it has no `scale`: an empty path.
    fn path(&self, api_version: &str) -> Option<Vec<Element>>;
}

fn of_scale() -> Set {
    Set::of([&["spec", "replicas"]])
}

fn one(path: &[Element]) -> Set {
    let mut set = Set::new();
    set.insert(path);
    set
}

/// The owners of the number of replicas, as of a `Scale`.
pub fn to_scale(parent: &Managed, paths: &dyn ReplicasPaths) -> Managed {
    let mut scale = Managed::default();
    for (manager, owned) in parent.iter() {
        let has = paths
            .path(&owned.api_version)
            .is_some_and(|path| owned.set.contains(&path));
        if has {
            let owned = Owned {
                api_version: SCALE_VERSION.to_owned(),
                set: of_scale(),
                time: owned.time.clone(),
            };
            scale.insert(manager.clone(), owned);
        }
    }
    scale
}

/// The owners of the parent after a write of its `Scale` in this version of it.
pub fn to_parent(parent: &Managed, mut scale: Managed, api_version: &str, paths: &dyn ReplicasPaths) -> Managed {
    let mut out = Managed::default();
    for (manager, owned) in parent.iter() {
        let Some(path) = paths.path(&owned.api_version) else {
            continue;
        };
        let mut owned = owned.clone();
        if owned.set.contains(&path) && scale.remove(manager).is_none() {
            owned.set = owned.set.difference(&one(&path));
        }
        if !owned.set.is_empty() {
            out.insert(manager.clone(), owned);
        }
    }
    let Some(path) = paths.path(api_version) else {
        return out;
    };
    for (manager, owned) in scale.iter() {
        if owned
            .set
            .contains(&[Element::field("spec"), Element::field("replicas")])
        {
            let owned = Owned {
                api_version: api_version.to_owned(),
                set: one(&path),
                time: owned.time.clone(),
            };
            out.insert(manager.clone(), owned);
        }
    }
    out
}
