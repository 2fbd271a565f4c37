//! What a program said: run to its end within a time, with both its outputs.

use std::{
    io::{self, Read},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// No command of a test takes longer unless something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Said {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    line: String,
}

impl Said {
    /// Runs `command` with nothing on its standard input.
    pub fn of(command: &mut Command) -> Said {
        Said::with_input(command, "")
    }

    pub fn with_input(command: &mut Command, input: &str) -> Said {
        let line = line(command);
        Said::try_run(command, input).unwrap_or_else(|error| panic!("`{line}`: {error}"))
    }

    fn try_run(command: &mut Command, input: &str) -> io::Result<Said> {
        let line = line(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("asked for a pipe");
        let input = input.to_owned();
        // Who does not read its input has closed it, which is fine.
        std::thread::spawn(move || io::Write::write_all(&mut stdin, input.as_bytes()));
        let out = collect(child.stdout.take().expect("asked for a pipe"));
        let err = collect(child.stderr.take().expect("asked for a pipe"));
        let (Ok(out), Ok(err)) = (out.recv_timeout(PATIENCE), err.recv_timeout(PATIENCE)) else {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not end within {PATIENCE:?}"),
            ));
        };
        Ok(Said {
            code: child.wait()?.code(),
            out,
            err,
            line,
        })
    }

    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// What it printed; it has to have ended well.
    #[track_caller]
    pub fn out(self) -> String {
        assert!(self.succeeded(), "{self}");
        self.out
    }

    /// Its complaint; it has to have ended with an error.
    #[track_caller]
    pub fn complaint(self) -> String {
        assert!(!self.succeeded(), "it should have been refused: {self}");
        self.err
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {:?}\n-- output:\n{}\n-- errors:\n{}",
            self.line, self.code, self.out, self.err
        )
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
