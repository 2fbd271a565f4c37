//! What this machine is and has, read from the kernel.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::container::resources::NodeCapacity;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    pub capacity: NodeCapacity,
    pub kernel: String,
    pub os_image: String,
    /// As Go names it: `amd64`.
    pub architecture: &'static str,
    pub machine_id: String,
    pub boot_id: String,
    pub system_uuid: String,
}

/// What is left, for the node's conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub disk_inodes: i64,
    pub pids: i64,
}

pub fn read(root: &Path) -> Machine {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let disk = nix::sys::statvfs::statvfs(root).ok();
    let kernel = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    Machine {
        capacity: NodeCapacity {
            cpu_milli: i64::try_from(cpus).unwrap_or(1).saturating_mul(1000),
            memory_bytes: memory("MemTotal"),
            ephemeral_storage_bytes: disk.map_or(0, |disk| signed(disk.blocks().saturating_mul(disk.fragment_size()))),
        },
        kernel,
        os_image: os_image(&text("/etc/os-release")),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        machine_id: text("/etc/machine-id"),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        system_uuid: text("/sys/class/dmi/id/product_uuid"),
    }
}

pub fn left(root: &Path) -> Left {
    let disk = nix::sys::statvfs::statvfs(root).ok();
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
    };
    // The fourth field of loadavg is `running/all`.
    let threads = std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().nth(3)?.split_once('/')?.1.parse::<i64>().ok());
    let pids = match (number("/proc/sys/kernel/pid_max"), threads) {
        (Some(max), Some(threads)) => max.saturating_sub(threads),
        _ => i64::MAX,
    };
    Left {
        memory_bytes: memory("MemAvailable"),
        disk_bytes: disk.map_or(i64::MAX, |disk| {
            signed(disk.blocks_available().saturating_mul(disk.fragment_size()))
        }),
        // File systems without a fixed number of inodes say 0 of 0.
        disk_inodes: disk
            .filter(|disk| disk.files() > 0)
            .map_or(i64::MAX, |disk| signed(disk.files_available())),
        pids,
    }
}

/// The first address of a range of Pods: by it a machine is known to its own.
pub fn gateway(pod_cidr: &str) -> Option<Ipv4Addr> {
    let (network, _) = pod_cidr.split_once('/')?;
    let network: Ipv4Addr = network.parse().ok()?;
    Some(Ipv4Addr::from(u32::from(network).checked_add(1)?))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn memory(field: &str) -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    meminfo(&text, field).unwrap_or(0)
}

fn meminfo(text: &str, field: &str) -> Option<i64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn os_image(release: &str) -> String {
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(
            meminfo("MemTotal:       24 kB\nMemFree: 1 kB\n", "MemTotal"),
            Some(24 * 1024)
        );
        assert_eq!(meminfo("MemTotalX: 24 kB", "MemTotal"), None);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");

        let machine = read(Path::new("/"));
        let left = left(Path::new("/"));

        assert!(machine.capacity.cpu_milli >= 1000 && machine.capacity.memory_bytes > 0);
        assert!(left.memory_bytes > 0 && left.memory_bytes <= machine.capacity.memory_bytes);
        assert!(!machine.kernel.is_empty());
    }
}
