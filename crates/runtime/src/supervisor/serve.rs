//! The supervisor's loop: one `poll` over everything that can happen to a sandbox.

mod calls;
mod children;
mod clients;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::container::{Attached, Container, MAX_STALL, Output, Phase, Sink, set_nonblocking};
use super::helper::{self, Helper, Made, Stdio};
use super::log::{LogFile, Stream};
use super::network::HostSide;
use super::plan::{
    CONTAINER_PLAN, CONTAINER_STATE, ContainerPlan, ContainerState, Exit, ExitCause, PidPlan, SandboxPlan, Stdin, Tty,
    container_folder,
};
use super::protocol::{Answer, Call, Family, Message, Request};
use crate::system::cgroup::Hierarchies;
use crate::system::{mounts, packet, persist};

/// Read at once from a container's output; the capacity of a pipe.
const READ_BYTES: usize = 64 << 10;

/// Messages that wait for a server which does not read. A server that is so far behind is cut off and asks again.
const MAX_QUEUED_MESSAGES: usize = 1024;

/// Servers (one), and short connections of tools; more are refused.
const MAX_CLIENTS: usize = 16;

pub struct Supervisor {
    plan: SandboxPlan,
    hierarchies: Hierarchies,
    host: Option<HostSide>,
    pid_holder: Option<Pid>,
    listener: OwnedFd,
    signals: SignalFd,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    containers: BTreeMap<String, Container>,
    making: Vec<Making>,
    /// Exec'd processes by pid.
    execs: BTreeMap<i32, String>,
    /// Control groups of ended containers, each until it could be removed.
    emptying: Vec<String>,
    /// Clients, with their requests, that wait to hear what runs.
    greetings: Vec<(u64, u64)>,
    stop: Option<(u64, u64)>,
    buffer: Vec<u8>,
}

