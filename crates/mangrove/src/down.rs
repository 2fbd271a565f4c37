//! `mangrove down`: first the server, then what it would have left running.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cli,
    platform::{Layout, Platform, same},
    wiring::house::{network_options, runtime_options},
};

/// A server ends in well under a second; one that hangs is killed, which loses nothing (D5).
const SERVER_STOP_MAX: Duration = Duration::from_secs(20);

pub fn run(options: cli::Down) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("`mangrove down` removes network interfaces and mounts and needs root: run it by sudo");
    }
    let recorded = Platform::recorded()?;
    let data_dir = match (&options.data_dir, &recorded) {
        (Some(wanted), Some(platform)) if !same(wanted, &platform.data_dir) => bail!(
            "the platform on this machine has the data directory {}, not {}",
            platform.data_dir.display(),
            wanted.display()
        ),
        (Some(wanted), _) => wanted.clone(),
        (None, Some(platform)) => platform.data_dir.clone(),
        (None, None) => PathBuf::from(cli::DATA_DIR),
    };
    let cgroup_root = recorded.as_ref().and_then(|platform| platform.cgroup_root.clone());
    if let Some(platform) = recorded.filter(Platform::is_alive) {
        stop_server(&platform)?;
    }
    if !data_dir.exists() {
        println!("nothing runs, and there is no data directory {}", data_dir.display());
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(clear(&Layout::of(&data_dir), cgroup_root))?;
    Platform::forget()?;
    println!("the platform is down; its data stays in {}", data_dir.display());
    Ok(())
}

fn stop_server(platform: &Platform) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(platform.pid).context("reading the platform's pid")?);
    kill(pid, Signal::SIGTERM).with_context(|| format!("ending the server, process {pid}"))?;
    let begin = Instant::now();
    while platform.is_alive() {
        if begin.elapsed() > SERVER_STOP_MAX {
            eprintln!(
                "the server did not end within {} s and is killed",
                SERVER_STOP_MAX.as_secs()
            );
            kill(pid, Signal::SIGKILL).with_context(|| format!("killing the server, process {pid}"))?;
        }
        // A process that is not a child can't be waited for by an event that every kernel has.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ends all sandboxes and takes the network back.
async fn clear(layout: &Layout, cgroup_root: Option<String>) -> anyhow::Result<()> {
    let mut options = runtime_options(layout)?;
    if let Some(root) = cgroup_root {
        options.cgroup_root = root;
    }
    let runtime = runtime::Runtime::open(options).await.context("opening the runtime")?;
    runtime.teardown().await.context("ending the sandboxes")?;
    // Only there: a person may have mounted the data directory, or a disk for a part of it.
    for folder in [layout.node(), layout.runtime()] {
        unmount_below(&folder)?;
    }
    let door = network::DoorPorts { api: 0, dns: 0 };
    network::teardown(&network_options(std::net::Ipv4Addr::UNSPECIFIED, Some(door)))
        .await
        .context("taking the network back")?;
    Ok(())
}

/// Volumes of Pods that a killed server could not clean up.
fn unmount_below(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let folder = std::fs::canonicalize(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    // The fifth field is where; later mounts may lie on earlier ones.
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|path| path.starts_with(&folder) && *path != folder);
    for path in below.collect::<Vec<_>>().into_iter().rev() {
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", path.display()))?;
    }
    Ok(())
}

/// Spaces and the like are written as octal in mountinfo (proc(5)).
fn unescape(path: &str) -> PathBuf {
    PathBuf::from(
        path.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\"),
    )
}
