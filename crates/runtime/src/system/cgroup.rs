//! Control groups, version 1 (also in its hybrid form) and version 2: making, filling, measuring, limiting, removing.
//! Paths are absolute within the hierarchies, `/mangrove/<sandbox>/<container>`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mounts;

#[derive(Debug, Clone)]
pub struct Hierarchies {
    /// Mount points of version 1, with their controllers (`name=systemd` too).
    v1: Vec<(PathBuf, Vec<String>)>,
    v2: Option<PathBuf>,
    /// Version 2 has the controllers (not the hybrid layout, in which it has none worth the name).
    unified: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    /// What can't be taken back under pressure: usage without inactive file pages.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_bytes: u64,
    pub limit_bytes: Option<u64>,
    pub processes: u64,
}

/// What may be changed while a container runs. `None` leaves it alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_bytes: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
}

impl Hierarchies {
    pub fn find() -> io::Result<Hierarchies> {
        let mut v1 = Vec::new();
        let mut v2 = None;
        for entry in mounts::table()? {
            match entry.kind.as_str() {
                "cgroup" => {
                    let controllers = entry
                        .super_options
                        .split(',')
                        .filter(|option| !matches!(*option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix"))
                        .map(str::to_owned)
                        .collect();
                    v1.push((entry.point, controllers));
                }
                "cgroup2" => v2 = Some(entry.point),
                _ => {}
            }
        }
        let unified = v1.is_empty() && v2.is_some();
        Ok(Hierarchies { v1, v2, unified })
    }

    pub fn exist(&self) -> bool {
        self.unified || self.v1_folder("memory").is_some()
    }

    pub fn describe(&self) -> &'static str {
        if self.unified { "v2" } else { "v1" }
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        self.v1
            .iter()
            .map(|(point, _)| point.as_path())
            .chain(self.v2.as_deref())
    }

    fn v1_folder(&self, controller: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(_, controllers)| controllers.iter().any(|c| c == controller))
            .map(|(point, _)| point.as_path())
    }

    fn of(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let point = if self.unified {
            self.v2.as_deref()
        } else {
            self.v1_folder(controller)
        }?;
        Some(below(point, path))
    }

