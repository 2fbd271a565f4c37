//! What processes of this program use of the machine, as the kernel counts it.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::Context;

/// Memory and processor time of all processes of this program but the one that measures.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub processes: u64,
    pub resident_bytes: u64,
    pub cpu: Duration,
    pub descriptors: u64,
}

impl Usage {
    pub fn now() -> anyhow::Result<Usage> {
        let own = identity_of(Path::new("/proc/self/exe")).context("finding this program")?;
        let namespace = fs::read_link("/proc/self/ns/mnt").context("reading this process' namespace")?;
        let mut sum = Usage::default();
        for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let path = entry.path();
            // Another platform's processes are not this one's; a process that ends meanwhile counts no more.
            let is_ours =
                pid != std::process::id() && identity_of(&path.join("exe")) == Some(own) && belongs(&path, &namespace);
            if let Some(usage) = is_ours.then(|| of_process(&path)).flatten() {
                sum.processes += 1;
                sum.resident_bytes += usage.resident_bytes;
                sum.cpu += usage.cpu;
                sum.descriptors += usage.descriptors;
            }
        }
        Ok(sum)
    }
}

/// In the measuring process' mount namespace, or below it: a supervisor has one of its own and is its server's child.
fn belongs(process: &Path, namespace: &Path) -> bool {
    fs::read_link(process.join("ns/mnt")).is_ok_and(|its| its == namespace) || has_ancestor(process, namespace)
}

fn has_ancestor(process: &Path, namespace: &Path) -> bool {
    let Ok(stat) = fs::read_to_string(process.join("stat")) else {
        return false;
    };
    let parent = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(1)?.parse::<u32>().ok());
    match parent {
        Some(parent) if parent > 1 => {
            let parent = Path::new("/proc").join(parent.to_string());
            fs::read_link(parent.join("ns/mnt")).is_ok_and(|its| its == namespace)
        }
        _ => false,
    }
}

fn identity_of(program: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(program).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn of_process(path: &Path) -> Option<Usage> {
    let rollup = fs::read_to_string(path.join("smaps_rollup")).ok()?;
    let resident = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let resident_kib: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
    let stat = fs::read_to_string(path.join("stat")).ok()?;
    // Fields after the command's name, which may hold spaces: 14 and 15 of the line are times in ticks.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Usage {
        processes: 1,
        resident_bytes: resident_kib << 10,
        cpu: Duration::from_millis(ticks * 1000 / TICKS_A_SECOND),
        descriptors: fs::read_dir(path.join("fd")).map_or(0, |entries| entries.count() as u64),
    })
}

/// `USER_HZ`, which Linux fixes at 100 for whoever reads `/proc`.
const TICKS_A_SECOND: u64 = 100;

/// Bytes on disk below a folder, in allocated blocks.
pub fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
