//! A store of ours served as an etcd, in this process, for one test.
#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;

use etcd::server::{Doors, Listener, Member, MemberOptions, Serves, serve};
use keyspace::{Local, index::Limits};
use store::{Store, StoreOptions, ValueOptions};
use tokio::{net::TcpListener, task::JoinHandle};
use world::World;

pub struct Served {
    pub endpoint: String,
    pub keyspace: Arc<dyn Local>,
    task: JoinHandle<()>,
    store: Option<Store>,
    dir: tempfile::TempDir,
}

impl Served {
    pub async fn start() -> Served {
        Served::with(MemberOptions::default(), limits()).await
    }

    pub async fn with(options: MemberOptions, limits: Limits) -> Served {
        Served::in_dir(folder(), options, limits).await
    }

    pub async fn with_values(values: ValueOptions) -> Served {
        let dir = folder();
        let store = StoreOptions {
            limits: limits(),
            values,
            ..StoreOptions::new(dir.path(), World::real())
        };
        Served::on(dir, store, MemberOptions::default()).await
    }

    pub async fn in_dir(dir: tempfile::TempDir, options: MemberOptions, limits: Limits) -> Served {
        let store = StoreOptions {
            limits,
            ..StoreOptions::new(dir.path(), World::real())
        };
        Served::on(dir, store, options).await
    }

    async fn on(dir: tempfile::TempDir, store: StoreOptions, options: MemberOptions) -> Served {
        let world = store.world.clone();
        let store = Store::open(store).expect("it opens");
        let keyspace = store.local("etcd").await.expect("a keyspace");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let options = MemberOptions {
            client_urls: vec![endpoint.clone()],
            ..options
        };
        let meta = store.keyspace("etcd.meta").await.expect("a keyspace");
        let member = Member::open(keyspace.clone(), meta, options, world)
            .await
            .expect("it opens");
        let doors = Doors {
            tls: None,
            streams_max: u32::MAX,
            serves: Serves::All,
        };
        let task = tokio::spawn(serve(Listener::Tcp(listener), doors, Arc::new(Arc::new(member))));
        Served {
            endpoint,
            keyspace,
            task,
            store: Some(store),
            dir,
        }
    }

    /// Bytes of values that are in memory.
    pub fn resident(&self) -> usize {
        self.store.as_ref().map_or(0, Store::resident)
    }

    /// Turns a bit where a file of values has this text.
    pub fn damage(&self, text: &str) {
        for entry in std::fs::read_dir(self.dir.path()).expect("a folder") {
            let path = entry.expect("an entry").path();
            let mut bytes = std::fs::read(&path).unwrap_or_default();
            let is_values = path.to_string_lossy().contains("values-");
            let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found.filter(|_| is_values) {
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).expect("it is written");
                return;
            }
        }
        panic!("no file of values has {text}");
    }

    /// Ends it in order, and gives what it has left on the disk.
    pub async fn stop(mut self) -> tempfile::TempDir {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.store.take();
        std::mem::replace(&mut self.dir, folder())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As a server has them: only clients compact.
pub fn limits() -> Limits {
    Limits {
        history_revisions_max: usize::MAX,
        history_bytes_max: usize::MAX,
        ..Limits::default()
    }
}

/// In memory where there is such a place: what is compared is what is answered.
pub fn folder() -> tempfile::TempDir {
    let fast = std::path::Path::new("/dev/shm");
    let made = if fast.is_dir() {
        tempfile::tempdir_in(fast)
    } else {
        tempfile::tempdir()
    };
    made.expect("a folder")
}
