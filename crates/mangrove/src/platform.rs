//! Which platform runs on this machine: one, since its network is the machine's. Its record stands where a reboot takes
//! it away.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

pub const RUN_DIR: &str = "/run/mangrove";

/// Threads of a killed process end in milliseconds; one that hangs in the kernel is not waited for.
const DYING_MAX: Duration = Duration::from_secs(5);
/// A process that is not a child can't be waited for by an event that every kernel has.
const DYING_PAUSE: Duration = Duration::from_millis(2);

/// A running (or killed) platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Platform {
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: with the pid it names one process for ever.
    pub start_time: u64,
    pub data_dir: PathBuf,
    pub listen: String,
    /// Of an agent that has been told another than the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_root: Option<String>,
}

/// Where things are inside a data directory. One place, so that `up` and `down` agree.
pub struct Layout {
    pub data_dir: PathBuf,
}

impl Layout {
    pub fn of(data_dir: &Path) -> Layout {
        Layout {
            data_dir: data_dir.to_owned(),
        }
    }

    pub fn make(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.data_dir)
            .with_context(|| format!("can't make the data directory {}", self.data_dir.display()))
    }

    pub fn store(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    pub fn runtime(&self) -> PathBuf {
        self.data_dir.join("runtime")
    }

    pub fn node(&self) -> PathBuf {
        self.data_dir.join("node")
    }

    pub fn log(&self) -> PathBuf {
        self.data_dir.join("mangrove.log")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.data_dir.join("control.sock")
    }

    pub fn runtime_run(&self) -> PathBuf {
        Path::new(RUN_DIR).join("runtime")
    }

    pub fn cri_socket(&self) -> PathBuf {
        Path::new(RUN_DIR).join("cri.sock")
    }
}

fn record() -> PathBuf {
    Path::new(RUN_DIR).join("platform.json")
}

impl Platform {
    /// The record of the platform that was started last and not ended, whether or not its process lives.
    pub fn recorded() -> anyhow::Result<Option<Platform>> {
        let path = record();
        match fs::read(&path) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    pub fn of_this_process(data_dir: &Path, listen: String) -> anyhow::Result<Platform> {
        let pid = std::process::id();
        let start_time = start_time(pid).context("this process has no /proc entry: is /proc mounted?")?;
        Ok(Platform {
            pid,
            start_time,
            data_dir: data_dir.to_owned(),
            listen,
            cgroup_root: None,
        })
    }

    pub fn write(&self) -> anyhow::Result<()> {
        let path = record();
        fs::create_dir_all(RUN_DIR).with_context(|| format!("making {RUN_DIR}"))?;
        let next = path.with_extension("json.next");
        fs::write(&next, serde_json::to_vec_pretty(self)?).with_context(|| format!("writing {}", next.display()))?;
        fs::rename(&next, &path).with_context(|| format!("writing {}", path.display()))
    }

    pub fn forget() -> anyhow::Result<()> {
        match fs::remove_dir_all(RUN_DIR) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {RUN_DIR}"))
            }
            _ => Ok(()),
        }
    }

    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// One platform a machine.
    pub fn ensure_none_runs() -> anyhow::Result<()> {
        let Some(platform) = Platform::recorded()? else {
            return Ok(());
        };
        platform.wait_if_killed();
        if platform.is_alive() {
            bail!(
                "a platform runs on this machine already (process {}, data directory {}): end it by `mangrove down`",
                platform.pid,
                platform.data_dir.display()
            );
        }
        Ok(())
    }

    /// Lets a platform that was killed just now finish: an end takes the kernel a moment.
    fn wait_if_killed(&self) {
        let mut left = DYING_MAX;
        while state(self.pid).as_deref() == Some("Z") && self.is_alive() && !left.is_zero() {
            std::thread::sleep(DYING_PAUSE);
            left = left.saturating_sub(DYING_PAUSE);
        }
    }

    /// The running platform that a command means.
    pub fn find(data_dir: Option<&Path>) -> anyhow::Result<Platform> {
        let platform = Platform::recorded()?.filter(Platform::is_alive);
        match (platform, data_dir) {
            (Some(platform), None) => Ok(platform),
            (Some(platform), Some(wanted)) if same(&platform.data_dir, wanted) => Ok(platform),
            (Some(platform), Some(wanted)) => bail!(
                "the platform that runs on this machine has the data directory {}, not {}",
                platform.data_dir.display(),
                wanted.display()
            ),
            (None, _) => bail!("no platform runs on this machine: start one by `mangrove up`"),
        }
    }
}

pub fn same(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}

fn state(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().next().map(str::to_owned)
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in brackets, may hold spaces; fields are counted after it, from the third.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A dead process that its parent has not asked for yet is no living platform; one whose other threads are still ending is
    // one: it holds its port and its locks until the last of them has.
    if fields.next()? == "Z" && threads(pid) <= 1 {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_pid_alone() {
        let this = Platform::of_this_process(Path::new("/tmp"), "x".to_owned()).unwrap();
        let another = Platform {
            start_time: this.start_time + 1,
            ..this.clone()
        };

        assert!(this.is_alive());
        assert!(!another.is_alive());
    }
}
