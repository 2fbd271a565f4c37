//! A real etcd over mutual TLS, on loopback and in a folder of its own: Debian's, or the program that `MANGROVE_ETCD` names.

use std::{
    ffi::OsString,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::machine::on_path;

/// On a machine of the test's own every port is free.
const PORT: u16 = 2379;

/// Files in the test's folder.
pub struct EtcdTls {
    pub authority: PathBuf,
    pub server: (PathBuf, PathBuf),
    pub client: (PathBuf, PathBuf),
}

pub struct Etcd {
    child: Child,
    tls: EtcdTls,
}

fn program() -> Option<OsString> {
    let named = std::env::var_os("MANGROVE_ETCD");
    let there = named
        .as_ref()
        .map_or_else(|| on_path("etcd"), |program| Path::new(program).exists());
    let program = named.unwrap_or("etcd".into());
    if !there {
        println!(
            "skipped: there is no {} (Debian package etcd-server)",
            program.display()
        );
    }
    there.then_some(program)
}

impl Etcd {
    /// `None`, with a printed word, where it is not installed.
    pub fn start(folder: &Path, tls: EtcdTls) -> Option<Etcd> {
        let log = std::fs::File::create(folder.join("etcd.log")).expect("the folder can be written");
        let child = Command::new(program()?)
            .arg("--data-dir")
            .arg(folder.join("etcd"))
            .args(["--listen-client-urls", "https://127.0.0.1:2379"])
            .args(["--advertise-client-urls", "https://127.0.0.1:2379"])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"])
            .args(["--initial-cluster", "default=http://127.0.0.1:2380"])
            .arg("--client-cert-auth")
            .arg("--trusted-ca-file")
            .arg(&tls.authority)
            .arg("--cert-file")
            .arg(&tls.server.0)
            .arg("--key-file")
            .arg(&tls.server.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed");
        let etcd = Etcd { child, tls };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(30), "etcd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(etcd)
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{PORT}")
    }

    /// How the platform reaches it.
    pub fn options(&self) -> [String; 8] {
        let path = |path: &Path| path.to_str().expect("temporary folders have simple names").to_owned();
        [
            "--etcd-servers".into(),
            self.url(),
            "--etcd-cafile".into(),
            path(&self.tls.authority),
            "--etcd-certfile".into(),
            path(&self.tls.client.0),
            "--etcd-keyfile".into(),
            path(&self.tls.client.1),
        ]
    }

    /// `etcdctl`, as the same client.
    pub fn ctl(&self) -> Command {
        let mut ctl = Command::new("etcdctl");
        ctl.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        ctl.arg("--cacert").arg(&self.tls.authority);
        ctl.arg("--cert").arg(&self.tls.client.0);
        ctl.arg("--key").arg(&self.tls.client.1);
        ctl
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
