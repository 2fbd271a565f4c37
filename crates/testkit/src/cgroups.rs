//! Control groups of one test: everything it starts is in them, so that nothing can be lost sight of, and the platform
//! finds an empty hierarchy, whatever else runs on the machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Names of tests' groups start so; the process's id follows.
const PREFIX: &str = "testkit-";

/// The kernel counts a killed process as a member until it has been reaped.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);

pub struct Groups {
    /// The real root of each hierarchy, held open: the test's own root is mounted over it.
    roots: Vec<Root>,
}

struct Root {
    /// `/proc/self/fd/N` of the hierarchy's real root.
    real: PathBuf,
    _fd: fs::File,
    point: PathBuf,
    own: String,
}

impl Groups {
    /// Makes a group in every hierarchy, moves this process into it, and mounts it as the hierarchy's root. The calling
    /// thread has to be in a mount namespace of its own.
    pub fn enter() -> io::Result<Groups> {
        let own = format!("{PREFIX}{}", std::process::id());
        let mut roots = Vec::new();
        for point in mount_points()? {
            sweep(&point);
            let group = point.join(&own);
            make(&group)?;
            fs::write(group.join("cgroup.procs"), std::process::id().to_string())?;
            let fd = fs::File::open(&point)?;
            let real = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
            roots.push(Root {
                real,
                _fd: fd,
                point,
                own: own.clone(),
            });
        }
        unshare(CloneFlags::CLONE_NEWCGROUP)?;
        for root in &roots {
            let group = root.real.join(&root.own);
            mount(Some(&group), &root.point, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            // A group of version 2 that has processes can't hand controllers on: the test itself is one further down.
            let test = root.point.join("test");
            make(&test)?;
            fs::write(test.join("cgroup.procs"), std::process::id().to_string())?;
        }
        Ok(Groups { roots })
    }

    /// All processes that the test has started and that still run, without itself.
    pub fn processes(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for root in &self.roots {
            collect(&root.point, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| *pid != std::process::id());
        pids
    }

    /// Names of the groups that others than the test have made, in all hierarchies.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .roots
            .iter()
            .flat_map(|root| children(&root.point).into_iter().map(|path| path.display().to_string()))
            .filter(|name| !name.ends_with("/test"))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill_now(pid);
        }
        for root in &self.roots {
            // Best effort: what can't be removed now is by the next test's sweep.
            let _ = fs::write(root.real.join("cgroup.procs"), std::process::id().to_string());
            remove_when_empty(&root.real.join(&root.own));
        }
    }
}

/// Groups of tests that were killed before they could clean up.
fn sweep(point: &Path) {
    for group in children(point) {
        let pid = group
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        let mut left = Vec::new();
        collect(&group, &mut left);
        left.into_iter().for_each(kill_now);
        remove_when_empty(&group);
    }
}

/// Where hierarchies are mounted, of version 1 and 2.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/thread-self/mounts")?;
    let points = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
    });
    Ok(points.collect())
}

fn make(group: &Path) -> io::Result<()> {
    fs::create_dir_all(group)?;
    let parent = group.parent().expect("a group is below a hierarchy's root");
    // A cpuset of version 1 takes no process before it has been told its processors.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (own, above) = (group.join(file), parent.join(file));
        if above.exists() && own.exists() && fs::read_to_string(&own)?.trim().is_empty() {
            fs::write(own, fs::read_to_string(above)?)?;
        }
    }
    // What version 2 has at its root is handed down one level at a time.
    let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // Refused where the parent has processes of its own: then the test's group goes without.
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn collect(folder: &Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for child in children(folder) {
        collect(&child, pids);
    }
}

fn kill_now(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn remove_when_empty(folder: &Path) {
    let begin = Instant::now();
    while !remove(folder) && begin.elapsed() < EMPTY_WITHIN {
        // No kernel that we support tells version 1's groups apart from busy ones by an event.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove(folder: &Path) -> bool {
    children(folder).iter().for_each(|child| {
        remove(child);
    });
    fs::remove_dir(folder).is_ok() || !folder.exists()
}
