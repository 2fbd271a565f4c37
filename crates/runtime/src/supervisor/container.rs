//! One container from the supervisor's side: its streams, its log, who is attached.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;

use super::log::{LogFile, Splitter, Stream};
use super::plan::{ContainerPlan, ContainerState};

/// Output that an attached client has not taken yet. Above it the container's output waits, as a terminal's would.
pub const MAX_PENDING_BYTES: usize = 256 << 10;

/// An attached client that takes nothing for so long is let go, so that it can't stop the container's logs for ever.
pub const MAX_STALL: std::time::Duration = std::time::Duration::from_secs(10);

pub enum Phase {
    Starting,
    Running { pid: Pid, state: ContainerState },
    Exited,
}

pub struct Container {
    pub plan: ContainerPlan,
    pub phase: Phase,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// The terminal's master end, if there is one; output is read from a duplicate.
    pub terminal: Option<OwnedFd>,
    pub input: Option<OwnedFd>,
    pub log: LogFile,
    pub attached: Vec<Attached>,
}

pub struct Output {
    pub file: File,
    splitter: Splitter,
}

pub struct Attached {
    pub id: String,
    pub client: u64,
    pub stdout: Option<Sink>,
    pub stderr: Option<Sink>,
    pub input: bool,
}

/// A descriptor that takes bytes as fast as somebody reads at its other end.
pub struct Sink {
    pub file: File,
    pending: VecDeque<u8>,
    stalled_since: Option<Instant>,
}

impl Output {
    pub fn new(fd: OwnedFd, stream: Stream) -> io::Result<Output> {
        set_nonblocking(&fd)?;
        Ok(Output {
            file: File::from(fd),
            splitter: Splitter::new(stream),
        })
    }
}

impl Sink {
    pub fn new(fd: OwnedFd) -> io::Result<Sink> {
        set_nonblocking(&fd)?;
        Ok(Sink {
            file: File::from(fd),
            pending: VecDeque::new(),
            stalled_since: None,
        })
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= MAX_PENDING_BYTES
    }

    fn has_stalled(&self, now: Instant) -> bool {
        self.stalled_since.is_some_and(|since| now - since > MAX_STALL)
    }

    /// False when nobody listens any more.
    fn push(&mut self, bytes: &[u8], now: Instant) -> bool {
        if self.pending.is_empty() {
            match self.write_some(bytes) {
                Ok(written) if written == bytes.len() => return true,
                Ok(written) => self.pending.extend(&bytes[written..]),
                Err(_) => return false,
            }
            self.stalled_since = Some(now);
        } else {
            self.pending.extend(bytes);
        }
        true
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }

    /// Called when the descriptor takes bytes again. False when nobody listens any more.
    pub fn flush(&mut self, now: Instant) -> bool {
        let (first, _) = self.pending.as_slices();
        let first = first.to_vec();
        match self.write_some(&first) {
            Ok(written) => {
                self.pending.drain(..written);
                if written > 0 {
                    self.stalled_since = (!self.pending.is_empty()).then_some(now);
                }
                true
            }
            Err(_) => false,
        }
    }
}

impl Container {
    pub fn new(plan: ContainerPlan, log: LogFile) -> Container {
        Container {
            plan,
            phase: Phase::Starting,
            stdout: None,
            stderr: None,
            terminal: None,
            input: None,
            log,
            attached: Vec::new(),
        }
    }

    pub fn pid(&self) -> Option<Pid> {
        match &self.phase {
            Phase::Running { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    pub fn output(&self, stream: Stream) -> Option<&Output> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    /// Output waits while some attached client is behind.
    pub fn may_read(&self) -> bool {
        !self
            .attached
            .iter()
            .flat_map(|a| a.stdout.iter().chain(&a.stderr))
            .any(Sink::is_full)
    }

    /// Reads once, into the log and to whoever is attached.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8], now: Instant) -> Taken {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(output) = slot else {
            return Taken::End;
        };
        let mut lines = Vec::new();
        let length = match output.file.read(buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Taken::Nothing,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Taken::Bytes,
            // A terminal whose last user has gone.
            Err(_) => 0,
        };
        let time = timestamp();
        if length == 0 {
            output.splitter.finish(&time, &mut lines);
            *slot = None;
            self.log.write(&lines);
            return Taken::End;
        }
        let bytes = &buffer[..length];
        output.splitter.push(bytes, &time, &mut lines);
        self.log.write(&lines);
        for attached in &mut self.attached {
            let sink = match stream {
                Stream::Stdout => &mut attached.stdout,
                Stream::Stderr => &mut attached.stderr,
            };
            if sink.as_mut().is_some_and(|sink| !sink.push(bytes, now)) {
                *sink = None;
            }
        }
        Taken::Bytes
    }

    /// Takes what is left in the pipes once nobody can write any more.
    pub fn drain(&mut self, buffer: &mut [u8], now: Instant) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while let Taken::Bytes = self.read(stream, buffer, now) {}
            let slot = match stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            if let Some(mut output) = slot.take() {
                let mut lines = Vec::new();
                output.splitter.finish(&timestamp(), &mut lines);
                self.log.write(&lines);
            }
        }
        self.input = None;
        self.terminal = None;
    }

    /// Lets go of clients that have not taken anything for long, and of those that have got all of an ended container.
    pub fn prune(&mut self, now: Instant) {
        let ended = matches!(self.phase, Phase::Exited);
        for attached in &mut self.attached {
            for sink in [&mut attached.stdout, &mut attached.stderr] {
                if sink
                    .as_ref()
                    .is_some_and(|s| s.has_stalled(now) || (ended && !s.has_pending()))
                {
                    *sink = None;
                }
            }
        }
        if ended {
            self.attached.retain(|a| a.stdout.is_some() || a.stderr.is_some());
        }
    }

    pub fn has_pending(&self) -> bool {
        self.attached
            .iter()
            .flat_map(|a| a.stdout.iter().chain(&a.stderr))
            .any(Sink::has_pending)
    }
}

/// What came of one read.
pub enum Taken {
    Bytes,
    Nothing,
    End,
}

pub fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
