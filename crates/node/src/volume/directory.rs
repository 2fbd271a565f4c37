//! Where a Pod's volumes are on this machine: `<root>/pods/<uid>/volumes/<kind>/<name>`, as kubelet lays them out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::payload::{self, Sources, fs_group, token_owner};
use super::writer::{self, Owner};
use super::{VolumeError, subpath};
use crate::container::env::expand;
use crate::container::quantity;
use crate::pod::references::storage;

/// One Pod's directory.
#[derive(Clone, Debug)]
pub struct PodDirectory {
    path: PathBuf,
}

impl PodDirectory {
    pub fn new(root: &Path, uid: &str) -> PodDirectory {
        PodDirectory {
            path: root.join("pods").join(uid),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn volume(&self, kind: &str, name: &str) -> PathBuf {
        self.path.join("volumes").join(kind).join(name)
    }

    pub fn hosts_file(&self) -> PathBuf {
        self.path.join("etc-hosts")
    }

    /// The file for a container's last words; one an attempt, so that a new one never shows the old one's.
    pub fn message_file(&self, container: &str, attempt: u32) -> PathBuf {
        self.path.join("containers").join(container).join(attempt.to_string())
    }

    /// Makes, or brings up to date, all volumes; returns where each is. `stamp` must be new each time.
    pub fn set_up(&self, sources: &Sources, stamp: &str) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
        let mut places = BTreeMap::new();
        for volume in sources.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            places.insert(volume.name.clone(), self.volume_of(volume, sources, stamp)?);
        }
        Ok(places)
    }

    fn volume_of(&self, volume: &Volume, sources: &Sources, stamp: &str) -> Result<PathBuf, VolumeError> {
        let group = fs_group(sources.pod);
        if let Some(payload) = payload::of(volume, sources) {
            let payload = payload?;
            let (kind, user) = if volume.config_map.is_some() {
                ("kubernetes.io~configmap", None)
            } else if volume.secret.is_some() {
                ("kubernetes.io~secret", None)
            } else if volume.downward_api.is_some() {
                ("kubernetes.io~downward-api", None)
            } else {
                ("kubernetes.io~projected", token_owner(sources.pod))
            };
            let place = self.volume(kind, &volume.name);
            make_directory(&place, 0o755)?;
            writer::write(&place, &payload, Owner { user, group }, stamp)?;
            return Ok(place);
        }
        if let Some(source) = &volume.empty_dir {
            let place = self.volume("kubernetes.io~empty-dir", &volume.name);
            if !place.exists() {
                make_directory(&place, 0o777)?;
            }
            let memory = source.medium.as_deref() == Some("Memory");
            if memory && !is_mount_point(&place) {
                let size = source
                    .size_limit
                    .as_ref()
                    .and_then(|size| quantity::whole(&size.0))
                    .filter(|size| *size > 0);
                let options = size.map_or("mode=1777".to_owned(), |size| format!("mode=1777,size={size}"));
                mount(
                    Some("tmpfs"),
                    &place,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    Some(options.as_str()),
                )
                .map_err(std::io::Error::from)
                .map_err(VolumeError::io("mounting a tmpfs on", &place))?;
            }
            if let Some(group) = group {
                chown(&place, None, Some(group)).map_err(VolumeError::io("changing the group of", &place))?;
                fs::set_permissions(&place, fs::Permissions::from_mode(0o2777))
                    .map_err(VolumeError::io("opening", &place))?;
            }
            return Ok(place);
        }
        if let Some(source) = &volume.host_path {
            return host_path(source);
        }
        if let Some(claim) = storage::claim_of(sources.pod, volume) {
            let place = storage::place(sources.references, &claim)?;
            return claimed(place, group);
        }
        Err(VolumeError::Unsupported(volume.name.clone()))
    }

