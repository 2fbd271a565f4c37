//! Durable writes, reads and watches a second, on our store and, if it is there, on Debian's etcd, both with every sync.
//! The same load through the same verbs; etcd's figures have its gRPC in them, ours are calls in one process.
//!
//! `cargo bench -p store`, or `SECONDS_EACH=10 cargo bench -p store`.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the real clock")]

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use keyspace::{KeyRange, Keyspace, Op, Options, Range, Txn, Watch, Watched};
use store::{Store, StoreOptions};
use world::World;

const VALUE_BYTES: usize = 256;
const KEYS_PER_WRITER: usize = 100;
const FAN_OUT_PUTS: usize = 100;

type Subject = Arc<dyn Keyspace>;

async fn put(keyspace: &Subject, key: String) {
    let txn = Txn {
        success: vec![Op::put(key, vec![7; VALUE_BYTES])],
        ..Txn::default()
    };
    keyspace.txn(txn, Options::default()).await.expect("it is written");
}

async fn get(keyspace: &Subject, key: String) {
    let range = Range::of(KeyRange::one(key));
    keyspace.range(range, Options::default()).await.expect("it is read");
}

struct Rate {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// `tasks` at once, each one call after another.
async fn rate<F, Fut>(keyspace: &Subject, tasks: usize, each: Duration, call: F) -> Rate
where
    F: Fn(Subject, String) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let over = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let (keyspace, over, call) = (keyspace.clone(), over.clone(), call.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let key = format!("bench/{task}/{}", took.len() % KEYS_PER_WRITER);
                    let begin = Instant::now();
                    call(keyspace.clone(), key).await;
                    took.push(begin.elapsed());
                    // Reads of ours never wait, and would keep the clock from going.
                    if took.len().is_multiple_of(100) {
                        tokio::task::yield_now().await;
                    }
                }
                took
            })
        })
        .collect();
    tokio::time::sleep(each).await;
    over.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for task in running {
        took.extend(task.await.expect("no task fails"));
    }
    let elapsed = begin.elapsed();
    took.sort();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    Rate {
        per_second: took.len() as f64 / elapsed.as_secs_f64(),
        p50: at(50),
        p99: at(99),
    }
}

/// Events a second over all watchers.
async fn fan_out(keyspace: &Subject, watchers: usize) -> f64 {
    let mut listening = Vec::new();
    for _ in 0..watchers {
        let watch = Watch {
            keys: KeyRange::prefix("fan/"),
            from: None,
            previous: Default::default(),
        };
        let mut stream = keyspace.watch(watch, Options::default()).await.expect("it is watched");
        listening.push(tokio::spawn(async move {
            let mut seen = 0;
            while seen < FAN_OUT_PUTS {
                if let Watched::Events { events, .. } = stream.next().await.expect("it goes on").expect("it goes on") {
                    seen += events.len();
                }
            }
        }));
    }
    let begin = Instant::now();
    for number in 0..FAN_OUT_PUTS {
        put(keyspace, format!("fan/{number}")).await;
    }
    for watcher in listening {
        watcher.await.expect("no watcher fails");
    }
    (watchers * FAN_OUT_PUTS) as f64 / begin.elapsed().as_secs_f64()
}

fn seconds(name: &str, default: u64) -> Duration {
    let given = std::env::var(name).ok().and_then(|value| value.parse().ok());
    Duration::from_secs(given.unwrap_or(default))
}

struct Row {
    name: String,
    ours: Rate,
    etcd: Option<Rate>,
}

impl Row {
    fn print(&self) {
        let told = |rate: &Rate| {
            format!(
                "{:>9.0}/s  p50 {:>9.2?}  p99 {:>9.2?}",
                rate.per_second, rate.p50, rate.p99
            )
        };
        print!("{:<26} {}", self.name, told(&self.ours));
        if let Some(etcd) = &self.etcd {
            print!(
                "   etcd {}   x {:.1}",
                told(etcd),
                self.ours.per_second / etcd.per_second
            );
        }
        println!();
    }
}

async fn both<F, Fut>(
    name: String,
    subjects: (&Subject, Option<&Subject>),
    tasks: usize,
    each: Duration,
    call: F,
) -> Row
where
    F: Fn(Subject, String) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let ours = rate(subjects.0, tasks, each, call.clone()).await;
    let etcd = match subjects.1 {
        Some(etcd) => Some(rate(etcd, tasks, each, call).await),
        None => None,
    };
    Row { name, ours, etcd }
}

async fn run() {
    let each = seconds("SECONDS_EACH", 3);
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(StoreOptions::new(dir.path().join("store"), World::real())).expect("a store");
    let ours = store.keyspace("bench").await.expect("a keyspace");
    let server = Etcd::start(&dir.path().join("etcd"));
    let peer: Option<Subject> = match &server {
        Some(server) => {
            let options = etcd::EtcdOptions::new([&server.endpoint], "/bench/");
            let keyspace = etcd::EtcdKeyspace::connect(options).await.expect("etcd answers");
            println!("etcd is version {}", keyspace.version());
            Some(Arc::new(keyspace))
        }
        None => None,
    };
    for tasks in [1, 16, 256] {
        let name = format!("puts, {tasks} writers");
        let call = |keyspace: Subject, key: String| async move { put(&keyspace, key).await };
        both(name, (&ours, peer.as_ref()), tasks, each, call).await.print();
    }
    for tasks in [1, 64] {
        let name = format!("gets, {tasks} readers");
        let call = |keyspace: Subject, key: String| async move { get(&keyspace, key).await };
        both(name, (&ours, peer.as_ref()), tasks, each, call).await.print();
    }
    for watchers in [100, 10_000] {
        println!(
            "events to {watchers:<6} watchers   {:>9.0}/s",
            fan_out(&ours, watchers).await
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or("VmRSS unknown");
    println!(
        "this process: {}",
        resident.split_whitespace().collect::<Vec<_>>().join(" ")
    );
}

struct Etcd {
    child: Child,
    endpoint: String,
}

impl Etcd {
    fn start(dir: &std::path::Path) -> Option<Etcd> {
        let url = || {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            format!("http://{}", free.local_addr().expect("an address"))
        };
        let (client, peer) = (url(), url());
        let child = Command::new("/usr/bin/etcd")
            .arg("--data-dir")
            .arg(dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            println!("no etcd to compare with: /usr/bin/etcd is not there");
            return None;
        };
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("ready to serve"));
        assert!(ready, "etcd ended before it was ready");
        std::thread::spawn(move || lines.for_each(drop));
        Some(Etcd {
            child,
            endpoint: client,
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(run());
}
