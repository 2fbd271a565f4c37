//! The program as a process of its own.

use std::{path::Path, process::Stdio};

use api::resource::SECRETS;
use base64::{Engine, engine::general_purpose::STANDARD};
use client::Client;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use crate::one;

const BINARY: &str = env!("CARGO_BIN_EXE_mangrove");

pub struct Process {
    child: Child,
    data: tempfile::TempDir,
    /// Where it listens: the same after a restart, since kubeconfigs name it.
    port: u16,
}

fn command(kubeconfig: &Path, data: &Path, port: u16, more: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["tenancy", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(data)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(more)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn started(kubeconfig: &Path, data: &Path, port: u16, more: &[&str]) -> (Child, u16) {
    let mut child = command(kubeconfig, data, port, more).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.next_line().await.unwrap().expect("it says that it is ready");
    let port = ready.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok());
    (child, port.unwrap_or_else(|| panic!("no port in {ready:?}")))
}

impl Process {
    pub async fn start(kubeconfig: &Path) -> Process {
        Process::start_with(kubeconfig, &[]).await
    }

    pub async fn start_with(kubeconfig: &Path, more: &[&str]) -> Process {
        let data = tempfile::tempdir().unwrap();
        let (child, port) = started(kubeconfig, data.path(), 0, more).await;
        Process { child, data, port }
    }

    pub async fn kill_and_start_again(mut self, kubeconfig: &Path) -> Process {
        self.child.kill().await.unwrap();
        let (child, port) = started(kubeconfig, self.data.path(), self.port, &[]).await;
        Process {
            child,
            data: self.data,
            port,
        }
    }

    /// A tenant's administrator, by what stands in the super cluster's Secret.
    pub async fn tenant(&self, admin: &Client, name: &str) -> Client {
        let secret = format!("{name}-kubeconfig");
        let text = one(
            "its kubeconfig is there",
            admin,
            &SECRETS,
            Some("mangrove-system"),
            &secret,
            |secret| secret.tree()["data"]["kubeconfig"].as_str().map(str::to_owned),
        )
        .await;
        let text = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        Client::from_kubeconfig_text(&text, None).await.unwrap()
    }

    /// Ends it as an operator does, and it ends well.
    pub async fn stop(mut self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
    }

    /// Starts one that can't run; returns what it complains of, in one line.
    pub async fn refused(kubeconfig: &Path, more: &[&str]) -> String {
        let data = tempfile::tempdir().unwrap();
        let mut child = command(kubeconfig, data.path(), 0, more)
            .stderr(Stdio::piped())
            .env("RUST_LOG", "off")
            .spawn()
            .unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(1));
        let line = said.trim_end();
        assert!(line.starts_with("error: ") && !line.contains('\n'), "{said}");
        line.to_owned()
    }
}
