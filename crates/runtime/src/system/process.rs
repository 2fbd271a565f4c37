//! Naming a process so that a reused pid is not taken for it.

use std::fs;

use serde::{Deserialize, Serialize};

/// A pid alone is reused, also after a reboot; with the start time and the boot it names one process for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessName {
    pub pid: i32,
    pub start_ticks: u64,
    pub boot: String,
}

impl ProcessName {
    pub fn of(pid: i32) -> Option<ProcessName> {
        Some(ProcessName {
            pid,
            start_ticks: start_ticks(pid)?,
            boot: boot(),
        })
    }

    pub fn is_alive(&self) -> bool {
        self.boot == boot() && start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Kills exactly this process, or nothing if it is gone.
    pub fn kill(&self) {
        if self.is_alive() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Field 22 of `/proc/<pid>/stat`; `None` if the process is gone or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from the last parenthesis.
    let rest = &stat[stat.rfind(')')? + 2..];
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_boots_is_not() {
        let me = ProcessName::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        let other_boot = ProcessName {
            boot: "another".into(),
            ..me.clone()
        };
        assert!(!other_boot.is_alive());
        let reused = ProcessName {
            start_ticks: me.start_ticks + 1,
            ..me
        };
        assert!(!reused.is_alive());
    }
}
