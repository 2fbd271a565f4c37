//! What can be asked of the supervisor.

use super::*;

impl Supervisor {
    pub(super) fn handle(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) {
        let done = || Ok((Answer::Done, Vec::new()));
        let outcome = match request.call {
            Call::Hello => {
                self.greetings.push((client, request.id));
                return;
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
            Call::Signal { container, signal } => self.running(&container).and_then(|(_, pid)| {
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

    /// A running container, and its first process.
    fn running(&self, id: &str) -> Result<(&Container, Pid), String> {
        self.containers
            .get(id)
            .and_then(|container| Some((container, container.pid()?)))
            .ok_or_else(|| format!("container {id} is not running"))
    }

    pub(super) fn start(&mut self, id: &str, client: u64, request: u64) -> io::Result<()> {
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
    pub(super) fn exec(
        &mut self,
        exec: String,
        container: String,
        args: &[String],
        terminal: bool,
        fds: Vec<OwnedFd>,
        client: u64,
        request: u64,
    ) -> Result<(), String> {
        let (running, _) = self.running(&container)?;
        let cgroup = running.plan.cgroup.clone();
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
            what: What::Exec { exec, cgroup },
            finished: false,
        });
        Ok(())
    }

    pub(super) fn attach(
        &mut self,
        id: String,
        container: &str,
        input: bool,
        fds: Vec<OwnedFd>,
        client: u64,
    ) -> Outcome {
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
