//! How a command runs that goes on until it is told to end: its log, its threads, its signals.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What happens, for programs that nobody watches.
const INFO: &str = "info,h2=warn,hyper=warn,rustls=warn,tower=warn";

/// Warnings for a person at the terminal, all that happens into a log that is kept. `RUST_LOG` decides otherwise.
pub fn follow_with_log(is_kept: bool) {
    let default = if is_kept { INFO } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!is_kept)
        .init();
}

pub fn on_all_cores<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(work)
}

/// The signals by which a process is told to end.
pub struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    ByProgram,
    /// By Ctrl-C.
    ByPerson,
}

impl Ending {
    pub fn listen() -> anyhow::Result<Ending> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Ending {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub async fn told(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::ByProgram,
            _ = self.interrupt.recv() => Told::ByPerson,
        }
    }

    /// What `work` comes to; `None` if the process is told to end before.
    pub async fn unless_told<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
        tokio::select! {
            done = work => done.map(Some),
            _ = self.told() => Ok(None),
        }
    }
}

/// For a command that does not start well when it ends early.
pub const TOLD_WHILE_STARTING: &str = "it was told to end while it was starting";
