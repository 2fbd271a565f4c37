//! From what CRI asks to what an OCI runtime is told. Pure: requests and image in, a document out.

mod capabilities;
mod mounts;
mod resources;

use k8s_cri::v1;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::ImageConfig;
use crate::supervisor::plan::{ImageGroups, PidPlan, Propagation, UserPlan};

pub use capabilities::available;
pub use mounts::{host_folders, propagation};
pub use resources::{limits, resources};

/// What the specification needs to know beside the request.
pub struct Surroundings {
    /// Process whose namespaces the container joins.
    pub supervisor_pid: i32,
    pub own_network: bool,
    pub own_ipc: bool,
    pub pid: PidNamespace,
    pub cgroup: String,
    pub cgroup_unified: bool,
    pub hostname: String,
    /// Files and folders of the sandbox, bound into each container: (source, destination).
    pub sandbox_mounts: Vec<(String, String)>,
    /// Capabilities that this process has to give.
    pub available: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PidNamespace {
    Own,
    Host,
    /// That of this process.
    Of(i32),
}

impl PidNamespace {
    pub fn of_sandbox(pid: PidPlan, holder: Option<i32>) -> PidNamespace {
        match (pid, holder) {
            (PidPlan::Host, _) => PidNamespace::Host,
            (PidPlan::Sandbox, Some(holder)) => PidNamespace::Of(holder),
            (PidPlan::Sandbox, None) | (PidPlan::Container, _) => PidNamespace::Own,
        }
    }
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn build(config: &v1::ContainerConfig, image: &ImageConfig, around: &Surroundings) -> Result<Value> {
    let security = security(config);
    let linux_config = config.linux.clone().unwrap_or_default();
    let capabilities = capabilities::capabilities(&security, around.available, around.cgroup_unified)?;
    let mut process = json!({
        "terminal": config.tty,
        // The supervisor puts the user in, once it can look into the root.
        "user": {"uid": 0, "gid": 0},
        "args": arguments(config, image)?,
        "env": environment(config, image, &around.hostname),
        "cwd": working_folder(config, image)?,
        "capabilities": capabilities,
        "noNewPrivileges": security.no_new_privs,
    });
    if let Some(profile) = apparmor(&security)? {
        process["apparmorProfile"] = json!(profile);
    }
    let mut namespaces = vec![json!({"type": "mount"})];
    let supervisor = |kind: &str| format!("/proc/{}/ns/{kind}", around.supervisor_pid);
    if around.own_network {
        namespaces.push(json!({"type": "network", "path": supervisor("net")}));
        namespaces.push(json!({"type": "uts", "path": supervisor("uts")}));
    }
    if around.own_ipc {
        namespaces.push(json!({"type": "ipc", "path": supervisor("ipc")}));
    }
    match around.pid {
        PidNamespace::Own => namespaces.push(json!({"type": "pid"})),
        PidNamespace::Of(pid) => namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
        PidNamespace::Host => {}
    }
    if around.cgroup_unified && !security.privileged {
        namespaces.push(json!({"type": "cgroup"}));
    }
    let mounts = mounts::mounts(config, &security, around)?;
    let (masked, read_only) = if security.privileged {
        (Vec::new(), Vec::new())
    } else {
        (security.masked_paths.clone(), security.readonly_paths.clone())
    };
    let resources = resources::resources(config, linux_config.resources.as_ref(), security.privileged)?;
    let linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": around.cgroup,
        "resources": resources,
        "devices": resources::devices(config, security.privileged)?,
        "maskedPaths": masked,
        "readonlyPaths": read_only,
        "rootfsPropagation": match mounts::propagation(config) {
            Propagation::Private => "private",
            Propagation::Slave => "slave",
            Propagation::Shared => "shared",
        },
    });
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": security.readonly_rootfs},
        "mounts": mounts,
        "linux": linux,
    }))
}

/// The profile of the kernel's that the container is to have. We bring none of our own.
fn apparmor(security: &v1::LinuxContainerSecurityContext) -> Result<Option<String>> {
    let Some(wanted) = security.apparmor.as_ref().filter(|_| !security.privileged) else {
        return Ok(None);
    };
    if wanted.profile_type() != v1::security_profile::ProfileType::Localhost {
        return Ok(None);
    }
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with('Y')) {
        return Err(Error::Unsupported("this machine has no AppArmor".into()));
    }
    let name = wanted.localhost_ref.trim_start_matches("localhost/");
    Ok(Some(name.to_owned()))
}

