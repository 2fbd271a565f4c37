//! Commands in running containers.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use k8s_cri::v1;
use nix::fcntl::OFlag;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::link::Link;
use super::records::Container;
use super::runtime::{Inner, new_id};
use crate::error::{Doing, Error, Result};
use crate::supervisor::protocol::{Answer, Call};

/// CRI's own limit for each stream of an `ExecSync` answer (CVE-2022-1708): what is more is read and dropped.
const MAX_SYNC_OUTPUT_BYTES: usize = 16 << 20;

/// What an ended command's children may still write. They may hold the pipes for ever, so it can't be waited for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Who waits for which command to end.
#[derive(Default)]
pub struct Execs(Mutex<HashMap<String, (String, oneshot::Sender<i32>)>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, oneshot::Sender<i32>)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn expect(&self, exec: &str, sandbox: &str) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(exec.to_owned(), (sandbox.to_owned(), sender));
        receiver
    }

    fn forget(&self, exec: &str) {
        self.lock().remove(exec);
    }

    pub fn ended(&self, exec: &str, code: i32) {
        if let Some((_, waiting)) = self.lock().remove(exec) {
            let _ = waiting.send(code);
        }
    }

    /// Whoever waits learns that no answer comes.
    pub fn sandbox_gone(&self, sandbox: &str) {
        self.lock().retain(|_, (of, _)| of != sandbox);
    }
}

/// A command that runs.
pub struct Running {
    pub id: String,
    pub link: Arc<Link>,
    /// Its exit code; an error if its supervisor has gone.
    pub exit: oneshot::Receiver<i32>,
    /// The terminal's master end, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Inner {
    /// `stdio` is standard input, output and error; without it the command gets a terminal.
    pub(super) async fn exec(
        &self,
        container: &Container,
        args: Vec<String>,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<Running> {
        if args.is_empty() || args.iter().any(|argument| argument.contains('\0')) {
            return Err(Error::Invalid("there is no command to run".into()));
        }
        if !container.is_running() {
            return Err(Error::Precondition(format!(
                "container {} is not running",
                container.id
            )));
        }
        let sandbox = self.sandbox(&container.sandbox)?;
        let link = sandbox
            .link()
            .ok_or_else(|| Error::Precondition(format!("sandbox {} is stopped", sandbox.id)))?;
        let id = new_id();
        let exit = self.execs.expect(&id, &sandbox.id);
        let call = Call::Exec {
            exec: id.clone(),
            container: container.id.clone(),
            args,
            terminal: stdio.is_none(),
        };
        let fds: Vec<_> = stdio.iter().flatten().map(AsRawFd::as_raw_fd).collect();
        match link.call_with(call, &fds).await {
            Ok((Answer::Exec { .. }, mut fds)) => Ok(Running {
                id,
                link,
                exit,
                terminal: fds.pop(),
            }),
            Ok((other, _)) => {
                self.execs.forget(&id);
                Err(Error::Supervisor(format!("an odd answer to an exec: {other:?}")))
            }
            Err(e) => {
                self.execs.forget(&id);
                Err(e)
            }
        }
    }

    pub(super) async fn exec_sync(self: Arc<Inner>, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse> {
        let container = self.container(&request.container_id)?;
        let doing = || "make pipes";
        let (stdout, stdout_writer) = pipe().doing(doing)?;
        let (stderr, stderr_writer) = pipe().doing(doing)?;
        let stdin = OwnedFd::from(File::open("/dev/null").doing(doing)?);
        let running = self
            .exec(&container, request.cmd, Some([stdin, stdout_writer, stderr_writer]))
            .await?;
        let stdout = Collector::start(reader(stdout).doing(doing)?);
        let stderr = Collector::start(reader(stderr).doing(doing)?);
        let exit = async {
            match u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0) {
                Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), running.exit).await,
                None => Ok(running.exit.await),
            }
        };
        match exit.await {
            Ok(Ok(code)) => Ok(v1::ExecSyncResponse {
                stdout: stdout.finish().await,
                stderr: stderr.finish().await,
                exit_code: code,
            }),
            Ok(Err(_)) => Err(Error::Supervisor("the sandbox's supervisor has gone".into())),
            Err(_) => {
                let kill = Call::SignalExec {
                    exec: running.id.clone(),
                    signal: libc::SIGKILL,
                };
                let _ = running.link.call(kill).await;
                self.execs.forget(&running.id);
                Err(Error::Timeout(format!(
                    "the command did not end within {} s",
                    request.timeout
                )))
            }
        }
    }
}

/// Reads a stream to its end, keeping the first [`MAX_SYNC_OUTPUT_BYTES`].
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    task: AbortOnDropHandle<()>,
}

impl Collector {
    fn start(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Collector {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = bytes.clone();
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let room = MAX_SYNC_OUTPUT_BYTES - kept.len();
                kept.extend_from_slice(&buffer[..length.min(room)]);
            }
        });
        Collector {
            bytes,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// What was written before the end lies in the pipe; children that live on may keep it open.
    async fn finish(self) -> Vec<u8> {
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.task).await;
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

pub fn reader(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(fd)
}
