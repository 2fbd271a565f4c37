//! What a platform uses of the machine, as the kernel counts it.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::Context;

/// Memory and processor time of a server and of the supervisors it has started.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub processes: u64,
    pub resident_bytes: u64,
    pub cpu: Duration,
    pub descriptors: u64,
}

impl Usage {
    /// A server that was never started anew is the parent of all its supervisors.
    pub fn of_server(server: u32) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // One that ends meanwhile counts no more.
            let path = entry.path();
            if let Some(stat) = Stat::read(&path)
                && (pid == server || stat.parent == server)
                && let Some(resident_bytes) = resident_bytes(&path)
            {
                sum.processes += 1;
                sum.resident_bytes += resident_bytes;
                sum.cpu += stat.cpu;
                sum.descriptors += fs::read_dir(path.join("fd")).map_or(0, |entries| entries.count() as u64);
            }
        }
        anyhow::ensure!(sum.processes > 0, "the platform has ended while it was measured");
        Ok(sum)
    }
}

/// Processor time of this process until now.
pub fn own_cpu() -> anyhow::Result<Duration> {
    let stat = Stat::read(Path::new("/proc/self"));
    Ok(stat.context("reading this process's own times")?.cpu)
}

struct Stat {
    parent: u32,
    cpu: Duration,
}

impl Stat {
    fn read(process: &Path) -> Option<Stat> {
        let stat = fs::read_to_string(process.join("stat")).ok()?;
        // Fields of the line are counted after the command's name, which may hold spaces, from the third: 4 is the parent,
        // 14 and 15 are times in ticks.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            parent: u32::try_from(number(4)?).ok()?,
            cpu: Duration::from_millis((number(14)? + number(15)?) * 1000 / TICKS_A_SECOND),
        })
    }
}

fn resident_bytes(process: &Path) -> Option<u64> {
    let rollup = fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let resident = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes << 10)
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
