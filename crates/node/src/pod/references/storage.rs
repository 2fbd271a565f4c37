//! Claims and the volumes behind them, as far as a node needs to know: where on this machine the files are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, Volume};
use serde_json::Value;

use super::{Keys, Kind, Missing, Reference, Snapshot};

/// Where a claim leads on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub path: PathBuf,
    /// The directory is made if it is missing: who provisioned the volume counts on it.
    pub make: bool,
    /// Its files are given to the Pod's `fsGroup`. Not those of a `hostPath`, which are the machine's own.
    pub takes_group: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("PVC {0:?} is not bound")]
    NotBound(String),
    #[error("PersistentVolume {0:?} is bound to another claim")]
    OfAnother(String),
    #[error("PersistentVolume {0:?} is neither local nor a hostPath")]
    Unsupported(String),
    #[error("PersistentVolume {0:?} is a block device, which this node does not serve")]
    Block(String),
}

/// The claim's name behind a Pod's volume; generic ephemeral volumes have one of their own.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name))
}

/// Volumes that the Pod's claims name, as far as these are known.
pub fn behind(known: &Snapshot) -> BTreeSet<Reference> {
    let claims = known.0.iter().filter(|(reference, _)| reference.kind == Kind::Claim);
    claims
        .filter_map(|(_, claim)| match claim {
            super::Known::Present(keys) => text(keys, VOLUME),
            super::Known::Absent => None,
        })
        .filter(|name| !name.is_empty())
        .map(|name| Reference {
            kind: Kind::Volume,
            name,
        })
        .collect()
}

/// Where the claim's files are.
pub fn place(known: &Snapshot, claim: &str) -> Result<Place, StorageError> {
    let keys = known.get(Kind::Claim, claim)?;
    let volume = text(keys, VOLUME).unwrap_or_default();
    if volume.is_empty() || text(keys, PHASE).as_deref() != Some("Bound") {
        return Err(StorageError::NotBound(claim.to_owned()));
    }
    let found = known.get(Kind::Volume, &volume)?;
    // Names can be claimed by writing them; a volume says itself whose it is.
    if text(found, CLAIM) != text(keys, UID) {
        return Err(StorageError::OfAnother(volume));
    }
    if text(found, MODE).as_deref() == Some("Block") {
        return Err(StorageError::Block(volume));
    }
    let path = text(found, PATH).filter(|path| path.starts_with('/'));
    let path = path.ok_or(StorageError::Unsupported(volume))?;
    let is_local = text(found, KIND).as_deref() == Some("local");
    Ok(Place {
        path: path.into(),
        make: text(found, MAKE).is_some(),
        takes_group: is_local,
    })
}

const UID: &str = "uid";
const PHASE: &str = "phase";
const VOLUME: &str = "volume";
const CLAIM: &str = "claim";
const MODE: &str = "mode";
const PATH: &str = "path";
const KIND: &str = "kind";
const MAKE: &str = "make";

fn text(keys: &Keys, key: &str) -> Option<String> {
    keys.get(key).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

fn keys<const N: usize>(pairs: [(&str, Option<&str>); N]) -> Keys {
    let pairs = pairs.into_iter();
    Keys {
        text: pairs
            .filter_map(|(key, value)| Some((key.to_owned(), value?.as_bytes().to_vec())))
            .collect(),
        binary: BTreeMap::new(),
    }
}

pub(super) fn claim(tree: &Value) -> Keys {
    keys([
        (UID, tree["metadata"]["uid"].as_str()),
        (PHASE, tree["status"]["phase"].as_str()),
        (VOLUME, tree["spec"]["volumeName"].as_str()),
    ])
}

pub(super) fn volume(tree: &Value) -> Keys {
    let spec = &tree["spec"];
    let (kind, path) = match (spec["local"]["path"].as_str(), spec["hostPath"]["path"].as_str()) {
        (Some(path), _) => (Some("local"), Some(path)),
        (None, Some(path)) => (Some("hostPath"), Some(path)),
        (None, None) => (None, None),
    };
    let provisioned = tree["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"].as_str();
    let make = provisioned.is_some_and(|by| by.contains(LOCAL_PATH)) || spec["hostPath"]["type"] == "DirectoryOrCreate";
    keys([
        (CLAIM, spec["claimRef"]["uid"].as_str()),
        (MODE, spec["volumeMode"].as_str()),
        (KIND, kind),
        (PATH, path),
        (MAKE, make.then_some("yes")),
    ])
}

/// In the name of provisioners that leave making the directory to the node.
const LOCAL_PATH: &str = "local-path";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::Known;
    use super::*;

    fn known(objects: &[(Kind, &str, Value)]) -> Snapshot {
        let object = |(kind, name, tree): &(Kind, &str, Value)| {
            let reference = Reference {
                kind: *kind,
                name: (*name).to_owned(),
            };
            (reference, Known::Present(Arc::new(Keys::of(*kind, tree))))
        };
        Snapshot(objects.iter().map(object).collect())
    }

    fn bound() -> (Kind, &'static str, Value) {
        let claim = json!({"metadata": {"uid": "c1"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        (Kind::Claim, "data", claim)
    }

    fn volume_with(spec: Value) -> (Kind, &'static str, Value) {
        (Kind::Volume, "pv", json!({"metadata": {}, "spec": spec}))
    }

    #[test]
    fn a_bound_claim_leads_to_its_volumes_files() {
        let local = json!({"claimRef": {"uid": "c1"}, "local": {"path": "/mnt/disk"}});

        let place = place(&known(&[bound(), volume_with(local)]), "data").unwrap();

        assert_eq!(place.path, PathBuf::from("/mnt/disk"));
        assert!(place.takes_group && !place.make);
    }

    #[test]
    fn what_is_not_bound_or_of_another_leads_nowhere() {
        let pending = (
            Kind::Claim,
            "data",
            json!({"metadata": {"uid": "c1"}, "status": {"phase": "Pending"}}),
        );
        let theirs = json!({"claimRef": {"uid": "c2"}, "hostPath": {"path": "/secret"}});
        let nfs = json!({"claimRef": {"uid": "c1"}, "nfs": {"path": "/x"}});

        for (objects, expected) in [
            (vec![pending], "PVC \"data\" is not bound"),
            (
                vec![bound(), volume_with(theirs)],
                "PersistentVolume \"pv\" is bound to another claim",
            ),
            (
                vec![bound(), volume_with(nfs)],
                "PersistentVolume \"pv\" is neither local nor a hostPath",
            ),
            (vec![bound()], "persistentvolume \"pv\" has not been read yet"),
            (vec![], "persistentvolumeclaim \"data\" has not been read yet"),
        ] {
            assert_eq!(place(&known(&objects), "data").unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn volumes_are_named_by_claims_that_are_known() {
        let names: Vec<String> = behind(&known(&[bound()])).into_iter().map(|found| found.name).collect();

        assert_eq!(names, ["pv"]);
    }
}