    /// Makes the group in all hierarchies.
    pub fn make(&self, path: &str) -> io::Result<()> {
        for point in self.folders() {
            let folder = below(point, path);
            fs::create_dir_all(&folder)?;
            if self.unified {
                hand_down(point, path);
            }
            // A new cpuset of version 1 takes no process before it has been told its processors.
            if folder.join("cpuset.cpus").exists() && !self.unified {
                let mut step = point.to_owned();
                for name in Path::new(path.trim_start_matches('/')) {
                    let parent = step.clone();
                    step.push(name);
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        let now = fs::read_to_string(step.join(file)).unwrap_or_default();
                        if now.trim().is_empty() {
                            fs::write(step.join(file), fs::read_to_string(parent.join(file))?)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves a process into the group, in all hierarchies in which the group exists.
    pub fn enter(&self, path: &str, pid: i32) -> io::Result<()> {
        for point in self.folders() {
            let file = below(point, path).join("cgroup.procs");
            if file.exists() {
                fs::write(file, pid.to_string())?;
            }
        }
        Ok(())
    }

    /// Processes of the group and of those below it.
    pub fn processes(&self, path: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        for point in self.folders() {
            collect_processes(&below(point, path), &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Processes of the group itself, where memory is accounted: a process that has a group of its own there has left
    /// this one, though it may still be counted here by hierarchies in which its own group was never made.
    pub fn members(&self, path: &str) -> Vec<i32> {
        let file = self.of("memory", path).map(|folder| folder.join("cgroup.procs"));
        file.and_then(|file| fs::read_to_string(file).ok())
            .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
            .unwrap_or_default()
    }

    /// Kills all processes of the group and of those below it.
    pub fn kill(&self, path: &str) {
        for pid in self.processes(path) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Removes the group and those below it. Busy ones stay and are reported.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let mut result = Ok(());
        for point in self.folders() {
            if let Err(e) = remove_tree(&below(point, path)) {
                result = Err(e);
            }
        }
        result
    }

    /// Names of the groups directly below.
    pub fn children(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .folders()
            .flat_map(|point| fs::read_dir(below(point, path)).into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// How often the kernel has killed in this group for want of memory.
    pub fn out_of_memory_kills(&self, path: &str) -> u64 {
        let Some(folder) = self.of("memory", path) else {
            return 0;
        };
        let file = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        keyed(&folder.join(file), "oom_kill").unwrap_or(0)
    }

    pub fn usage(&self, path: &str) -> io::Result<Usage> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let memory = self.of("memory", path).ok_or_else(missing)?;
        let mut usage = Usage::default();
        if self.unified {
            usage.cpu_ns = keyed(&memory.join("cpu.stat"), "usage_usec").unwrap_or(0) * 1000;
            usage.memory_bytes = number(&memory.join("memory.current"))?;
            let stat = memory.join("memory.stat");
            let inactive = keyed(&stat, "inactive_file").unwrap_or(0);
            usage.working_set_bytes = usage.memory_bytes.saturating_sub(inactive);
            usage.rss_bytes = keyed(&stat, "anon").unwrap_or(0);
            usage.page_faults = keyed(&stat, "pgfault").unwrap_or(0);
            usage.major_page_faults = keyed(&stat, "pgmajfault").unwrap_or(0);
            usage.swap_bytes = number(&memory.join("memory.swap.current")).unwrap_or(0);
            usage.limit_bytes = number(&memory.join("memory.max")).ok();
            usage.processes = number(&memory.join("pids.current")).unwrap_or(0);
        } else {
            if let Some(cpu) = self.of("cpuacct", path) {
                usage.cpu_ns = number(&cpu.join("cpuacct.usage")).unwrap_or(0);
            }
            usage.memory_bytes = number(&memory.join("memory.usage_in_bytes"))?;
            let stat = memory.join("memory.stat");
            let inactive = keyed(&stat, "total_inactive_file").unwrap_or(0);
            usage.working_set_bytes = usage.memory_bytes.saturating_sub(inactive);
            usage.rss_bytes = keyed(&stat, "total_rss").unwrap_or(0);
            usage.page_faults = keyed(&stat, "total_pgfault").unwrap_or(0);
            usage.major_page_faults = keyed(&stat, "total_pgmajfault").unwrap_or(0);
            usage.swap_bytes = keyed(&stat, "total_swap").unwrap_or(0);
            // "No limit" is a page-aligned number near 2^63 in version 1.
            usage.limit_bytes = number(&memory.join("memory.limit_in_bytes"))
                .ok()
                .filter(|bytes| *bytes < 1 << 62);
            if let Some(pids) = self.of("pids", path) {
                usage.processes = number(&pids.join("pids.current")).unwrap_or(0);
            }
        }
        Ok(usage)
    }

    pub fn limit(&self, path: &str, limits: &Limits) -> io::Result<()> {
        let set = |controller: &str, file: &str, value: String| -> io::Result<()> {
            match self.of(controller, path) {
                Some(folder) => fs::write(folder.join(file), value),
                None => Ok(()),
            }
        };
        if let Some(bytes) = limits.memory_bytes {
            match (self.unified, bytes) {
                (true, ..=0) => set("memory", "memory.max", "max".into())?,
                (true, bytes) => set("memory", "memory.max", bytes.to_string())?,
                (false, ..=0) => set("memory", "memory.limit_in_bytes", "-1".into())?,
                (false, bytes) => set("memory", "memory.limit_in_bytes", bytes.to_string())?,
            }
        }
        if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
            if self.unified {
                set("cpu", "cpu.weight", weight_of_shares(shares).to_string())?;
            } else {
                set("cpu", "cpu.shares", shares.to_string())?;
            }
        }
        if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
            let period = limits.cpu_period_us.filter(|period| *period > 0).unwrap_or(100_000);
            let quota = limits.cpu_quota_us.unwrap_or(-1);
            if self.unified {
                let quota = if quota > 0 { quota.to_string() } else { "max".into() };
                set("cpu", "cpu.max", format!("{quota} {period}"))?;
            } else {
                set("cpu", "cpu.cfs_period_us", period.to_string())?;
                set(
                    "cpu",
                    "cpu.cfs_quota_us",
                    if quota > 0 { quota } else { -1 }.to_string(),
                )?;
            }
        }
        if let Some(cpus) = limits.cpuset_cpus.as_ref().filter(|cpus| !cpus.is_empty()) {
            set("cpuset", "cpuset.cpus", cpus.clone())?;
        }
        if let Some(mems) = limits.cpuset_mems.as_ref().filter(|mems| !mems.is_empty()) {
            set("cpuset", "cpuset.mems", mems.clone())?;
        }
        Ok(())
    }
}

/// Under version 2 a group has the controllers that its parent hands down. A group that has processes can't; then its children
/// go without limits, which whoever sets one is told.
fn hand_down(point: &Path, path: &str) {
    let mut step = point.to_owned();
    for name in Path::new(path.trim_start_matches('/')) {
        for controller in ["+cpu", "+cpuset", "+memory", "+pids", "+io"] {
            let _ = fs::write(step.join("cgroup.subtree_control"), controller);
        }
        step.push(name);
    }
}

/// The formula of the OCI runtime specification's conversion, [2, 262144] to [1, 10000].
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn below(point: &Path, path: &str) -> PathBuf {
    point.join(path.trim_start_matches('/'))
}

fn collect_processes(folder: &Path, pids: &mut Vec<i32>) {
    let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) else {
        return;
    };
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|pid| *pid > 0),
    );
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect_processes(&entry.path(), pids);
        }
    }
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    remove_tree(&entry.path())?;
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn number(file: &Path) -> io::Result<u64> {
    fs::read_to_string(file)?
        .trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The value of a `key value` line.
fn keyed(file: &Path, key: &str) -> Option<u64> {
    fs::read_to_string(file)
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_the_specification_says() {
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!(weight_of_shares(262_144), 10_000);
    }

    #[test]
    fn the_files_of_version_2_are_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("pod/one");
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(group.join("cpu.stat"), "usage_usec 7\nuser_usec 3\n").unwrap();
        std::fs::write(group.join("memory.current"), "1000\n").unwrap();
        std::fs::write(group.join("memory.stat"), "anon 300\ninactive_file 100\n").unwrap();
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        std::fs::write(group.join("memory.events"), "oom 2\noom_kill 1\n").unwrap();
        let hierarchies = Hierarchies {
            v1: Vec::new(),
            v2: Some(folder.path().to_owned()),
            unified: true,
        };

        let usage = hierarchies.usage("/pod/one").unwrap();

        assert_eq!(
            (usage.cpu_ns, usage.working_set_bytes, usage.limit_bytes),
            (7000, 900, None)
        );
        assert_eq!(hierarchies.out_of_memory_kills("/pod/one"), 1);

        let limits = Limits {
            memory_bytes: Some(4096),
            cpu_shares: Some(1024),
            cpu_quota_us: Some(20_000),
            cpu_period_us: Some(100_000),
            ..Limits::default()
        };
        hierarchies.limit("/pod/one", &limits).unwrap();

        let text = |name: &str| std::fs::read_to_string(group.join(name)).unwrap();
        assert_eq!(text("memory.max"), "4096");
        assert_eq!(text("cpu.weight"), "39");
        assert_eq!(text("cpu.max"), "20000 100000");
    }
}
