//! The short-lived child that makes one container or one exec'd process, by libcontainer.
//!
//! It is forked from the supervisor, which has one thread, so that forking and changing namespaces are safe; what
//! libcontainer allocates, leaks or changes in its process (it sets `dumpable`, for one) goes away with the child, and
//! the supervisor stays small and keeps reading output meanwhile. The processes made here become the supervisor's
//! children when this one ends, because the supervisor is their subreaper.

mod confine;
mod console;
mod pause;
mod root;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::confine::FILTER;
use self::confine::{Confined, lend};
use self::console::Console;
pub use self::pause::hold_pid_namespace;
use self::root::{complete_spec, mount_root};
use super::plan::{ContainerPlan, Propagation, ResolvedUser, SandboxPlan, Tty, bundle, container_folder};
use super::user;
use crate::system::{inroot, mounts, packet};

/// User databases larger than this are cut; lookups of names beyond it fail by name.
const MAX_USER_DATABASE_BYTES: u64 = 4 << 20;

/// What the helper tells the supervisor; a terminal's master end comes with it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Made {
    pub pid: i32,
    pub user: ResolvedUser,
}

pub struct Helper {
    pub pid: Pid,
    pub result: OwnedFd,
}

pub struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

pub fn start_container(sandbox: &SandboxPlan, plan: &ContainerPlan, stdio: Option<Stdio>) -> io::Result<Helper> {
    in_child(&descriptors(&stdio), || create_and_start(sandbox, plan, stdio))
}

pub fn exec(
    sandbox: &SandboxPlan,
    container: &str,
    exec: &str,
    args: &[String],
    stdio: Option<Stdio>,
) -> io::Result<Helper> {
    in_child(&descriptors(&stdio), || run_exec(sandbox, container, exec, args, stdio))
}

fn descriptors(stdio: &Option<Stdio>) -> Vec<RawFd> {
    let stdio = stdio.iter();
    stdio
        .flat_map(|stdio| [&stdio.stdin, &stdio.stdout, &stdio.stderr])
        .map(AsRawFd::as_raw_fd)
        .collect()
}

/// The child has the descriptors `needed`, and no other of the supervisor's.
fn in_child(needed: &[RawFd], work: impl FnOnce() -> Result<(Made, Option<OwnedFd>), String>) -> io::Result<Helper> {
    let (ours, theirs) = packet::pair()?;
    // SAFETY: the supervisor has a single thread, so the child may do anything that its parent may.
    match unsafe { fork()? } {
        ForkResult::Parent { child } => Ok(Helper {
            pid: child,
            result: ours,
        }),
        ForkResult::Child => {
            close_all_but(needed.iter().copied().chain([theirs.as_raw_fd()]).collect());
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                .unwrap_or_else(|_| Err("the helper process panicked; see the supervisor's log".into()));
            let (result, terminal) = match result {
                Ok((made, terminal)) => (Ok(made), terminal),
                Err(text) => (Err(text), None),
            };
            let fds: Vec<_> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
            let bytes = serde_json::to_vec(&result).unwrap_or_default();
            let _ = packet::send(theirs.as_raw_fd(), &bytes, &fds);
            // SAFETY: ends the child without running what belongs to the parent (destructors, exit handlers).
            unsafe { libc::_exit(0) }
        }
    }
}

/// As long as a copy of a supervisor's connection is open, nobody hears that the supervisor has gone; and what is made here may
/// wait for long before its program starts, which is when descriptors are closed by themselves.
fn close_all_but(mut kept: Vec<RawFd>) {
    kept.sort_unstable();
    let mut from = libc::STDERR_FILENO + 1;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if from < fd {
            // SAFETY: the owners of these descriptors are the parent's; this process ends without dropping them.
            unsafe { libc::close_range(from as libc::c_uint, (fd - 1) as libc::c_uint, 0) };
        }
        from = from.max(fd.saturating_add(1));
    }
}

/// Containers must find signals as a login would: nothing ignored, nothing blocked.
fn restore_signals() -> Result<(), String> {
    // SAFETY: only default dispositions are set, no handler of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map_err(text("reset signals"))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(text("reset signals"))
}

fn text<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> String {
    move |e| format!("{doing}: {e}")
}

