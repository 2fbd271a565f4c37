//! Starting supervisors, hearing what they say, and ending those that don't listen.

use super::*;

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

    pub(super) fn end_supervisor(&self, folder: &Path) {
        let file = folder.join(SUPERVISOR_RECORD);
        if let Ok(record) = persist::read_json::<SupervisorRecord>(&file) {
            record.process.kill();
            if let Some(holder) = record.pid_holder
                && let Some(holder) = crate::system::process::ProcessName::of(holder)
                && fs::read_to_string(format!("/proc/{}/comm", holder.pid)).is_ok_and(|name| name.trim() == "pause")
            {
                holder.kill();
            }
        }
        let _ = fs::remove_file(file);
    }
}
