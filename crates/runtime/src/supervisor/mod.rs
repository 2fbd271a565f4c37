//! The small process that owns one sandbox: its namespaces, its containers' streams and exit codes. It outlives the
//! server, answers the next one, and is the only parent that containers have.
//!
//! It never has a second thread: it forks, changes namespaces and reaps. Start reading at [`serve`]; what it is told is
//! in [`plan`], how it is spoken to in [`protocol`].

mod container;
mod helper;
pub mod log;
mod network;
pub mod plan;
pub mod protocol;
mod serve;
pub mod user;

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, Pid, fork, setsid};

pub(crate) use self::container::{MAX_STALL, set_nonblocking};
pub(crate) use self::helper::FILTER;
use self::network::HostSide;
use self::plan::{IpcPlan, NetworkPlan, PidPlan, SANDBOX_PLAN, SUPERVISOR_LOG, SUPERVISOR_RECORD, SupervisorRecord};
use self::serve::Supervisor;
use crate::system::cgroup::Hierarchies;
use crate::system::process::ProcessName;
use crate::system::{mounts, packet, persist};

/// The first argument by which the binary knows that it is to be a supervisor.
pub const ARGUMENT: &str = "supervise";

/// What the process writes to its standard output when the sandbox stands; anything else is the reason why not.
pub const READY: &str = "ready";

/// To be called by the binary when its first argument is [`ARGUMENT`], before it has made any thread.
pub fn main() -> ! {
    let Some(folder) = std::env::args_os().nth(2) else {
        eprintln!("usage: {ARGUMENT} SANDBOX_FOLDER (started by the runtime, not by people)");
        std::process::exit(2);
    };
    // SAFETY: `main` is called before any thread exists.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { .. }) => std::process::exit(0),
        Ok(ForkResult::Child) => {}
        Err(e) => fail(&e.into()),
    }
    match prepare(Path::new(&folder)) {
        Ok(mut supervisor) => {
            // A server that died meanwhile has not written the sandbox down, so nobody will ever ask for it.
            if writeln!(io::stdout(), "{READY}")
                .and_then(|()| io::stdout().flush())
                .is_err()
            {
                supervisor.take_down();
                std::process::exit(1);
            }
            if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
                let _ = nix::unistd::dup2_stdout(&null);
            }
            supervisor.run()
        }
        Err(e) => fail(&e),
    }
}

fn fail(error: &io::Error) -> ! {
    let _ = writeln!(io::stdout(), "{error}").and_then(|()| io::stdout().flush());
    std::process::exit(1)
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

fn prepare(folder: &Path) -> io::Result<Supervisor> {
    let _ = setsid();
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let _ = nix::sys::prctl::set_name(&CString::new("mangrove-sbx").unwrap_or_default());
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(SUPERVISOR_LOG))?;
    nix::unistd::dup2_stderr(&log)?;
    std::env::set_current_dir("/")?;

    let plan: plan::SandboxPlan = persist::read_json(&folder.join(SANDBOX_PLAN)).map_err(doing("read the plan"))?;
    let process = ProcessName::of(std::process::id() as i32).ok_or_else(|| io::Error::other("no /proc"))?;
    let write_down = |pid_holder: Option<Pid>| {
        let record = SupervisorRecord {
            process: process.clone(),
            pid_holder: pid_holder.map(Pid::as_raw),
        };
        persist::write_json_volatile(&plan.folder.join(SUPERVISOR_RECORD), &record)
    };
    write_down(None).map_err(doing("write the supervisor's record"))?;
    fs::create_dir_all(&plan.run)?;
    let hierarchies = Hierarchies::find()?;
    hierarchies
        .enter(&plan.supervisor_cgroup, process.pid)
        .map_err(doing("enter the supervisors' control group"))?;

    let mut flags = CloneFlags::empty();
    let mut host = None;
    if let NetworkPlan::Routed { .. } = plan.network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
        host = Some(HostSide::open().map_err(doing("open netlink"))?);
    }
    if plan.ipc == IpcPlan::Own {
        flags |= CloneFlags::CLONE_NEWIPC;
        mounts::mount_shm(&plan.shm(), plan.shm_bytes).map_err(doing("mount shared memory"))?;
    }
    unshare(flags).map_err(|e| doing("make namespaces")(e.into()))?;
    if let Some(host) = &mut host {
        host.connect(&plan.network).map_err(doing("connect the network"))?;
        nix::unistd::sethostname(&plan.hostname)?;
    }
    for (name, value) in &plan.sysctls {
        fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
            .map_err(|e| io::Error::new(e.kind(), format!("set sysctl {name}: {e}")))?;
    }
    let pid_holder = match plan.pid {
        PidPlan::Sandbox => Some(helper::hold_pid_namespace()?),
        PidPlan::Container | PidPlan::Host => None,
    };

    let listener = packet::listen_at(&plan.socket()).map_err(doing("listen"))?;
    if pid_holder.is_some() {
        write_down(pid_holder).map_err(doing("write the supervisor's record"))?;
    }
    if let Ok(null) = fs::File::open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        debug_assert!(null.as_raw_fd() > 2);
    }
    Supervisor::new(plan, hierarchies, host, pid_holder, listener)
}
