//! What the machine has to have, looked at before anything is started, so that the answer is one line that says what to do.

use std::path::Path;

use anyhow::bail;

/// File systems and programs that the platform can't do without.
pub fn machine() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("`mangrove up` starts containers and sets up a network, and needs root: run it by sudo");
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.trim_end().ends_with("\toverlay")) {
        bail!("this kernel has no overlay file system, which container images need: load it by `modprobe overlay`");
    }
    if !["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        bail!("there is no nft, which carries Service traffic: install it by `apt-get install nftables`");
    }
    if !Path::new("/sys/fs/cgroup").is_dir()
        || std::fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut dir| dir.next().is_none())
    {
        bail!("no cgroup hierarchy is mounted at /sys/fs/cgroup, which limits containers: mount cgroup2 there");
    }
    Ok(())
}
