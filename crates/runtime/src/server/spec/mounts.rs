//! What a container sees where.

use std::path::{Component, Path, PathBuf};

use k8s_cri::v1::{ContainerConfig, LinuxContainerSecurityContext, Mount, MountPropagation};
use serde_json::{Value, json};

use super::Surroundings;
use crate::error::{Error, Result};
use crate::supervisor::plan::Propagation;

/// How the container as a whole passes mounts on: as its most open mount does.
pub fn propagation(config: &ContainerConfig) -> Propagation {
    let any = |wanted: MountPropagation| config.mounts.iter().any(|mount| mount.propagation == wanted as i32);
    if any(MountPropagation::PropagationBidirectional) {
        Propagation::Shared
    } else if any(MountPropagation::PropagationHostToContainer) {
        Propagation::Slave
    } else {
        Propagation::Private
    }
}

pub fn mounts(
    config: &ContainerConfig,
    security: &LinuxContainerSecurityContext,
    around: &Surroundings,
) -> Result<Vec<Value>> {
    let system = if security.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", system]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", system],
        ),
    ];
    for (source, destination) in &around.sandbox_mounts {
        mounts.push(mount(destination, "bind", source, &["rbind", "rw"]));
    }
    let mut wanted = config.mounts.iter().map(Wanted::check).collect::<Result<Vec<_>>>()?;
    // What holds another comes first, or it would hide it.
    wanted.sort_by_key(|wanted| wanted.destination.components().count());
    mounts.retain(|mount| {
        !wanted
            .iter()
            .any(|wanted| mount["destination"].as_str().map(Path::new) == Some(wanted.destination.as_path()))
    });
    for wanted in wanted {
        let passing = match wanted.propagation {
            MountPropagation::PropagationPrivate => "rprivate",
            MountPropagation::PropagationHostToContainer => "rslave",
            MountPropagation::PropagationBidirectional => "rshared",
        };
        let access = match (wanted.mount.readonly, wanted.mount.recursive_read_only) {
            (_, true) => "rro",
            (true, false) => "ro",
            (false, false) => "rw",
        };
        mounts.push(mount(
            &wanted.destination.to_string_lossy(),
            "bind",
            &wanted.mount.host_path,
            &["rbind", passing, access],
        ));
    }
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

struct Wanted<'a> {
    mount: &'a Mount,
    destination: PathBuf,
    propagation: MountPropagation,
}

impl Wanted<'_> {
    fn check(mount: &Mount) -> Result<Wanted<'_>> {
        if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
            return Err(Error::Unsupported("volumes from images are not supported".into()));
        }
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(Error::Unsupported("mounts with mapped ids are not supported".into()));
        }
        if mount.host_path.is_empty() || !Path::new(&mount.host_path).is_absolute() {
            return Err(Error::Invalid(format!(
                "mount source {:?} is not absolute",
                mount.host_path
            )));
        }
        let destination = Path::new("/").join(&mount.container_path);
        if mount.container_path.is_empty() || destination.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Invalid(format!(
                "mount destination {:?} is not a path in the container",
                mount.container_path
            )));
        }
        if mount.recursive_read_only && !mount.readonly {
            return Err(Error::Invalid(
                "a recursively read-only mount has to be read-only".into(),
            ));
        }
        let propagation = MountPropagation::try_from(mount.propagation)
            .map_err(|_| Error::Invalid(format!("{} is no mount propagation", mount.propagation)))?;
        if mount.recursive_read_only && propagation != MountPropagation::PropagationPrivate {
            return Err(Error::Invalid("a recursively read-only mount can't propagate".into()));
        }
        Ok(Wanted {
            mount,
            destination: destination.components().collect(),
            propagation,
        })
    }
}

/// Sources on the host, which are made as folders if there is nothing (as docker and containerd do).
pub fn host_folders(config: &ContainerConfig) -> impl Iterator<Item = &Path> {
    config.mounts.iter().map(|mount| Path::new(mount.host_path.as_str()))
}
