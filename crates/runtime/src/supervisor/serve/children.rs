//! Those whom the supervisor is the parent of: helpers, containers, exec'd processes. How they come and go.

use super::*;

const DIED: &str = "the helper process died; see the supervisor's log";

impl Supervisor {
    /// The helper with this pid may have said what it made.
    pub(super) fn helper_result(&mut self, pid: Pid) {
        let Some(making) = self.making.iter().find(|m| m.helper.pid == pid && !m.finished) else {
            return;
        };
        let (bytes, fds) = match packet::receive(making.helper.result.as_raw_fd()) {
            Ok(Some(received)) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => return self.conclude(pid, Err(DIED.to_owned()), Vec::new()),
        };
        let result = serde_json::from_slice(&bytes).unwrap_or_else(|e| Err(format!("the helper's answer: {e}")));
        self.conclude(pid, result, fds);
    }

    /// Tells whoever waits for this helper.
    fn conclude(&mut self, helper: Pid, result: Result<Made, String>, fds: Vec<OwnedFd>) {
        let Some(making) = self.making.iter_mut().find(|m| m.helper.pid == helper && !m.finished) else {
            return;
        };
        making.finished = true;
        let (client, request, what) = (making.client, making.request, making.what.clone());
        let outcome = match (what, result) {
            (What::Container(id), Ok(made)) => self.started(&id, made, fds),
            (What::Container(id), Err(text)) => {
                self.not_started(&id);
                Err(text)
            }
            (What::Exec { exec, .. }, Ok(made)) => {
                self.execs.insert(made.pid, exec);
                Ok((Answer::Exec { pid: made.pid }, fds))
            }
            (What::Exec { .. }, Err(text)) => Err(text),
        };
        self.answer(client, request, outcome);
    }

    pub(super) fn started(&mut self, id: &str, made: Made, mut fds: Vec<OwnedFd>) -> Outcome {
        let state = ContainerState {
            pid: made.pid,
            started_ns: now_ns(),
            user: made.user,
            exit: None,
        };
        // Means nothing after a reboot, so the disk need not be waited for.
        let file = container_folder(&self.plan, id).join(CONTAINER_STATE);
        if let Err(e) = persist::write_json_volatile(&file, &state) {
            eprintln!("{}: {e}", file.display());
        }
        let Some(container) = self.containers.get_mut(id) else {
            return Err(format!("container {id} has gone"));
        };
        if let Some(terminal) = fds.pop() {
            let text = |e: io::Error| e.to_string();
            container.stdout = Some(Output::new(terminal.try_clone().map_err(text)?, Stream::Stdout).map_err(text)?);
            container.terminal = Some(terminal);
        }
        container.phase = Phase::Running {
            pid: Pid::from_raw(made.pid),
            state: state.clone(),
        };
        if self.stop.is_some() {
            self.kill_everything();
        }
        Ok((
            Answer::Started {
                container: id.to_owned(),
                state,
            },
            Vec::new(),
        ))
    }

    pub(super) fn not_started(&mut self, id: &str) {
        if let Some(container) = self.containers.remove(id) {
            self.hierarchies.kill(&container.plan.cgroup);
            let _ = self.hierarchies.remove(&container.plan.cgroup);
        }
        let _ = fs::remove_dir_all(self.plan.oci_state().join(id));
    }

    /// Collects every child that has ended.
    pub(super) fn reap(&mut self, now: Instant) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        self.all_helper_results();
        self.collect(now);
        // A helper that was bringing a command into a container is a member of its group until it has been collected, which may be
        // in a later turn.
        self.emptying.retain(|cgroup| self.hierarchies.remove(cgroup).is_err());
    }

    /// A helper has ended. If the container that it was to run a command in has ended before, it may have made the group anew.
    fn leave(&mut self, what: What) {
        if let What::Exec { cgroup, .. } = what
            && !self
                .containers
                .values()
                .any(|c| c.plan.cgroup == cgroup && !matches!(c.phase, Phase::Exited))
        {
            self.emptying.push(cgroup);
        }
    }

    fn collect(&mut self, now: Instant) {
        loop {
            let (pid, code) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(e) => return eprintln!("waitpid: {e}"),
            };
            // What a helper made can only end as our child after the helper has: then its answer lies there.
            self.all_helper_results();
            if let Some(at) = self.making.iter().position(|m| m.helper.pid == pid) {
                // What it had begun to make may hold its end of the connection open.
                if !self.making[at].finished {
                    self.end_half_made();
                    self.conclude(pid, Err(DIED.to_owned()), Vec::new());
                }
                let made = self.making.remove(at);
                self.leave(made.what);
            } else if let Some(exec) = self.execs.remove(&pid.as_raw()) {
                self.publish(&Message::ExecStopped { exec, code });
            } else if let Some(id) = self
                .containers
                .iter()
                .find(|(_, c)| c.pid() == Some(pid))
                .map(|(id, _)| id.clone())
            {
                self.exited(&id, code, now);
            } else if self.pid_holder == Some(pid) {
                eprintln!("the holder of the pid namespace ended with {code}");
                self.pid_holder = None;
            }
        }
    }

    /// Ends what a helper that died left on its way to a container: it still is this program, has become our child, and waits for
    /// the helper.
    fn end_half_made(&self) {
        let known = |pid: Pid| {
            self.pid_holder == Some(pid)
                || self.execs.contains_key(&pid.as_raw())
                || self.making.iter().any(|making| making.helper.pid == pid)
                || self.containers.values().any(|container| container.pid() == Some(pid))
        };
        let Ok(own) = fs::read_link("/proc/self/exe") else {
            return;
        };
        let thread = nix::unistd::gettid();
        let children = fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for child in children.map(Pid::from_raw).filter(|pid| !known(*pid)) {
            if fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == own) {
                let _ = kill(child, Signal::SIGKILL);
            }
        }
    }

    pub(super) fn all_helper_results(&mut self) {
        let pids: Vec<Pid> = self
            .making
            .iter()
            .filter(|m| !m.finished)
            .map(|m| m.helper.pid)
            .collect();
        for pid in pids {
            self.helper_result(pid);
        }
    }

    pub(super) fn exited(&mut self, id: &str, code: i32, now: Instant) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Phase::Running { state, .. } = &container.phase else {
            return;
        };
        let mut state = state.clone();
        let cgroup = container.plan.cgroup.clone();
        if self.plan.pid != PidPlan::Container {
            // Without a pid namespace of its own the container's other processes outlive the first.
            self.hierarchies.kill(&cgroup);
        }
        container.drain(&mut self.buffer, now);
        let out_of_memory = code != 0 && self.hierarchies.out_of_memory_kills(&cgroup) > 0;
        let exit = Exit {
            code,
            finished_ns: now_ns(),
            cause: if out_of_memory {
                ExitCause::OutOfMemory
            } else {
                ExitCause::Ended
            },
        };
        state.exit = Some(exit.clone());
        container.phase = Phase::Exited;
        self.emptying.push(cgroup);
        let _ = fs::remove_dir_all(self.plan.oci_state().join(id));
        let file = container_folder(&self.plan, id).join(CONTAINER_STATE);
        if let Err(e) = persist::write_json(&file, &state) {
            eprintln!("{}: {e}", file.display());
        }
        self.publish(&Message::Stopped {
            container: id.to_owned(),
            exit,
        });
    }
}

fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}
