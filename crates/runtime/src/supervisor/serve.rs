//! The supervisor's loop: one `poll` over everything that can happen to a sandbox.

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
    Exec(String),
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
        self.finish_stop();
        Ok(())
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

    fn accept(&mut self) {
        while let Ok(socket) = packet::accept(&self.listener) {
            if self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            self.next_client += 1;
            self.clients.insert(
                self.next_client,
                Client {
                    socket,
                    subscribed: false,
                    queue: VecDeque::new(),
                },
            );
        }
    }

    fn client_ready(&mut self, id: u64, flags: PollFlags) {
        if flags.contains(PollFlags::POLLOUT) {
            self.flush_client(id);
        }
        if !flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
        let Some(client) = self.clients.get(&id) else { return };
        match packet::receive(client.socket.as_raw_fd()) {
            Ok(Some((bytes, fds))) => match serde_json::from_slice::<Request>(&bytes) {
                Ok(request) => self.handle(id, request, fds),
                Err(e) => {
                    eprintln!("a message that can't be read: {e}");
                    self.drop_client(id);
                }
            },
            Ok(None) => self.drop_client(id),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.drop_client(id),
        }
    }

    fn drop_client(&mut self, id: u64) {
        self.clients.remove(&id);
        for container in self.containers.values_mut() {
            container.attached.retain(|attached| attached.client != id);
        }
    }

    fn send(&mut self, id: u64, message: &Message, fds: Vec<OwnedFd>) {
        let Ok(bytes) = serde_json::to_vec(message) else { return };
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.queue.push_back((bytes, fds));
        if client.queue.len() > MAX_QUEUED_MESSAGES {
            self.drop_client(id);
        } else {
            self.flush_client(id);
        }
    }

    fn flush_client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        while let Some((bytes, fds)) = client.queue.front() {
            let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            match packet::send(client.socket.as_raw_fd(), bytes, &raw) {
                Ok(()) => {
                    client.queue.pop_front();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.drop_client(id),
            }
        }
    }

    fn publish(&mut self, message: &Message) {
        let ids: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, c)| c.subscribed)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.send(id, message, Vec::new());
        }
    }

    fn answer(&mut self, client: u64, request: u64, outcome: Outcome) {
        let (result, fds) = match outcome {
            Ok((answer, fds)) => (Ok(answer), fds),
            Err(text) => (Err(text), Vec::new()),
        };
        self.send(client, &Message::Answer { id: request, result }, fds);
    }

    fn handle(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) {
        let done = || Ok((Answer::Done, Vec::new()));
        let outcome = match request.call {
            Call::Hello => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.subscribed = true;
                }
                let containers = self
                    .containers
                    .iter()
                    .filter_map(|(id, c)| match &c.phase {
                        Phase::Running { state, .. } => Some((id.clone(), state.clone())),
                        Phase::Starting | Phase::Exited => None,
                    })
                    .collect();
                Ok((Answer::Running { containers }, Vec::new()))
            }
            Call::Start { container } => match self.start(&container, client, request.id) {
                // Answered when the helper is done.
                Ok(()) => return,
                Err(e) => Err(format!("start container {container}: {e}")),
            },
            Call::Exec {
                exec,
                container,
                args,
                terminal,
            } => match self.exec(exec, container, &args, terminal, fds, client, request.id) {
                Ok(()) => return,
                Err(e) => Err(e),
            },
            Call::Signal { container, signal } => self.running(&container).and_then(|pid| {
                send_signal(pid, signal)?;
                done()
            }),
            Call::SignalExec { exec, signal } => match self.execs.iter().find(|(_, known)| **known == exec) {
                Some((pid, _)) => send_signal(Pid::from_raw(*pid), signal).and_then(|()| done()),
                None => done(),
            },
            Call::ReopenLog { container } => match self.containers.get_mut(&container) {
                Some(known) => known
                    .log
                    .reopen()
                    .map_err(|e| format!("reopen the log of {container}: {e}"))
                    .and_then(|()| done()),
                None => Err(format!("container {container} has not been started")),
            },
            Call::Attach {
                attach,
                container,
                input,
            } => self.attach(attach, &container, input, fds, client),
            Call::Detach { attach, container } => {
                if let Some(known) = self.containers.get_mut(&container)
                    && let Some(at) = known.attached.iter().position(|a| a.id == attach)
                {
                    let gone = known.attached.remove(at);
                    if gone.input && known.plan.stdin == Stdin::Once {
                        known.input = None;
                    }
                }
                done()
            }
            Call::CloseInput { container } => {
                if let Some(known) = self.containers.get_mut(&container)
                    && known.plan.stdin == Stdin::Once
                {
                    known.input = None;
                }
                done()
            }
            Call::Connect { port, family } => connect_loopback(port, family)
                .map(|fd| (Answer::Done, vec![fd]))
                .map_err(|e| format!("connect to port {port}: {e}")),
            Call::Stop => {
                self.stop = Some((client, request.id));
                self.kill_everything();
                return;
            }
        };
        self.answer(client, request.id, outcome);
    }

    fn running(&self, container: &str) -> Result<Pid, String> {
        self.containers
            .get(container)
            .and_then(Container::pid)
            .ok_or_else(|| format!("container {container} is not running"))
    }

    fn start(&mut self, id: &str, client: u64, request: u64) -> io::Result<()> {
        if self.stop.is_some() {
            return Err(io::Error::other("the sandbox is being stopped"));
        }
        let folder = container_folder(&self.plan, id);
        if self.containers.contains_key(id) || folder.join(CONTAINER_STATE).exists() {
            return Err(io::Error::other("it has been started before"));
        }
        let plan: ContainerPlan = persist::read_json(&folder.join(CONTAINER_PLAN))?;
        let mut container = Container::new(plan, LogFile::open(None)?);
        container.log = LogFile::open(container.plan.log.as_deref())
            .map_err(|e| io::Error::new(e.kind(), format!("open the log {:?}: {e}", container.plan.log)))?;
        let stdio = match container.plan.tty {
            Tty::Yes => None,
            Tty::No => {
                let (stdout, stdout_writer) = pipe()?;
                let (stderr, stderr_writer) = pipe()?;
                let stdin = if container.plan.stdin == Stdin::Closed {
                    OwnedFd::from(fs::File::open("/dev/null")?)
                } else {
                    let (reader, writer) = pipe()?;
                    container.input = Some(writer);
                    reader
                };
                container.stdout = Some(Output::new(stdout, Stream::Stdout)?);
                container.stderr = Some(Output::new(stderr, Stream::Stderr)?);
                Some(Stdio {
                    stdin,
                    stdout: stdout_writer,
                    stderr: stderr_writer,
                })
            }
        };
        let helper = helper::start_container(&self.plan, &container.plan, stdio)?;
        set_nonblocking(&helper.result)?;
        self.containers.insert(id.to_owned(), container);
        self.making.push(Making {
            helper,
            client,
            request,
            what: What::Container(id.to_owned()),
            finished: false,
        });
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "it is the call, taken apart")]
    fn exec(
        &mut self,
        exec: String,
        container: String,
        args: &[String],
        terminal: bool,
        fds: Vec<OwnedFd>,
        client: u64,
        request: u64,
    ) -> Result<(), String> {
        self.running(&container)?;
        let stdio = if terminal {
            None
        } else {
            let [stdin, stdout, stderr]: [OwnedFd; 3] = fds
                .try_into()
                .map_err(|_| "an exec without a terminal needs three streams".to_owned())?;
            Some(Stdio { stdin, stdout, stderr })
        };
        let helper =
            helper::exec(&self.plan, &container, &exec, args, stdio).map_err(|e| format!("start a helper: {e}"))?;
        set_nonblocking(&helper.result).map_err(|e| e.to_string())?;
        self.making.push(Making {
            helper,
            client,
            request,
            what: What::Exec(exec),
            finished: false,
        });
        Ok(())
    }

    fn attach(&mut self, id: String, container: &str, input: bool, fds: Vec<OwnedFd>, client: u64) -> Outcome {
        let known = self
            .containers
            .get_mut(container)
            .filter(|c| c.pid().is_some())
            .ok_or_else(|| format!("container {container} is not running"))?;
        let mut sinks = fds.into_iter().map(Sink::new);
        let text = |e: io::Error| e.to_string();
        let stdout = sinks.next().transpose().map_err(text)?;
        let stderr = sinks.next().transpose().map_err(text)?;
        let writer = known.terminal.as_ref().or(known.input.as_ref().filter(|_| input));
        let fds = match writer {
            Some(fd) => vec![fd.try_clone().map_err(text)?],
            None => Vec::new(),
        };
        known.attached.push(Attached {
            id,
            client,
            stdout,
            stderr,
            input,
        });
        Ok((Answer::Done, fds))
    }

    /// The helper with this pid may have said what it made.
    fn helper_result(&mut self, pid: Pid) {
        let Some(making) = self.making.iter_mut().find(|m| m.helper.pid == pid && !m.finished) else {
            return;
        };
        let (bytes, fds) = match packet::receive(making.helper.result.as_raw_fd()) {
            Ok(Some(received)) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => {
                let text = Err("the helper process died; see the supervisor's log".to_owned());
                (
                    serde_json::to_vec::<Result<Made, String>>(&text).unwrap_or_default(),
                    Vec::new(),
                )
            }
        };
        making.finished = true;
        let (client, request, what) = (making.client, making.request, making.what.clone());
        let result: Result<Made, String> =
            serde_json::from_slice(&bytes).unwrap_or_else(|e| Err(format!("the helper's answer: {e}")));
        let outcome = match (what, result) {
            (What::Container(id), Ok(made)) => self.started(&id, made, fds),
            (What::Container(id), Err(text)) => {
                self.not_started(&id);
                Err(text)
            }
            (What::Exec(exec), Ok(made)) => {
                self.execs.insert(made.pid, exec);
                Ok((Answer::Exec { pid: made.pid }, fds))
            }
            (What::Exec(_), Err(text)) => Err(text),
        };
        self.answer(client, request, outcome);
    }

    fn started(&mut self, id: &str, made: Made, mut fds: Vec<OwnedFd>) -> Outcome {
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

    fn not_started(&mut self, id: &str) {
        if let Some(container) = self.containers.remove(id) {
            self.hierarchies.kill(&container.plan.cgroup);
            let _ = self.hierarchies.remove(&container.plan.cgroup);
        }
        let _ = fs::remove_dir_all(self.plan.oci_state().join(id));
    }

    /// Collects every child that has ended.
    fn reap(&mut self, now: Instant) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        self.all_helper_results();
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
                self.making.remove(at);
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

    fn all_helper_results(&mut self) {
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

    fn exited(&mut self, id: &str, code: i32, now: Instant) {
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
        if let Err(e) = self.hierarchies.remove(&cgroup) {
            eprintln!("control group {cgroup}: {e}");
        }
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

fn send_signal(pid: Pid, signal: i32) -> Result<(), String> {
    // SAFETY: a plain system call; the pid is that of a child of ours that has not been reaped.
    match Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(format!("send signal {signal}: {e}")),
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// Begins a connection in the sandbox's network namespace. Whoever gets it waits for it, so that a port which does not
/// answer holds nobody up here.
fn connect_loopback(port: u16, family: Family) -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, socket};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
    let open = |family| {
        socket(
            family,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
    };
    let (socket, begun) = match family {
        Family::V4 => {
            let socket = open(AddressFamily::Inet)?;
            let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
            let begun = connect(socket.as_raw_fd(), &address);
            (socket, begun)
        }
        Family::V6 => {
            let socket = open(AddressFamily::Inet6)?;
            let address = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0));
            let begun = connect(socket.as_raw_fd(), &address);
            (socket, begun)
        }
    };
    match begun {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}

fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}
