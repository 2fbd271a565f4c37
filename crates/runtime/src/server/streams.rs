//! The streaming server: exec, attach and port-forward, asked for over CRI, carried over HTTP on loopback. A request
//! there is good for exactly what was asked for, once, and for a short time; the token in its path is the only key.

mod terminal;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use streaming::port_forward::{self, Forward};
use streaming::remote_command::{self, ExecStatus, Options, Session};
use streaming::{Body, body};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, unix::pipe};
use tokio_util::task::AbortOnDropHandle;

use super::exec::{DRAIN_TIMEOUT, pipe as new_pipe, reader};
use super::records::Phase;
use super::runtime::{Inner, new_id};
use crate::error::{Doing, Error, Result};
use crate::supervisor::protocol::{Call, Family};
use terminal::Terminal;

/// The kubelet dials at once; what is not fetched within it never will be (containerd: one minute).
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// Tokens not yet used (containerd's cache has as many).
const MAX_TOKENS: usize = 1000;

pub struct StreamServer {
    address: OnceLock<SocketAddr>,
    tokens: Mutex<HashMap<String, (Instant, Wanted)>>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

#[derive(Clone)]
enum Wanted {
    Exec {
        container: String,
        args: Vec<String>,
        options: Options,
    },
    Attach {
        container: String,
        options: Options,
    },
    PortForward {
        sandbox: String,
        ports: Vec<u16>,
    },
}

impl StreamServer {
    pub fn new() -> StreamServer {
        StreamServer {
            address: OnceLock::new(),
            tokens: Mutex::new(HashMap::new()),
            task: OnceLock::new(),
        }
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, (Instant, Wanted)>> {
        self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub async fn start(&self, inner: Weak<Inner>) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .doing(|| "listen for streams")?;
        let address = listener.local_addr().doing(|| "listen for streams")?;
        let _ = self.address.set(address);
        let task = tokio::spawn(async move {
            loop {
                let Ok((connection, _)) = listener.accept().await else {
                    continue;
                };
                let _ = connection.set_nodelay(true);
                let inner = inner.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let answer = answer(&inner, request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        let _ = self.task.set(AbortOnDropHandle::new(task));
        Ok(())
    }

    fn url(&self, kind: &str, wanted: Wanted) -> Result<String> {
        let address = self
            .address
            .get()
            .ok_or_else(|| Error::Precondition("the streaming server is not up".into()))?;
        let now = Instant::now();
        let mut tokens = self.tokens();
        tokens.retain(|_, (made, _)| now - *made < TOKEN_LIFETIME);
        if tokens.len() >= MAX_TOKENS {
            return Err(Error::Exhausted(format!("{MAX_TOKENS} streams wait to be fetched")));
        }
        let token = new_id();
        tokens.insert(token.clone(), (now, wanted));
        Ok(format!("http://{address}/{kind}/{token}"))
    }

    fn take(&self, path: &str) -> Option<Wanted> {
        let token = path.rsplit('/').next()?;
        let (made, wanted) = self.tokens().remove(token)?;
        (made.elapsed() < TOKEN_LIFETIME).then_some(wanted)
    }
}

impl Inner {
    pub(super) fn exec_url(&self, request: v1::ExecRequest) -> Result<String> {
        let container = self.container(&request.container_id)?;
        if !container.is_running() {
            return Err(Error::Precondition(format!(
                "container {} is not running",
                container.id
            )));
        }
        if request.cmd.is_empty() {
            return Err(Error::Invalid("there is no command to run".into()));
        }
        let options = Options {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
        };
        check(options)?;
        self.streams.url(
            "exec",
            Wanted::Exec {
                container: container.id.clone(),
                args: request.cmd,
                options,
            },
        )
    }

    pub(super) fn attach_url(&self, request: v1::AttachRequest) -> Result<String> {
        let container = self.container(&request.container_id)?;
        if !container.is_running() {
            return Err(Error::Precondition(format!(
                "container {} is not running",
                container.id
            )));
        }
        let options = Options {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            // The container has a terminal or has none, whatever is asked for.
            tty: container.with(|record| record.config.tty),
        };
        check(Options {
            stderr: options.stderr && !options.tty,
            ..options
        })?;
        self.streams.url(
            "attach",
            Wanted::Attach {
                container: container.id.clone(),
                options,
            },
        )
    }

    pub(super) fn port_forward_url(&self, request: v1::PortForwardRequest) -> Result<String> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::Precondition(format!("sandbox {} is stopped", sandbox.id)));
        }
        let ports = request
            .port
            .iter()
            .map(|port| {
                u16::try_from(*port)
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| Error::Invalid(format!("{port} is no port")))
            })
            .collect::<Result<_>>()?;
        self.streams.url(
            "portforward",
            Wanted::PortForward {
                sandbox: sandbox.id.clone(),
                ports,
            },
        )
    }
}

fn check(options: Options) -> Result<()> {
    if !(options.stdin || options.stdout || options.stderr) {
        return Err(Error::Invalid(
            "at least one of stdin, stdout and stderr has to be asked for".into(),
        ));
    }
    if options.tty && options.stderr {
        return Err(Error::Invalid("with a terminal there is no separate stderr".into()));
    }
    Ok(())
}

fn answer(inner: &Weak<Inner>, mut request: Request<Incoming>) -> Response<Body> {
    let wanted = inner
        .upgrade()
        .and_then(|inner| Some((inner.streams.take(request.uri().path())?, inner)));
    let Some((wanted, inner)) = wanted else {
        let mut response = Response::new(body::full("no such stream, or it has been fetched before\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    match wanted {
        Wanted::Exec {
            container,
            args,
            options,
        } => match remote_command::accept(&mut request, options) {
            Ok((response, pending)) => {
                tokio::spawn(async move {
                    if let Ok(session) = pending.await {
                        inner.serve_exec(&container, args, options, session).await;
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
        Wanted::Attach { container, options } => match remote_command::accept(&mut request, options) {
            Ok((response, pending)) => {
                tokio::spawn(async move {
                    if let Ok(session) = pending.await {
                        inner.serve_attach(&container, options, session).await;
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
        Wanted::PortForward { sandbox, ports } => match port_forward::accept(&mut request, &ports) {
            Ok((response, pending)) => {
                tokio::spawn(async move {
                    let Ok(mut forwards) = pending.await else { return };
                    let mut running = tokio::task::JoinSet::new();
                    while let Some(forward) = forwards.next().await {
                        running.spawn(inner.clone().serve_forward(sandbox.clone(), forward));
                        while running.try_join_next().is_some() {}
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
    }
}

impl Inner {
    async fn serve_exec(&self, container: &str, args: Vec<String>, options: Options, mut session: Session) {
        let result = if options.tty {
            self.exec_with_terminal(container, args, &mut session).await
        } else {
            self.exec_with_pipes(container, args, options, &mut session).await
        };
        match result {
            Ok(code) => session.finish(ExecStatus::Code(code)).await,
            Err(e) => session.finish(ExecStatus::Failed(e.to_string())).await,
        }
    }

    async fn exec_with_pipes(
        &self,
        container: &str,
        args: Vec<String>,
        options: Options,
        session: &mut Session,
    ) -> Result<i32> {
        let doing = || "make pipes";
        let container = self.container(container)?;
        let null = || {
            File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from)
        };
        let (stdin, input) = if options.stdin {
            let (reader, writer) = new_pipe().doing(doing)?;
            (reader, Some(pipe::Sender::from_owned_fd(writer).doing(doing)?))
        } else {
            (null().doing(doing)?, None)
        };
        let output = |wanted: bool| -> Result<(OwnedFd, Option<pipe::Receiver>)> {
            if wanted {
                let (from, to) = new_pipe().doing(doing)?;
                Ok((to, Some(reader(from).doing(doing)?)))
            } else {
                Ok((null().doing(doing)?, None))
            }
        };
        let (stdout, from_stdout) = output(options.stdout)?;
        let (stderr, from_stderr) = output(options.stderr)?;
        let running = self.exec(&container, args, Some([stdin, stdout, stderr])).await?;
        let _input = copy_task(session.stdin.take(), input);
        let stdout = copy_task(from_stdout, session.stdout.take());
        let stderr = copy_task(from_stderr, session.stderr.take());
        let gone = session.gone();
        let exit = async {
            let code = running.exit.await;
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, async {
                for task in [stdout, stderr].into_iter().flatten() {
                    let _ = task.await;
                }
            })
            .await;
            code
        };
        tokio::select! {
            code = exit => code.map_err(|_| Error::Supervisor("the sandbox's supervisor has gone".into())),
            // The pipes close with us; the command notices as in any broken pipeline.
            () = gone.cancelled() => Err(Error::Precondition("the client has gone".into())),
        }
    }

    async fn exec_with_terminal(&self, container: &str, args: Vec<String>, session: &mut Session) -> Result<i32> {
        let container = self.container(container)?;
        let running = self.exec(&container, args, None).await?;
        let master = running
            .terminal
            .ok_or_else(|| Error::Supervisor("there is no terminal".into()))?;
        let terminal = Arc::new(Terminal::new(master).doing(|| "open the terminal")?);
        let _input = copy_task(session.stdin.take(), Some(terminal::End(terminal.clone())));
        let output = copy_task(Some(terminal::End(terminal.clone())), session.stdout.take());
        let _sizes = resize_task(session, terminal);
        let gone = session.gone();
        let exit = async {
            let code = running.exit.await;
            if let Some(output) = output {
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, output).await;
            }
            code
        };
        tokio::select! {
            code = exit => code.map_err(|_| Error::Supervisor("the sandbox's supervisor has gone".into())),
            () = gone.cancelled() => Err(Error::Precondition("the client has gone".into())),
        }
    }

    async fn serve_attach(&self, container: &str, options: Options, mut session: Session) {
        match self.attach(container, options, &mut session).await {
            // As the kubelet has it: an attach that ends with its container has succeeded.
            Ok(()) => session.finish(ExecStatus::Code(0)).await,
            Err(e) => session.finish(ExecStatus::Failed(e.to_string())).await,
        }
    }

    async fn attach(&self, container: &str, options: Options, session: &mut Session) -> Result<()> {
        let doing = || "make pipes";
        let container = self.container(container)?;
        let sandbox = self.sandbox(&container.sandbox)?;
        let link = sandbox
            .link()
            .ok_or_else(|| Error::Precondition(format!("sandbox {} is stopped", sandbox.id)))?;
        let id = new_id();
        let (from_stdout, stdout) = new_pipe().doing(doing)?;
        let (from_stderr, stderr) = new_pipe().doing(doing)?;
        let call = Call::Attach {
            attach: id.clone(),
            container: container.id.clone(),
            input: options.stdin,
        };
        let fds = if options.tty {
            vec![stdout.as_raw_fd()]
        } else {
            vec![stdout.as_raw_fd(), stderr.as_raw_fd()]
        };
        let (_, mut fds) = link.call_with(call, &fds).await?;
        drop((stdout, stderr));
        let out = copy_task(Some(reader(from_stdout).doing(doing)?), session.stdout.take());
        let err = copy_task(Some(reader(from_stderr).doing(doing)?), session.stderr.take());
        let mut sizes = None;
        let mut input = None;
        if let Some(fd) = fds.pop() {
            if options.tty {
                let terminal = Arc::new(Terminal::new(fd).doing(|| "open the terminal")?);
                sizes = resize_task(session, terminal.clone());
                if options.stdin {
                    input = copy_task(session.stdin.take(), Some(terminal::End(terminal)));
                }
            } else {
                input = copy_task(
                    session.stdin.take(),
                    Some(pipe::Sender::from_owned_fd(fd).doing(doing)?),
                );
            }
        }
        let input_ended = async {
            match &mut input {
                Some(task) => {
                    let _ = task.await;
                    let close = Call::CloseInput {
                        container: container.id.clone(),
                    };
                    let _ = link.call(close).await;
                    std::future::pending::<()>().await;
                }
                None => std::future::pending().await,
            }
        };
        let mut phase = container.phase.subscribe();
        let ended = async {
            let _ = phase.wait_for(|phase| !matches!(phase, Phase::Running(_))).await;
            let drained = async {
                for task in [out, err].into_iter().flatten() {
                    let _ = task.await;
                }
            };
            // The supervisor gives a slow client ten seconds; past that nothing comes.
            let _ = tokio::time::timeout(crate::supervisor::MAX_STALL, drained).await;
        };
        let gone = session.gone();
        tokio::select! {
            () = ended => {}
            () = input_ended => {}
            () = gone.cancelled() => {}
        }
        drop((sizes, input));
        let detach = Call::Detach {
            attach: id,
            container: container.id.clone(),
        };
        let _ = link.call(detach).await;
        Ok(())
    }

    async fn serve_forward(self: Arc<Inner>, sandbox: String, mut forward: Forward) {
        match self.dial(&sandbox, forward.port).await {
            Ok(mut stream) => {
                let _ = tokio::io::copy_bidirectional(&mut forward, &mut stream).await;
            }
            Err(e) => forward.fail(&e.to_string()).await,
        }
    }

    /// A connection to a port inside the sandbox, over its own loopback.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<TcpStream> {
        let sandbox = self.sandbox(sandbox)?;
        let link = sandbox
            .link()
            .ok_or_else(|| Error::Precondition(format!("sandbox {} is stopped", sandbox.id)))?;
        let mut last = None;
        for family in [Family::V4, Family::V6] {
            let attempt = async {
                let (_, mut fds) = link.call_with(Call::Connect { port, family }, &[]).await?;
                let fd = fds
                    .pop()
                    .ok_or_else(|| Error::Supervisor("there is no connection".into()))?;
                let doing = || format!("connect to port {port} of the sandbox");
                let stream = TcpStream::from_std(std::net::TcpStream::from(fd)).doing(doing)?;
                stream.writable().await.doing(doing)?;
                match stream.take_error().doing(doing)? {
                    Some(e) => Err(e).doing(doing),
                    None => Ok(stream),
                }
            };
            match attempt.await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                // What IPv4 says is what people expect to read.
                Err(e) => last = last.or(Some(e)),
            }
        }
        Err(last.unwrap_or_else(|| Error::Supervisor("there is no connection".into())))
    }
}

/// Copies until either end is done, then closes the receiving one.
fn copy_task<R, W>(from: Option<R>, to: Option<W>) -> Option<AbortOnDropHandle<()>>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (mut from, mut to) = (from?, to?);
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })))
}

fn resize_task(session: &mut Session, terminal: Arc<Terminal>) -> Option<AbortOnDropHandle<()>> {
    let mut sizes = session.resize.take()?;
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(size) = sizes.next().await {
            terminal.resize(size.width, size.height);
        }
    })))
}
