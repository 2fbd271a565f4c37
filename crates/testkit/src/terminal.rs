//! A program at a terminal of its own, as a person sits before it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use nix::{
    fcntl::OFlag,
    pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt},
};

use crate::said::{PATIENCE, Said, line};

/// What it means by key: interrupt, and end of input.
pub const CTRL_C: &str = "\x03";
pub const CTRL_D: &str = "\x04";

/// It is ended with this.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    /// Its other end, for who changes its size.
    device: PathBuf,
    line: String,
    /// What was shown so far, and how much of it was waited for.
    shown: String,
    read: usize,
}

impl Terminal {
    /// Starts `command` as the one who has the terminal, `rows` high and `columns` wide.
    #[track_caller]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Terminal {
        let line = line(command);
        let master = open().unwrap_or_else(|error| panic!("a terminal for `{line}`: {error}"));
        let device = PathBuf::from(ptsname_r(&master).expect("a terminal has a name"));
        let end = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(&device)
            .expect("a terminal can be opened");
        size(&device, rows, columns);
        let mut at_terminal = Command::new("setsid");
        at_terminal
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            at_terminal.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => at_terminal.env(name, value),
                None => at_terminal.env_remove(name),
            };
        }
        let copy = |file: &File| Stdio::from(file.try_clone().expect("a file has many handles"));
        let child = at_terminal
            .stdin(copy(&end))
            .stdout(copy(&end))
            .stderr(copy(&end))
            .spawn()
            .unwrap_or_else(|error| panic!("`{line}`: {error}"));
        drop(end);
        let handle = |master: &PtyMaster| -> File {
            let fd: OwnedFd = master.as_fd().try_clone_to_owned().expect("a file has many handles");
            fd.into()
        };
        let (mut output, keyboard) = (handle(&master), handle(&master));
        let (sender, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is how a terminal tells that nobody has it any more.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            child,
            keyboard,
            screen,
            device,
            line,
            shown: String::new(),
            read: 0,
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        size(&self.device, rows, columns);
    }

    pub fn type_text(&mut self, text: &str) {
        self.keyboard
            .write_all(text.as_bytes())
            .expect("somebody has the terminal");
    }

    /// Types a command and waits for what it says. What is typed is shown too, so `words` should not be in it.
    #[track_caller]
    pub fn ask(&mut self, command: &str, words: &str) {
        self.type_text(&format!("{command}\n"));
        self.wait_for(words);
    }

    /// Waits until these words are shown, after those that were waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        let begin = Instant::now();
        loop {
            if let Some(at) = self.shown[self.read..].find(words) {
                self.read += at + words.len();
                return;
            }
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let Ok(bytes) = self.screen.recv_timeout(left) else {
                panic!("`{}` did not show {words:?} but {:?}", self.line, self.shown)
            };
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Waits for its end: its exit code, and all that was shown.
    #[track_caller]
    pub fn finish(mut self) -> (Option<i32>, String) {
        let begin = Instant::now();
        loop {
            match self.screen.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("`{}` does not end: {:?}", self.line, self.shown),
            }
        }
        let status = self.child.wait().expect("it was started here");
        (status.code(), std::mem::take(&mut self.shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open() -> nix::Result<PtyMaster> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    Ok(master)
}

#[track_caller]
fn size(device: &std::path::Path, rows: u16, columns: u16) {
    let mut stty = Command::new("stty");
    stty.arg("-F").arg(device);
    stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
    Said::of(&mut stty).out();
}
