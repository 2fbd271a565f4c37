//! The live list of steps that `up` shows, in the terminal or, when detached, through a pipe to the one who waits.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    sync::Mutex,
    time::Instant,
};

/// Ends the list; what follows on the line is for the person who waits.
pub const READY: &str = "ready ";

/// Where lines go. One at a time; each is written when its step is done.
pub struct Progress {
    out: Mutex<Out>,
    begin: Instant,
    last: Mutex<Instant>,
}

enum Out {
    Terminal {
        colour: bool,
    },
    /// The parent of a detached platform; it may go away.
    Pipe(File),
}

impl Progress {
    pub fn to_terminal() -> Progress {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Progress::new(Out::Terminal { colour })
    }

    pub fn to_pipe(pipe: File) -> Progress {
        Progress::new(Out::Pipe(pipe))
    }

    fn new(out: Out) -> Progress {
        let begin = Instant::now();
        Progress {
            out: Mutex::new(out),
            begin,
            last: Mutex::new(begin),
        }
    }

    /// Says that a step is done, with the time since the one before.
    pub fn done(&self, step: &str) {
        let now = Instant::now();
        let mut last = self.last.lock().expect("no one panics while holding it");
        let took_ms = now.duration_since(*last).as_secs_f64() * 1000.0;
        *last = now;
        self.write(&format!("{step:<44} {took_ms:>7.1} ms"));
        tracing::info!(step, took_ms, "started");
    }

    /// The last line.
    pub fn ready(&self, words: &str) {
        let total_ms = self.begin.elapsed().as_secs_f64() * 1000.0;
        tracing::info!(total_ms, "ready");
        self.write(&format!("{READY}in {total_ms:.0} ms: {words}"));
    }

    fn write(&self, line: &str) {
        let mut out = self.out.lock().expect("no one panics while holding it");
        // Nobody reads any more: that is no reason to stop.
        let _ = match &mut *out {
            Out::Terminal { colour } => write_line(&mut io::stdout().lock(), line, *colour),
            Out::Pipe(pipe) => writeln!(pipe, "{line}"),
        };
    }
}

/// One line of the list as people see it.
pub fn write_line(out: &mut impl Write, line: &str, colour: bool) -> io::Result<()> {
    let mark = if colour { "\x1b[32m✓\x1b[0m" } else { "✓" };
    writeln!(out, "{mark} {line}")?;
    out.flush()
}
