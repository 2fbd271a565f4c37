//! An etcd of Debian's (package `etcd-server`) on loopback, for one test.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use etcd::{EtcdKeyspace, EtcdOptions};

const ETCD: &str = "/usr/bin/etcd";

pub struct Etcd {
    child: Child,
    pub endpoint: String,
    _dir: Option<tempfile::TempDir>,
}

impl Etcd {
    pub fn start() -> Option<Etcd> {
        Etcd::start_in(tempfile::tempdir().expect("a folder"))
    }

    pub fn start_in(dir: tempfile::TempDir) -> Option<Etcd> {
        let path = dir.path().to_owned();
        Etcd::launch(&path, Some(dir))
    }

    /// On a data directory that somebody else keeps.
    pub fn start_on(dir: &std::path::Path) -> Option<Etcd> {
        Etcd::launch(dir, None)
    }

    fn launch(path: &std::path::Path, dir: Option<tempfile::TempDir>) -> Option<Etcd> {
        if !std::path::Path::new(ETCD).exists() {
            println!("skipped: there is no {ETCD} (Debian's package etcd-server)");
            return None;
        }
        let url = || {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            format!("http://{}", free.local_addr().expect("an address"))
        };
        let (client, peer) = (url(), url());
        let mut child = Command::new(ETCD)
            .arg("--data-dir")
            .arg(path)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("ready to serve"));
        assert!(ready, "etcd ended before it was ready");
        // It must not stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Etcd {
            child,
            endpoint: client,
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
