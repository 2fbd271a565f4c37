//! Debian's etcd, on loopback and in a folder of its own.

use std::{
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::machine::on_path;

/// On a machine of the test's own every port is free.
const PORT: u16 = 2379;

pub struct Etcd {
    child: Child,
}

impl Etcd {
    /// `None`, with a printed word, where it is not installed.
    pub fn start(folder: &Path) -> Option<Etcd> {
        if !on_path("etcd") {
            println!("skipped: there is no etcd (Debian package etcd-server)");
            return None;
        }
        let log = std::fs::File::create(folder.join("etcd.log")).expect("the folder can be written");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.join("etcd"))
            .args(["--listen-client-urls", "http://127.0.0.1:2379"])
            .args(["--advertise-client-urls", "http://127.0.0.1:2379"])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"])
            .args(["--initial-cluster", "default=http://127.0.0.1:2380"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed");
        let etcd = Etcd { child };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(30), "etcd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(etcd)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{PORT}")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
