//! The store as a process that can be killed, stopped and started again.

use std::{net::TcpListener, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

const BINARY: &str = env!("CARGO_BIN_EXE_mangrove");
const ETCD: &str = "/usr/bin/etcd";

pub struct Process {
    child: Child,
    /// The same after a restart.
    pub port: u16,
    data: tempfile::TempDir,
    flags: Vec<String>,
}

/// One that nobody has just now.
pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("an address").port()
}

fn command(port: u16, data: &std::path::Path) -> Option<Command> {
    let url = format!("http://127.0.0.1:{port}");
    if !std::env::var("STORE_PROGRAM").is_ok_and(|program| program == "etcd") {
        let mut command = Command::new(BINARY);
        command
            .args(["store", "--listen-client-urls", &url, "--data-dir"])
            .arg(data);
        return Some(command);
    }
    if !std::path::Path::new(ETCD).exists() {
        println!("skipped: there is no {ETCD} (Debian's package etcd-server)");
        return None;
    }
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new(ETCD);
    command
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--data-dir"])
        .arg(data);
    Some(command)
}

async fn started(port: u16, data: &std::path::Path, flags: &[String]) -> Option<Child> {
    let mut child = command(port, data)?
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    loop {
        let line = lines.next_line().await.expect("a readable pipe");
        let line = line.expect("it ended before it was ready");
        if line.contains("ready to serve") {
            break;
        }
    }
    // It must not stop at a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some(child)
}

impl Process {
    pub async fn start() -> Option<Process> {
        let data = tempfile::tempdir().expect("a folder");
        Process::start_on(data, Vec::new()).await
    }

    pub async fn start_on(data: tempfile::TempDir, flags: Vec<String>) -> Option<Process> {
        let port = free_port();
        Some(Process {
            child: started(port, data.path(), &flags).await?,
            port,
            data,
            flags,
        })
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub async fn kill_and_start_again(&mut self) {
        self.child.kill().await.expect("it is killed");
        self.child = started(self.port, self.data.path(), &self.flags)
            .await
            .expect("it was there before");
    }

    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it runs");
        kill(Pid::from_raw(pid as i32), signal).expect("it is ours");
    }
}
