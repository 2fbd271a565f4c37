//! A real etcd on loopback, for one test: Debian's (package `etcd-server`), or the program that `MANGROVE_ETCD` names.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use etcd::{EtcdKeyspace, EtcdOptions};

const DEBIAN: &str = "/usr/bin/etcd";

/// What answers otherwise than 3.6, which is followed, is masked for those before it and for no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    Before36,
    From36,
}

/// The program, or `None` with a printed word.
pub fn program() -> Option<OsString> {
    let program = std::env::var_os("MANGROVE_ETCD").unwrap_or(DEBIAN.into());
    if !std::path::Path::new(&program).exists() {
        println!(
            "skipped: there is no {} (Debian's package etcd-server)",
            program.display()
        );
        return None;
    }
    Some(program)
}

pub fn generation(program: &OsString) -> Generation {
    let told = Command::new(program).arg("--version").output().expect("etcd starts");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let version = told.split("etcd Version: ").nth(1).and_then(|rest| rest.lines().next());
    let mut numbers = version
        .expect("etcd tells its version")
        .split('.')
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        panic!("no version: {told}");
    };
    match (major, minor) >= (3, 6) {
        true => Generation::From36,
        false => Generation::Before36,
    }
}

pub struct Etcd {
    child: Child,
    pub endpoint: String,
    pub generation: Generation,
    _dir: Option<tempfile::TempDir>,
}

impl Etcd {
    pub fn start() -> Option<Etcd> {
        Etcd::start_in(tempfile::tempdir().expect("a folder"))
    }

    pub fn start_in(dir: tempfile::TempDir) -> Option<Etcd> {
        let path = dir.path().to_owned();
        Etcd::launch(&path, Some(dir), &[])
    }

    pub fn start_with(flags: &[&str]) -> Option<Etcd> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().to_owned();
        Etcd::launch(&path, Some(dir), flags)
    }

    /// On a data directory that somebody else keeps.
    pub fn start_on(dir: &std::path::Path) -> Option<Etcd> {
        Etcd::launch(dir, None, &[])
    }

    fn launch(path: &std::path::Path, dir: Option<tempfile::TempDir>, flags: &[&str]) -> Option<Etcd> {
        let program = program()?;
        let url = || {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            format!("http://{}", free.local_addr().expect("an address"))
        };
        let (client, peer) = (url(), url());
        let mut child = Command::new(&program)
            .arg("--data-dir")
            .arg(path)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(flags)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut told = Vec::new();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| {
            let ready = line.contains("ready to serve");
            told.push(line);
            ready
        });
        if !ready {
            let _ = child.wait();
            // A free port is nobody's until it is listened on.
            if told.iter().any(|line| line.contains("address already in use")) {
                return Etcd::launch(path, dir, flags);
            }
            panic!("etcd ended before it was ready: {told:#?}");
        }
        // It must not stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Etcd {
            child,
            endpoint: client,
            generation: generation(&program),
            _dir: dir,
        })
    }

    pub async fn keyspace(&self, prefix: &str) -> EtcdKeyspace {
        let options = EtcdOptions::new([&self.endpoint], prefix);
        EtcdKeyspace::connect(options).await.expect("etcd answers")
    }

    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.end();
    }
}