    /// A container's mounts of its Pod's volumes.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        places: &BTreeMap<String, PathBuf>,
        env: &BTreeMap<String, String>,
    ) -> Result<Vec<cri::Mount>, VolumeError> {
        let mut mounts = Vec::new();
        for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
            let place = places
                .get(&wanted.name)
                .ok_or_else(|| VolumeError::Unknown(wanted.name.clone()))?;
            let sub_path = match (&wanted.sub_path_expr, &wanted.sub_path) {
                (Some(expression), _) if !expression.is_empty() => expand(expression, env),
                (_, Some(path)) => path.clone(),
                _ => String::new(),
            };
            let host_path = if sub_path.is_empty() {
                place.clone()
            } else {
                let target = self
                    .path
                    .join("volume-subpaths")
                    .join(&wanted.name)
                    .join(&container.name)
                    .join(index.to_string());
                // A restarted container sees what the path names now.
                unmount(&target)?;
                subpath::bind(place, &sub_path, &target).map_err(|source| VolumeError::SubPath {
                    volume: wanted.name.clone(),
                    sub_path: sub_path.clone(),
                    source,
                })?
            };
            mounts.push(cri::Mount {
                container_path: wanted.mount_path.clone(),
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: wanted.read_only.unwrap_or(false) || is_read_only_kind(pod, &wanted.name),
                recursive_read_only: matches!(wanted.recursive_read_only.as_deref(), Some("Enabled")),
                propagation: match wanted.mount_propagation.as_deref() {
                    Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
                    Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
                    _ => cri::MountPropagation::PropagationPrivate,
                } as i32,
                ..Default::default()
            });
        }
        Ok(mounts)
    }

    /// Unmounts and removes everything of the Pod. What stays mounted is left alone rather than emptied.
    pub fn remove(&self) -> Result<(), VolumeError> {
        // Deepest first.
        for point in mount_points_below(&self.path).into_iter().rev() {
            unmount(&point)?;
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(VolumeError::io("removing", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Generated files are the node's to write; claims may be wanted for reading only.
fn is_read_only_kind(pod: &Pod, name: &str) -> bool {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .any(|volume| {
            volume.name == name
                && (volume.config_map.is_some()
                    || volume.secret.is_some()
                    || volume.projected.is_some()
                    || volume.downward_api.is_some()
                    || volume
                        .persistent_volume_claim
                        .as_ref()
                        .is_some_and(|claim| claim.read_only == Some(true)))
        })
}

pub fn make_directory(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(VolumeError::io("creating", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("opening", path))
}

fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let found = fs::metadata(&path).ok().map(|metadata| metadata.file_type());
    let check = |fits: bool, wanted: &'static str| {
        if fits {
            Ok(path.clone())
        } else {
            Err(VolumeError::HostPathType {
                path: path.clone(),
                wanted,
            })
        }
    };
    match (kind, found) {
        ("DirectoryOrCreate", None) => {
            make_directory(&path, 0o755)?;
            Ok(path)
        }
        ("FileOrCreate", None) => {
            fs::File::create(&path).map_err(VolumeError::io("creating", &path))?;
            Ok(path)
        }
        ("Directory" | "DirectoryOrCreate", found) => check(found.is_some_and(|kind| kind.is_dir()), "a directory"),
        ("File" | "FileOrCreate", found) => check(found.is_some_and(|kind| kind.is_file()), "a file"),
        ("Socket", found) => check(found.is_some_and(|kind| kind.is_socket()), "a socket"),
        ("CharDevice", found) => check(found.is_some_and(|kind| kind.is_char_device()), "a character device"),
        ("BlockDevice", found) => check(found.is_some_and(|kind| kind.is_block_device()), "a block device"),
        _ => Ok(path),
    }
}

/// What a claim leads to: a directory that is there, or is made for the first Pod.
fn claimed(place: storage::Place, group: Option<u32>) -> Result<PathBuf, VolumeError> {
    let path = place.path;
    if !path.exists() {
        if !place.make {
            return Err(VolumeError::NoPath(path));
        }
        make_directory(&path, 0o777)?;
    }
    if let Some(group) = group.filter(|_| place.takes_group) {
        let has = fs::metadata(&path).map_err(VolumeError::io("reading", &path))?;
        // As `OnRootMismatch`: once given, a large volume is not walked again.
        if std::os::unix::fs::MetadataExt::gid(&has) != group {
            give_to_group(&path, group).map_err(VolumeError::io("changing the group of", &path))?;
        }
    }
    Ok(path)
}

/// Everything below, not following links; the top last, so that one who was interrupted begins anew.
fn give_to_group(path: &Path, group: u32) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to_group(&entry?.path(), group)?;
        }
    }
    std::os::unix::fs::lchown(path, None, Some(group))?;
    if kind.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    let more = if kind.is_dir() { 0o2770 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | more))
}