fn create_and_start(
    sandbox: &SandboxPlan,
    plan: &ContainerPlan,
    stdio: Option<Stdio>,
) -> Result<(Made, Option<OwnedFd>), String> {
    restore_signals()?;
    let folder = container_folder(sandbox, &plan.id);
    let bundle = bundle(&folder);
    let root = bundle.join("rootfs");
    mount_root(sandbox, plan, &root)?;

    let root_fd = inroot::open_root(&root).map_err(text("open the container's root"))?;
    let passwd = inroot::read_small(&root_fd, Path::new("etc/passwd"), MAX_USER_DATABASE_BYTES)
        .map_err(text("read /etc/passwd of the image"))?;
    let group = inroot::read_small(&root_fd, Path::new("etc/group"), MAX_USER_DATABASE_BYTES)
        .map_err(text("read /etc/group of the image"))?;
    let user = user::resolve(&plan.user, &passwd, &group).map_err(|e| e.to_string())?;
    let filter = filter_of(&bundle)?;
    let spec = complete_spec(&bundle, plan.propagation, &user, &root_fd, filter.is_some())?;
    if let Some(stdio) = &stdio {
        // Programs reopen /dev/stdout by name, which asks for the pipe's owner.
        for fd in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
            let _ = nix::unistd::fchown(fd, Some(user.uid.into()), None);
        }
    }
    drop(root_fd);

    fs::create_dir_all(sandbox.oci_state()).map_err(text("make the state folder"))?;
    let mut builder = ContainerBuilder::new(plan.id.clone(), SyscallType::default())
        .with_root_path(sandbox.oci_state())
        .map_err(text("libcontainer"))?;
    if let Some(program) = filter {
        builder = builder.with_executor(Confined::new(program, &spec));
    }
    let console = match plan.tty {
        Tty::Yes => Some(Console::listen(sandbox, &plan.id)?),
        Tty::No => None,
    };
    if let Some(console) = &console {
        builder = builder.with_console_socket(Some(&console.path));
    } else if let Some(stdio) = stdio {
        builder = builder
            .with_stdin(stdio.stdin)
            .with_stdout(stdio.stdout)
            .with_stderr(stdio.stderr);
    }
    let mut container = builder
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|e| chain(&e))?;
    let pid = container.pid().ok_or("libcontainer made no process")?.as_raw();
    adjust_oom_score(pid, plan.oom_score_adj);
    let terminal = console.map(Console::accept).transpose()?;
    container.start().map_err(|e| chain(&e))?;
    Ok((Made { pid, user }, terminal))
}

/// The program of the container's filter, if it is confined.
fn filter_of(bundle: &Path) -> Result<Option<Vec<u8>>, String> {
    match fs::read(bundle.join(FILTER)) {
        Ok(program) => Ok(Some(program)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("read the seccomp filter: {error}")),
    }
}

/// Never below what this process has: lowering takes a right that a node in a container lacks, and failing for that
/// would mean no container at all.
fn adjust_oom_score(pid: i32, wanted: i32) {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let file = format!("/proc/{pid}/oom_score_adj");
    if fs::write(&file, wanted.to_string()).is_err() {
        let _ = fs::write(&file, wanted.max(own).to_string());
    }
}

fn run_exec(
    sandbox: &SandboxPlan,
    container: &str,
    exec: &str,
    args: &[String],
    stdio: Option<Stdio>,
) -> Result<(Made, Option<OwnedFd>), String> {
    restore_signals()?;
    let terminal = stdio.is_none();
    let folder = container_folder(sandbox, container);
    let bytes = fs::read(bundle(&folder).join("config.json")).map_err(text("read the bundle"))?;
    let spec: Value = serde_json::from_slice(&bytes).map_err(text("read the bundle"))?;
    let filter = filter_of(&bundle(&folder))?;
    let mut process = spec["process"].clone();
    process["args"] = json!(args);
    process["terminal"] = json!(terminal);
    if terminal && let Some(env) = process["env"].as_array_mut() {
        let has = env.iter().any(|v| v.as_str().is_some_and(|v| v.starts_with("TERM=")));
        if !has {
            env.push(json!("TERM=xterm"));
        }
    }
    let user: ResolvedUser = ResolvedUser {
        uid: process["user"]["uid"].as_u64().unwrap_or(0) as u32,
        gid: process["user"]["gid"].as_u64().unwrap_or(0) as u32,
        groups: Vec::new(),
    };
    if let Some(stdio) = &stdio {
        for fd in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
            let _ = nix::unistd::fchown(fd, Some(user.uid.into()), None);
        }
    }
    let state = sandbox.oci_state().join(container);
    let process_file = state.join(format!("exec-{exec}.json"));
    fs::write(&process_file, process.to_string()).map_err(text("write the process"))?;

    let result = (|| {
        let mut builder = ContainerBuilder::new(container.to_owned(), SyscallType::default())
            .with_root_path(sandbox.oci_state())
            .map_err(text("libcontainer"))?;
        if let Some(program) = filter {
            builder = builder.with_executor(Confined::new(program, &spec));
        }
        let console = if terminal {
            Some(Console::listen(sandbox, exec)?)
        } else {
            None
        };
        if let Some(console) = &console {
            builder = builder.with_console_socket(Some(&console.path));
        } else if let Some(stdio) = stdio {
            builder = builder
                .with_stdin(stdio.stdin)
                .with_stdout(stdio.stdout)
                .with_stderr(stdio.stderr);
        }
        let pid = builder
            .as_tenant()
            .with_process(Some(&process_file))
            .with_detach(true)
            .build()
            .map_err(|e| chain(&e))?;
        let terminal = console.map(Console::accept).transpose()?;
        Ok((
            Made {
                pid: pid.as_raw(),
                user,
            },
            terminal,
        ))
    })();
    let _ = fs::remove_file(&process_file);
    // libcontainer leaves its sockets and links behind.
    for entry in fs::read_dir(&state).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("tenant-tty-") {
            let _ = fs::remove_file(entry.path());
        }
    }
    result
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
