//! Naming a process so that a reused pid is not taken for it, and ending one that is nobody's child here.

use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// After SIGKILL only a process that waits for the kernel is still there.
const END_TIMEOUT_MS: u16 = 5000;

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
            end(self.pid);
        }
    }
}

/// Kills a process and comes back when it does nothing any more.
pub fn end(pid: i32) {
    // Opened before the kill: afterwards the number may be another's.
    let process = open(pid);
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    if let Ok(process) = process {
        let mut set = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut set, PollTimeout::from(END_TIMEOUT_MS));
    }
}

/// A descriptor that becomes readable with the process's end.
fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; what it returns is a new descriptor, or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(nix::errno::Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the descriptor was made just now and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

    #[test]
    fn a_killed_process_is_gone_when_the_call_returns() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let name = ProcessName::of(child.id() as i32).unwrap();
        name.kill();
        assert!(!name.is_alive());
        child.wait().unwrap();
    }
}