fn is_mount_point(path: &Path) -> bool {
    mount_points_below(path).iter().any(|point| point == path)
}

/// In the order in which they were made.
fn mount_points_below(path: &Path) -> Vec<PathBuf> {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else {
        return Vec::new();
    };
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(path))
        .collect()
}

/// The kernel writes blanks and backslashes in octal.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unmount(point: &Path) -> Result<(), VolumeError> {
    match umount2(point, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(VolumeError::io("unmounting", point)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::field::NodeFacts;
    use crate::pod::references::{Keys, Kind, Known, Reference, Snapshot};
    use serde_json::json;

    fn is_root() -> bool {
        if nix::unistd::geteuid().is_root() {
            return true;
        }
        println!("skipped: mounting needs root");
        false
    }

    #[test]
    fn a_pods_volumes_are_made_mounted_and_taken_away() {
        if !is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("host");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "web", "uid": "u"},
            "spec": {
                "securityContext": {"fsGroup": 4242},
                "volumes": [
                    {"name": "scratch", "emptyDir": {}},
                    {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                    {"name": "settings", "configMap": {"name": "settings"}},
                    {"name": "host", "hostPath": {"path": host, "type": "DirectoryOrCreate"}},
                ],
                "containers": [{"name": "m", "image": "x", "volumeMounts": [
                    {"name": "settings", "mountPath": "/etc/settings"},
                    {"name": "scratch", "mountPath": "/scratch", "subPathExpr": "$(WHO)/x"},
                    {"name": "settings", "mountPath": "/etc/one", "subPath": "color"},
                ]}]},
        }))
        .unwrap();
        let mut references = Snapshot::default();
        references.0.insert(
            Reference {
                kind: Kind::ConfigMap,
                name: "settings".to_owned(),
            },
            Known::Present(Keys::of(Kind::ConfigMap, &json!({"data": {"color": "green"}})).into()),
        );
        let (facts, tokens) = (NodeFacts::for_tests(), BTreeMap::new());
        let sources = Sources {
            pod: &pod,
            references: &references,
            facts: &facts,
            tokens: &tokens,
        };
        let directory = PodDirectory::new(root.path(), "u");

        let places = directory.set_up(&sources, "one").unwrap();
        let again = directory.set_up(&sources, "two").unwrap();
        let env = BTreeMap::from([("WHO".to_owned(), "me".to_owned())]);
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounts = directory.mounts(&pod, container, &places, &env).unwrap();

        assert_eq!(places, again);
        assert!(host.is_dir());
        assert!(is_mount_point(&places["memory"]));
        assert!(places["scratch"].join("me/x").is_dir());
        assert_eq!(fs::read_to_string(&mounts[2].host_path).unwrap(), "green");
        assert!(mounts[0].readonly && !mounts[1].readonly);
        let group = std::os::unix::fs::MetadataExt::gid(&fs::metadata(places["settings"].join("color")).unwrap());
        assert_eq!(group, 4242);

        directory.remove().unwrap();

        assert!(!directory.path().exists());
        assert!(host.is_dir(), "the host's own directory is not ours to remove");
        assert!(mount_points_below(root.path()).is_empty());
    }

    #[test]
    fn mount_points_with_blanks_are_read() {
        assert_eq!(unescape(r"/a\040b\134c\x"), r"/a b\c\x");
    }
}
