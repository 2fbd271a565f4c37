//! The platform that is measured: started by this program as a person would, in namespaces of the measurement's own.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use api::resource::VIRTUAL_CLUSTERS;
use identity::kubeconfig::{self, Entry};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use super::{link::Link, usage::Usage};
use crate::{
    control::ControlSocket,
    platform::{self, Layout},
};

pub struct Platform {
    layout: Layout,
    server: u32,
}

/// Network, mounts and `/run` that nobody else sees.
pub fn enter_namespaces() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a measurement starts a platform in namespaces of its own and needs root: run it by sudo");
    }
    if let Some(running) = platform::Platform::recorded()?.filter(platform::Platform::is_alive) {
        bail!(
            "a platform runs on this machine (process {}), which would be measured along: end it by `mangrove down`",
            running.pid
        );
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("making namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("making mounts private")?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mounting /run")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    match up {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("can't set up the loopback interface: install `ip` by `apt-get install iproute2`"),
    }
}

impl Platform {
    pub fn start(disk: &Path) -> anyhow::Result<Platform> {
        let data_dir = disk.join(format!("mangrove-bench-{}", std::process::id()));
        mangrove(&["up", "--detach", "--data-dir"], &data_dir)?;
        let recorded = platform::Platform::recorded()?.context("a platform that has started is not recorded")?;
        Ok(Platform {
            layout: Layout { data_dir },
            server: recorded.pid,
        })
    }

    pub fn end(self) -> anyhow::Result<()> {
        let data_dir = &self.layout.data_dir;
        mangrove(&["down", "--data-dir"], data_dir)?;
        std::fs::remove_dir_all(data_dir).with_context(|| format!("removing {}", data_dir.display()))
    }

    pub fn data_dir(&self) -> &Path {
        &self.layout.data_dir
    }

    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of_server(self.server)
    }

    pub fn control(&self) -> ControlSocket {
        ControlSocket::new(self.layout.control_socket())
    }

    /// The super plane's administrator, as kubectl has it.
    pub fn administrator(&self) -> anyhow::Result<Entry> {
        Ok(kubeconfig::read(&self.layout.admin_kubeconfig())?)
    }

    /// A tenant that is ready, and its administrator.
    pub async fn make_tenant(&self, name: &str) -> anyhow::Result<Entry> {
        let link = Link::open(&self.administrator()?).await?;
        link.create(&virtual_clusters(), &virtual_cluster(name)).await?;
        let path = format!("{}?watch=true&fieldSelector=metadata.name%3D{name}", virtual_clusters());
        let mut events = link.watch(&path).await?;
        while let Some(event) = events.next().await? {
            if event["object"]["status"]["phase"] == "Running" {
                return Ok(self.control().tenant_access(name).await?.into_entry());
            }
        }
        bail!("the platform stopped while tenant {name:?} was waited for")
    }
}

pub fn virtual_clusters() -> String {
    format!("/apis/{}/{}", VIRTUAL_CLUSTERS.api_version(), VIRTUAL_CLUSTERS.plural)
}

pub fn virtual_cluster(name: &str) -> serde_json::Value {
    json!({"apiVersion": VIRTUAL_CLUSTERS.api_version(), "kind": VIRTUAL_CLUSTERS.kind,
        "metadata": {"name": name}, "spec": {}})
}

/// This program, with a word of what went wrong.
fn mangrove(arguments: &[&str], data_dir: &Path) -> anyhow::Result<()> {
    let output = Command::new(std::env::current_exe().context("finding this program")?)
        .args(arguments)
        .arg(data_dir)
        .stdin(Stdio::null())
        .output()
        .context("starting this program")?;
    if !output.status.success() {
        bail!(
            "`mangrove {}`: {}",
            arguments[0],
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