/// The capabilities that the container can have at most.
pub fn bounding(document: &Value) -> Vec<String> {
    let set = document["process"]["capabilities"]["bounding"].as_array();
    let names = set.into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

pub fn security(config: &v1::ContainerConfig) -> v1::LinuxContainerSecurityContext {
    config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.clone())
        .unwrap_or_default()
}

/// A command replaces the image's entry point and its arguments; arguments replace the image's only.
fn arguments(config: &v1::ContainerConfig, image: &ImageConfig) -> Result<Vec<String>> {
    let process = image.config.clone().unwrap_or_default();
    let mut arguments = config.command.clone();
    if arguments.is_empty() {
        arguments = process.entrypoint.unwrap_or_default();
        if config.args.is_empty() {
            arguments.extend(process.cmd.unwrap_or_default());
        }
    }
    arguments.extend(config.args.iter().cloned());
    if arguments.is_empty() {
        return Err(Error::Invalid(
            "neither the container nor its image says what to run".into(),
        ));
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::Invalid("an argument holds a zero byte".into()));
    }
    Ok(arguments)
}

fn environment(config: &v1::ContainerConfig, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut environment = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if config.tty {
        environment.push("TERM=xterm".into());
    }
    let mut set = |entry: String| {
        let name = entry.split('=').next().unwrap_or("").to_owned();
        environment.retain(|known| known.split('=').next() != Some(&name));
        environment.push(entry);
    };
    for entry in image.config.iter().flat_map(|c| c.env.iter().flatten()) {
        if entry.contains('=') {
            set(entry.clone());
        }
    }
    for entry in &config.envs {
        set(format!("{}={}", entry.key, entry.value));
    }
    environment
}

fn working_folder(config: &v1::ContainerConfig, image: &ImageConfig) -> Result<String> {
    let folder = if config.working_dir.is_empty() {
        image
            .config
            .as_ref()
            .and_then(|c| c.working_dir.clone())
            .filter(|folder| !folder.is_empty())
            .unwrap_or_else(|| "/".into())
    } else {
        config.working_dir.clone()
    };
    if !folder.starts_with('/') || folder.split('/').any(|part| part == "..") {
        return Err(Error::Invalid(format!(
            "working folder {folder:?} is not an absolute path"
        )));
    }
    Ok(folder)
}

pub fn user(config: &v1::ContainerConfig, image: &ImageConfig) -> Result<UserPlan> {
    let security = security(config);
    let number = |value: Option<v1::Int64Value>, what: &str| -> Result<Option<u32>> {
        value
            .map(|value| {
                u32::try_from(value.value).map_err(|_| Error::Invalid(format!("{what} {} is no id", value.value)))
            })
            .transpose()
    };
    let uid = number(security.run_as_user, "user")?;
    let gid = number(security.run_as_group, "group")?;
    let name = Some(security.run_as_username).filter(|name| !name.is_empty());
    let image_user = image.config.as_ref().and_then(|c| c.user.clone()).unwrap_or_default();
    if gid.is_some() && uid.is_none() && name.is_none() && image_user.is_empty() {
        return Err(Error::Invalid("a group to run as needs a user to run as".into()));
    }
    let groups = security
        .supplemental_groups
        .iter()
        .map(|group| u32::try_from(*group).map_err(|_| Error::Invalid(format!("group {group} is no id"))))
        .collect::<Result<_>>()?;
    Ok(UserPlan {
        uid,
        name,
        gid,
        image: image_user,
        groups,
        image_groups: match security.supplemental_groups_policy {
            1 => ImageGroups::Strict,
            _ => ImageGroups::Merge,
        },
    })
}

/// By name (`SIGTERM`, `TERM`) or number; the default is the one that every program knows.
pub fn stop_signal(image: &ImageConfig) -> i32 {
    let Some(text) = image.config.as_ref().and_then(|c| c.stop_signal.as_deref()) else {
        return libc::SIGTERM;
    };
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            number
        } else {
            libc::SIGTERM
        };
    }
    let name = text.trim_start_matches("SIG");
    if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<i32>().ok()) {
        return (libc::SIGRTMIN() + offset).min(libc::SIGRTMAX());
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .map_or(libc::SIGTERM, |signal| signal as i32)
}

#[cfg(test)]
mod tests;
