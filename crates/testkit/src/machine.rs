//! A machine of a test's own: network, mounts, `/run` and control groups that nobody else sees, so that a test may set
//! up what the platform sets up on a real machine, and look at all of it afterwards.

use std::{io, path::Path, process::Command};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::{cgroups::Groups, footprint::Footprint};

/// The calling thread, and whatever it starts from here on, is on this machine.
pub struct Machine {
    pub groups: Groups,
    before: Footprint,
}

impl Machine {
    /// `None` where that can't be, with a printed word why.
    pub fn enter() -> Option<Machine> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: a machine of a test's own needs root");
            return None;
        }
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("busybox", "busybox-static")] {
            if !on_path(program) {
                println!("skipped: there is no {program} (Debian package {package})");
                return None;
            }
        }
        match Machine::make() {
            Ok(machine) => Some(machine),
            Err(error) => {
                println!("skipped: this kernel gives no namespaces or control groups to a test: {error}");
                None
            }
        }
    }

    fn make() -> io::Result<Machine> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        leave_others_mounts()?;
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        command("ip", &["link", "set", "lo", "up"])?;
        let groups = Groups::enter()?;
        let before = Footprint::take(&groups);
        Ok(Machine { groups, before })
    }

    pub fn footprint(&self) -> Footprint {
        Footprint::take(&self.groups)
    }

    /// What is there that was not there in the beginning, one line each.
    pub fn leftovers(&self) -> Vec<String> {
        self.footprint().since(&self.before)
    }
}

/// Mounts of tests that run beside this one came along by copy, and go whenever those tests remove their folders.
fn leave_others_mounts() -> io::Result<()> {
    let temporary = std::env::temp_dir();
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4).map(Path::new));
    // The last mounted is on top.
    let below: Vec<&Path> = points
        .filter(|point| point.starts_with(&temporary) && *point != temporary)
        .collect();
    for point in below.into_iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH) {
            // It has gone meanwhile.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|folder| Path::new(folder).join(program).is_file())
}

fn command(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    )))
}
