//! How much sandboxes and containers use, read from the kernel when asked for.

use std::fs;
use std::path::Path;

use k8s_cri::v1;

use super::records::{Container, Sandbox};
use super::runtime::{Inner, now_ns};
use crate::error::Result;
use crate::system::cgroup::Usage;

/// Files counted in one writable layer; beyond it the figure is a lower bound, because a measurement must end.
const MAX_COUNTED_FILES: u64 = 200_000;

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

fn memory(usage: &Usage, now: i64) -> v1::MemoryUsage {
    v1::MemoryUsage {
        timestamp: now,
        working_set_bytes: value(usage.working_set_bytes),
        available_bytes: usage
            .limit_bytes
            .and_then(|limit| value(limit.saturating_sub(usage.working_set_bytes))),
        usage_bytes: value(usage.memory_bytes),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
    }
}

impl Inner {
    /// Blocks; `None` for a container that does not run.
    pub(super) fn container_stats(&self, container: &Container) -> Option<v1::ContainerStats> {
        if !container.is_running() {
            return None;
        }
        let record = container.record();
        let usage = self.hierarchies.usage(&record.plan.cgroup).ok()?;
        let now = now_ns();
        let rate = {
            let mut measured = container
                .measured
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            measured.replace((now, usage.cpu_ns)).and_then(|(then, cpu)| {
                let elapsed = u128::try_from(now - then).ok().filter(|elapsed| *elapsed > 0)?;
                let used = u128::from(usage.cpu_ns.saturating_sub(cpu));
                u64::try_from(used * 1_000_000_000 / elapsed).ok()
            })
        };
        let upper = self.container_folder(&container.id).join("upper");
        let (bytes, inodes) = folder_usage(&upper);
        Some(v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            cpu: Some(v1::CpuUsage {
                timestamp: now,
                usage_core_nano_seconds: value(usage.cpu_ns),
                usage_nano_cores: rate.and_then(value),
            }),
            memory: Some(memory(&usage, now)),
            writable_layer: Some(v1::FilesystemUsage {
                timestamp: now,
                fs_id: Some(v1::FilesystemIdentifier {
                    mountpoint: self.options.root.join("containers").to_string_lossy().into_owned(),
                }),
                used_bytes: value(bytes),
                inodes_used: value(inodes),
            }),
            swap: Some(v1::SwapUsage {
                timestamp: now,
                swap_available_bytes: None,
                swap_usage_bytes: value(usage.swap_bytes),
            }),
        })
    }

    /// Blocks.
    pub(super) fn sandbox_stats(&self, sandbox: &Sandbox) -> Result<v1::PodSandboxStats> {
        let record = sandbox.record();
        let containers: Vec<v1::ContainerStats> = self
            .containers_of(&sandbox.id)
            .iter()
            .filter_map(|container| self.container_stats(container))
            .collect();
        let usages: Vec<Usage> = self
            .containers_of(&sandbox.id)
            .iter()
            .filter(|container| container.is_running())
            .filter_map(|container| {
                self.hierarchies
                    .usage(&container.with(|record| record.plan.cgroup.clone()))
                    .ok()
            })
            .collect();
        let sum = |of: fn(&Usage) -> u64| usages.iter().map(of).sum::<u64>();
        let total = Usage {
            cpu_ns: sum(|u| u.cpu_ns),
            memory_bytes: sum(|u| u.memory_bytes),
            working_set_bytes: sum(|u| u.working_set_bytes),
            rss_bytes: sum(|u| u.rss_bytes),
            page_faults: sum(|u| u.page_faults),
            major_page_faults: sum(|u| u.major_page_faults),
            swap_bytes: sum(|u| u.swap_bytes),
            limit_bytes: None,
            processes: sum(|u| u.processes),
        };
        let now = now_ns();
        let network = record
            .host_interface
            .as_ref()
            .filter(|_| sandbox.is_ready())
            .and_then(|_| interface(record.supervisor_pid, "eth0"));
        Ok(v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            linux: Some(v1::LinuxPodSandboxStats {
                cpu: Some(v1::CpuUsage {
                    timestamp: now,
                    usage_core_nano_seconds: value(total.cpu_ns),
                    usage_nano_cores: None,
                }),
                memory: Some(memory(&total, now)),
                network: network.map(|interface| v1::NetworkUsage {
                    timestamp: now,
                    default_interface: Some(interface.clone()),
                    interfaces: vec![interface],
                }),
                process: Some(v1::ProcessUsage {
                    timestamp: now,
                    process_count: value(total.processes),
                }),
                containers,
            }),
            windows: None,
        })
    }

    /// What images and writable layers take. Blocks.
    pub(super) fn filesystem_usage(&self) -> v1::ImageFsInfoResponse {
        let now = now_ns();
        let usage = |path: &Path, (bytes, inodes): (u64, u64)| v1::FilesystemUsage {
            timestamp: now,
            fs_id: Some(v1::FilesystemIdentifier {
                mountpoint: path.to_string_lossy().into_owned(),
            }),
            used_bytes: value(bytes),
            inodes_used: value(inodes),
        };
        let containers = self.options.root.join("containers");
        let ids: Vec<String> = self.state().containers.keys().cloned().collect();
        let written = ids.iter().fold((0, 0), |sum, id| {
            let (bytes, inodes) = folder_usage(&self.container_folder(id).join("upper"));
            (sum.0 + bytes, sum.1 + inodes)
        });
        v1::ImageFsInfoResponse {
            image_filesystems: vec![usage(self.images.images_folder(), self.images.usage())],
            container_filesystems: vec![usage(&containers, written)],
        }
    }
}

/// Bytes on disk and files below a folder, not following links.
fn folder_usage(folder: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let mut total = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            total.0 += metadata.blocks() * 512;
            total.1 += 1;
            if total.1 >= MAX_COUNTED_FILES {
                return total;
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    total
}

/// Counters of an interface as a process in its namespace sees them.
fn interface(pid: i32, name: &str) -> Option<v1::NetworkInterfaceUsage> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Some(v1::NetworkInterfaceUsage {
        name: name.to_owned(),
        rx_bytes: value(*numbers.first()?),
        rx_errors: value(*numbers.get(2)?),
        tx_bytes: value(*numbers.get(8)?),
        tx_errors: value(*numbers.get(10)?),
    })
}
