//! Starting supervisors, hearing what they say, and ending those that don't listen.

use super::*;
use crate::system::process::{self, ProcessName};

/// A helper forks a few times in a row, no more.
const FORKS_MAX: usize = 10;

impl Inner {
    pub(super) async fn start_supervisor(&self, folder: &Path) -> Result<()> {
        let exe = &self.options.supervisor_exe;
        let mut child = tokio::process::Command::new(exe)
            .arg(ARGUMENT)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_clear()
            .kill_on_drop(false)
            .spawn()
            .doing(|| format!("start {}", exe.display()))?;
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            let read = async {
                // One line is all it says.
                let _ = BufReader::new(stdout.take(4096)).read_line(&mut text).await;
                let _ = child.wait().await;
            };
            if tokio::time::timeout(READY_TIMEOUT, read).await.is_err() {
                return Err(Error::Timeout("the sandbox's supervisor did not get ready".into()));
            }
        }
        match text.trim() {
            READY => Ok(()),
            "" => Err(Error::Supervisor(
                "the sandbox's supervisor said nothing and ended".into(),
            )),
            reason => Err(Error::Supervisor(format!("make the sandbox: {reason}"))),
        }
    }

    /// Opens the conversation with a sandbox's supervisor; what it tells changes our state, in order.
    pub(in crate::server) fn connect(self: &Arc<Inner>, id: &str) -> Result<Link> {
        let weak: Weak<Inner> = Arc::downgrade(self);
        let sandbox = id.to_owned();
        Link::connect(&self.run_folder(id).join("socket"), move |news| {
            if let Some(inner) = weak.upgrade() {
                inner.heard(&sandbox, news);
            }
        })
        .doing(|| "reach the sandbox's supervisor")
    }

    pub(super) fn heard(self: &Arc<Inner>, sandbox: &str, news: News) {
        match news {
            News::Started { container, state } => {
                if let Ok(container) = self.container(&container) {
                    container.phase.send_replace(Phase::Running(state));
                    self.tell_of_container(v1::ContainerEventType::ContainerStartedEvent, &container);
                }
            }
            News::Message(Message::Stopped { container, exit }) => {
                if let Ok(container) = self.container(&container) {
                    container.phase.send_modify(|phase| {
                        if let Phase::Running(state) = phase {
                            let mut state = state.clone();
                            state.exit = Some(exit);
                            *phase = Phase::Exited(state);
                        }
                    });
                    self.tell_of_container(v1::ContainerEventType::ContainerStoppedEvent, &container);
                }
            }
            News::Message(Message::ExecStopped { exec, code }) => self.execs.ended(&exec, code),
            News::Message(Message::Answer { .. }) => {}
            News::Gone => {
                self.execs.sandbox_gone(sandbox);
                let Ok(sandbox) = self.sandbox(sandbox) else { return };
                if sandbox.is_ready() {
                    tokio::spawn(self.clone().supervisor_gone(sandbox));
                }
            }
        }
    }

    /// The supervisor ended without having been asked to: nobody holds the containers' streams any more.
    pub(super) async fn supervisor_gone(self: Arc<Inner>, sandbox: Arc<Sandbox>) {
        let _changing = sandbox.changing.lock().await;
        if !sandbox.is_ready() {
            return;
        }
        tracing::error!(
            sandbox = sandbox.id,
            "its supervisor has gone; ending what is left of it"
        );
        if let Err(e) = self.bury(&sandbox).await {
            tracing::error!(sandbox = sandbox.id, "{e}");
        }
    }

    /// Ends a supervisor and what it has started outside of containers: helpers (one may be making a container right now) and
    /// the holder of a pid namespace. When this returns, nothing of it makes or changes anything any more.
    pub(super) fn end_supervisor(&self, folder: &Path) {
        let file = folder.join(SUPERVISOR_RECORD);
        if let Ok(SupervisorRecord { process: leader, .. }) = persist::read_json(&file) {
            leader.kill();
            // The number of a session is given to no new process while the session has members.
            if ProcessName::of(leader.pid).is_none() {
                self.end_sessions(|session| session == leader.pid);
            }
        }
        let _ = fs::remove_file(file);
    }

    /// Ends those in the supervisors' control group that are in such sessions. They may fork until they are dead, so it is looked
    /// again until there are none.
    pub(in crate::server) fn end_sessions(&self, chosen: impl Fn(i32) -> bool) {
        for _ in 0..FORKS_MAX {
            let mut members = self.hierarchies.members(&self.supervisor_cgroup());
            members.retain(|pid| {
                let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(*pid)));
                // A dead one stays a member until it is reaped.
                session.is_ok_and(|session| chosen(session.as_raw())) && ProcessName::of(*pid).is_some()
            });
            if members.is_empty() {
                return;
            }
            members.into_iter().for_each(process::end);
        }
    }
}
