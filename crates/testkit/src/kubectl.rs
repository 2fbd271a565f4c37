//! The unmodified kubectl, as one user of one plane.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::said::{PATIENCE, Said, line};

#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Discovery caches belong to the test and leave with it.
    cache: PathBuf,
}

impl Kubectl {
    pub fn new(kubeconfig: impl Into<PathBuf>, cache: impl Into<PathBuf>) -> Kubectl {
        Kubectl {
            program: "kubectl".into(),
            kubeconfig: kubeconfig.into(),
            cache: cache.into(),
        }
    }

    /// The same user with another kubectl.
    #[must_use]
    pub fn with_program(&self, program: impl Into<PathBuf>) -> Kubectl {
        Kubectl {
            program: program.into(),
            ..self.clone()
        }
    }

    /// Its minor version: 32 of `v1.32.4`.
    pub fn minor(&self) -> u32 {
        let version = self.json(&["version", "--client"]);
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        let digits = minor.trim_end_matches(|c: char| !c.is_ascii_digit());
        digits
            .parse()
            .unwrap_or_else(|_| panic!("kubectl has a version: {version}"))
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.cache)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments);
        command
    }

    pub fn said(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }

    /// What it prints; it has to succeed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.said(arguments).out()
    }

    /// What it complains about; it has to fail.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        self.said(arguments).complaint()
    }

    /// What it prints, as JSON; `-o json` is added.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("kubectl {arguments:?} prints JSON: {error}: {text}"))
    }

    /// A field of one object, by kubectl's jsonpath.
    #[track_caller]
    pub fn field(&self, what: &[&str], path: &str) -> String {
        self.run(&[&["get"], what, &["-o", &format!("jsonpath={{{path}}}")]].concat())
    }

    /// Names of the objects of a list, sorted.
    #[track_caller]
    pub fn names(&self, what: &[&str]) -> Vec<String> {
        let text = self.run(&[&["get"], what, &["-o", "name"]].concat());
        let mut names: Vec<String> = text
            .lines()
            .map(|line| line.rsplit('/').next().unwrap_or(line).to_owned())
            .collect();
        names.sort();
        names
    }

    /// Applies a manifest from text.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        Said::with_input(&mut self.command(&["apply", "-f", "-"]), manifest).out()
    }

    /// Starts it and reads its lines as they come.
    #[track_caller]
    pub fn follow(&self, arguments: &[&str]) -> Following {
        Following::start(&mut self.command(arguments))
    }

    /// Asks until `done` says so: for states that nothing can be waited for by `kubectl wait`.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut done: impl FnMut(&Kubectl) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A program that runs; it is ended with this.
pub struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
    line: String,
    seen: Vec<String>,
}

impl Following {
    /// Output and errors are read as one.
    #[track_caller]
    pub fn start(command: &mut Command) -> Following {
        let line = line(command);
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("`{line}`: {error}"));
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("asked for a pipe");
        let stderr = child.stderr.take().expect("asked for a pipe");
        let other = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        std::thread::spawn(move || {
            BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| other.send(line))
        });
        Following {
            child,
            lines,
            line,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with these words.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        let begin = Instant::now();
        while let Some(left) = PATIENCE.checked_sub(begin.elapsed()) {
            let Ok(line) = self.lines.recv_timeout(left) else { break };
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
        let last = &self.seen[self.seen.len().saturating_sub(30)..];
        panic!("`{}` did not say {words:?} but at the end {last:#?}", self.line)
    }

    /// Types a line.
    pub fn type_line(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("asked for a pipe");
        std::io::Write::write_all(stdin, format!("{text}\n").as_bytes()).expect("it reads its input");
    }

    /// Closes its input and waits for its end; what it said in all.
    #[track_caller]
    pub fn finish(mut self) -> (Option<i32>, Vec<String>) {
        drop(self.child.stdin.take());
        let mut lines = std::mem::take(&mut self.seen);
        let begin = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("`{}` does not end; it said {lines:#?}", self.line),
            }
        }
        let status = self.child.wait().expect("it was started here");
        (status.code(), lines)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
