//! The process that keeps a shared pid namespace alive.

use super::*;

/// A process that sleeps as the first of a pid namespace, for sandboxes whose containers share one.
pub fn hold_pid_namespace() -> io::Result<Pid> {
    let (ours, theirs) = packet::pair()?;
    // SAFETY: the supervisor has a single thread.
    match unsafe { fork()? } {
        ForkResult::Parent { child } => {
            drop(theirs);
            let received = packet::receive(ours.as_raw_fd())?;
            nix::sys::wait::waitpid(child, None)?;
            let pid = received
                .and_then(|(bytes, _)| String::from_utf8(bytes).ok()?.parse().ok())
                .ok_or_else(|| io::Error::other("no process to hold the pid namespace"))?;
            Ok(Pid::from_raw(pid))
        }
        ForkResult::Child => {
            drop(ours);
            if unshare(CloneFlags::CLONE_NEWPID).is_ok() {
                // SAFETY: a single thread here too.
                match unsafe { fork() } {
                    Ok(ForkResult::Child) => sleep_and_reap(),
                    Ok(ForkResult::Parent { child }) => {
                        let _ = packet::send(theirs.as_raw_fd(), child.to_string().as_bytes(), &[]);
                    }
                    Err(_) => {}
                }
            }
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(0) }
        }
    }
}

fn sleep_and_reap() -> ! {
    // It outlives every stream that it was forked with, and whoever waits for the end of one would wait for it.
    // SAFETY: no descriptor is used in this process from here on.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    let _ = nix::sys::prctl::set_name(&CString::new("pause").unwrap_or_default());
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None);
    loop {
        while let Ok(status) = nix::sys::wait::waitpid(Pid::from_raw(-1), Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            if matches!(status, nix::sys::wait::WaitStatus::StillAlive) {
                break;
            }
        }
        let _ = set.wait();
    }
}
