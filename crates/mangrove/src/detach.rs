//! `mangrove up --detach`: starts itself anew in a session of its own, shows its steps, and returns when it is ready.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, IsTerminal},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::{cli, platform::Layout, progress};

/// Set for the process that runs on: its standard output is the pipe to the one who waits.
const DETACHED: &str = "MANGROVE_DETACHED";

/// The progress pipe, in the process that runs on; `None` in one that a person started. Standard output is then the log,
/// so that nothing written later meets a closed pipe.
pub fn progress_pipe() -> anyhow::Result<Option<File>> {
    if std::env::var_os(DETACHED).is_none() {
        return Ok(None);
    }
    let pipe = nix::unistd::dup(std::io::stdout()).context("keeping the progress pipe")?;
    nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    nix::unistd::dup2_stdout(std::io::stderr()).context("sending standard output to the log")?;
    Ok(Some(File::from(pipe)))
}

pub fn run(options: &cli::Up) -> anyhow::Result<()> {
    let layout = Layout::of(&options.data_dir);
    layout.make()?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.log())
        .with_context(|| format!("can't write the log {}", layout.log().display()))?;
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command
        .args(std::env::args_os().skip(1).filter(|argument| argument != "--detach"))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(writer)))
        .stderr(log);
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from)) };
    let mut child = command.spawn().context("starting the platform")?;
    drop(command);

    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for line in BufReader::new(reader).lines() {
        let line = line.context("reading the platform's progress")?;
        if let Some(error) = line.strip_prefix(ERROR) {
            let _ = child.wait();
            bail!("{error}");
        }
        progress::write_line(&mut std::io::stdout().lock(), &line, colour)?;
        if line.starts_with(progress::READY) {
            return Ok(());
        }
    }
    let status = child.wait().context("waiting for the platform")?;
    bail!(
        "the platform ended with {status} before it was ready: see {}",
        layout.log().display()
    )
}

/// A line that starts so tells why the platform could not start.
pub const ERROR: &str = "error: ";
