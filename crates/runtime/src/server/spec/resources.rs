//! How much a container may use, and which devices.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use k8s_cri::v1::{ContainerConfig, LinuxContainerResources};
use serde_json::{Value, json};

use crate::error::{Doing, Error, Result};
use crate::system::cgroup::Limits;

pub fn resources(
    config: &ContainerConfig,
    wanted: Option<&LinuxContainerResources>,
    privileged: bool,
) -> Result<Value> {
    let mut devices = vec![json!({"allow": privileged, "access": "rwm"})];
    for device in &config.devices {
        let (kind, major, minor) = node(Path::new(&device.host_path))?;
        let access = if device.permissions.is_empty() {
            "rwm"
        } else {
            &device.permissions
        };
        if !access.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(Error::Invalid(format!(
                "device permissions {access:?} are not of r, w and m"
            )));
        }
        devices.push(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}));
    }
    let mut resources = json!({"devices": devices});
    let Some(wanted) = wanted else {
        return Ok(resources);
    };
    let mut cpu = json!({});
    if wanted.cpu_shares > 0 {
        cpu["shares"] = json!(wanted.cpu_shares);
    }
    if wanted.cpu_quota > 0 {
        cpu["quota"] = json!(wanted.cpu_quota);
    }
    if wanted.cpu_period > 0 {
        cpu["period"] = json!(wanted.cpu_period);
    }
    if !wanted.cpuset_cpus.is_empty() {
        cpu["cpus"] = json!(wanted.cpuset_cpus);
    }
    if !wanted.cpuset_mems.is_empty() {
        cpu["mems"] = json!(wanted.cpuset_mems);
    }
    resources["cpu"] = cpu;
    if wanted.memory_limit_in_bytes > 0 {
        resources["memory"] = json!({"limit": wanted.memory_limit_in_bytes});
        if wanted.memory_swap_limit_in_bytes > 0 {
            resources["memory"]["swap"] = json!(wanted.memory_swap_limit_in_bytes);
        }
    }
    if !wanted.unified.is_empty() {
        resources["unified"] = json!(wanted.unified);
    }
    Ok(resources)
}

/// The same for a container that runs already.
pub fn limits(wanted: &LinuxContainerResources) -> Limits {
    let positive = |value: i64| (value > 0).then_some(value);
    Limits {
        cpu_shares: positive(wanted.cpu_shares).map(|v| v as u64),
        cpu_quota_us: (wanted.cpu_quota != 0).then_some(wanted.cpu_quota),
        cpu_period_us: positive(wanted.cpu_period).map(|v| v as u64),
        memory_bytes: (wanted.memory_limit_in_bytes != 0).then_some(wanted.memory_limit_in_bytes),
        cpuset_cpus: Some(wanted.cpuset_cpus.clone()).filter(|text| !text.is_empty()),
        cpuset_mems: Some(wanted.cpuset_mems.clone()).filter(|text| !text.is_empty()),
    }
}

/// Device nodes to be made in the container: those asked for, and for a privileged one all of the host's.
pub fn devices(config: &ContainerConfig, privileged: bool) -> Result<Vec<Value>> {
    let mut devices = Vec::new();
    for device in &config.devices {
        let (kind, major, minor) = node(Path::new(&device.host_path))?;
        let metadata = std::fs::metadata(&device.host_path).doing(|| format!("device {}", device.host_path))?;
        devices.push(json!({
            "path": device.container_path, "type": kind, "major": major, "minor": minor,
            "fileMode": metadata.mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid(),
        }));
    }
    if privileged {
        for entry in std::fs::read_dir("/dev").doing(|| "read /dev")?.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            // Terminals belong to sessions; the rest are links or come with the container's own /dev.
            if name == "console" || name == "tty" || name == "ptmx" {
                continue;
            }
            let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            if let Ok((kind, major, minor)) = node(&path)
                && !metadata.file_type().is_symlink()
            {
                devices.push(json!({
                    "path": path, "type": kind, "major": major, "minor": minor,
                    "fileMode": metadata.mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid(),
                }));
            }
        }
    }
    Ok(devices)
}

fn node(path: &Path) -> Result<(&'static str, u64, u64)> {
    let metadata = std::fs::metadata(path).doing(|| format!("device {}", path.display()))?;
    let kind = if metadata.file_type().is_char_device() {
        "c"
    } else if metadata.file_type().is_block_device() {
        "b"
    } else {
        return Err(Error::Invalid(format!("{} is not a device", path.display())));
    };
    Ok((
        kind,
        nix::sys::stat::major(metadata.rdev()),
        nix::sys::stat::minor(metadata.rdev()),
    ))
}