struct Client {
    socket: OwnedFd,
    subscribed: bool,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// A helper at work, and who waits for it.
struct Making {
    helper: Helper,
    client: u64,
    request: u64,
    what: What,
    finished: bool,
}

#[derive(Clone)]
enum What {
    Container(String),
    Exec {
        exec: String,
        /// Of the container that it goes into.
        cgroup: String,
    },
}

/// What a descriptor in the poll set stands for.
#[derive(Clone)]
enum Token {
    Listener,
    Signals,
    Client(u64),
    Helper(Pid),
    Output(String, Stream),
    Sink(String, usize, Stream),
}

type Outcome = Result<(Answer, Vec<OwnedFd>), String>;

impl Supervisor {
    pub fn new(
        plan: SandboxPlan,
        hierarchies: Hierarchies,
        host: Option<HostSide>,
        pid_holder: Option<Pid>,
        listener: OwnedFd,
    ) -> io::Result<Supervisor> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        // The end of a sandbox is a call, not a signal that a whole session may get.
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.add(Signal::SIGHUP);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Supervisor {
            plan,
            hierarchies,
            host,
            pid_holder,
            listener,
            signals,
            clients: BTreeMap::new(),
            next_client: 0,
            containers: BTreeMap::new(),
            making: Vec::new(),
            execs: BTreeMap::new(),
            emptying: Vec::new(),
            greetings: Vec::new(),
            stop: None,
            buffer: vec![0; READ_BYTES],
        })
    }

    pub fn run(mut self) -> ! {
        loop {
            if let Err(e) = self.turn() {
                eprintln!("poll: {e}");
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut tokens = vec![Token::Listener, Token::Signals];
        let mut set = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        for (id, client) in &self.clients {
            let mut flags = PollFlags::POLLIN;
            if !client.queue.is_empty() {
                flags |= PollFlags::POLLOUT;
            }
            tokens.push(Token::Client(*id));
            set.push(PollFd::new(client.socket.as_fd(), flags));
        }
        for making in self.making.iter().filter(|m| !m.finished) {
            tokens.push(Token::Helper(making.helper.pid));
            set.push(PollFd::new(making.helper.result.as_fd(), PollFlags::POLLIN));
        }
        let mut pending = false;
        for (id, container) in &self.containers {
            if container.may_read() {
                for stream in [Stream::Stdout, Stream::Stderr] {
                    if let Some(output) = container.output(stream) {
                        tokens.push(Token::Output(id.clone(), stream));
                        set.push(PollFd::new(output.file.as_fd(), PollFlags::POLLIN));
                    }
                }
            }
            for (index, attached) in container.attached.iter().enumerate() {
                let sinks = [(Stream::Stdout, &attached.stdout), (Stream::Stderr, &attached.stderr)];
                for (stream, sink) in sinks {
                    if let Some(sink) = sink.as_ref().filter(|sink| sink.has_pending()) {
                        pending = true;
                        tokens.push(Token::Sink(id.clone(), index, stream));
                        set.push(PollFd::new(sink.file.as_fd(), PollFlags::POLLOUT));
                    }
                }
            }
        }
        let timeout = if pending {
            PollTimeout::from((MAX_STALL.as_secs() as u16) * 100)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut set, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<(Token, PollFlags)> = set
            .iter()
            .zip(tokens)
            .filter_map(|(fd, token)| Some((token, fd.revents().filter(|flags| !flags.is_empty())?)))
            .collect();
        let now = Instant::now();
        for (token, flags) in ready {
            match token {
                Token::Listener => self.accept(),
                Token::Signals => self.reap(now),
                Token::Client(id) => self.client_ready(id, flags),
                Token::Helper(pid) => self.helper_result(pid),
                Token::Output(id, stream) => {
                    if let Some(container) = self.containers.get_mut(&id) {
                        container.read(stream, &mut self.buffer, now);
                    }
                }
                Token::Sink(id, index, stream) => self.flush(&id, index, stream, now),
            }
        }
        for container in self.containers.values_mut() {
            container.prune(now);
        }
        // How it ended is on disk; only who still reads its output keeps it here.
        self.containers
            .retain(|_, c| !(matches!(c.phase, Phase::Exited) && c.attached.is_empty()));
        self.greet();
        self.finish_stop();
        Ok(())
    }

    /// Says what runs, once nothing is half-way to it.
    fn greet(&mut self) {
        if self.containers.values().any(|c| matches!(c.phase, Phase::Starting)) {
            return;
        }
        for (client, request) in std::mem::take(&mut self.greetings) {
            if let Some(client) = self.clients.get_mut(&client) {
                client.subscribed = true;
            }
            let running = self.containers.iter().filter_map(|(id, c)| match &c.phase {
                Phase::Running { state, .. } => Some((id.clone(), state.clone())),
                Phase::Starting | Phase::Exited => None,
            });
            let containers = running.collect();
            self.answer(client, request, Ok((Answer::Running { containers }, Vec::new())));
        }
    }

    fn flush(&mut self, container: &str, index: usize, stream: Stream, now: Instant) {
        let Some(attached) = self
            .containers
            .get_mut(container)
            .and_then(|c| c.attached.get_mut(index))
        else {
            return;
        };
        let slot = match stream {
            Stream::Stdout => &mut attached.stdout,
            Stream::Stderr => &mut attached.stderr,
        };
        if slot.as_mut().is_some_and(|sink| !sink.flush(now)) {
            *slot = None;
        }
    }

    fn kill_everything(&mut self) {
        for container in self.containers.values() {
            if let Some(pid) = container.pid() {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        for pid in self.execs.keys() {
            // In a pid namespace that is not its container's own, an exec'd process lives on.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }

    /// Ends this process once a stop has been asked for and nothing runs any more.
    fn finish_stop(&mut self) {
        let Some((client, request)) = self.stop else { return };
        let busy = !self.making.is_empty() || self.containers.values().any(|c| c.pid().is_some());
        // What clients have not read of ended containers is still theirs, for as long as a stall may last.
        let unread = self.containers.values().any(Container::has_pending);
        if busy || unread {
            return;
        }
        self.take_down();
        self.answer(client, request, Ok((Answer::Done, Vec::new())));
        std::process::exit(0);
    }

    /// Leaves nothing of the sandbox but its folder.
    pub fn take_down(&mut self) {
        if let Some(pid) = self.pid_holder.take() {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
        if let Some(host) = &mut self.host {
            host.disconnect(&self.plan.network);
        }
        if let Err(e) = mounts::unmount_below(&self.plan.run) {
            eprintln!("unmount: {e}");
        }
        let _ = fs::remove_dir_all(&self.plan.run);
        let _ = fs::remove_file(self.plan.folder.join(super::SUPERVISOR_RECORD));
    }
}
