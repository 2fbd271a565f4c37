//! One round: a fresh store, clients and watchers, one fault after another, and what everybody was told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use testkit::history::{Log, Operation, Outcome, PastRead, Time, watch::Watched};
use tokio::{sync::watch, task::JoinSet};
use world::sim::SimRandom;

use crate::{clients, process::Process, proxy::Proxy, watchers};

const CLIENTS: u64 = 8;
const WATCHERS: u64 = 7;

/// Answers between two faults: a fault without load proves nothing.
const ANSWERS_BETWEEN_FAULTS: usize = 120;

/// What has not happened by then never will.
const HANG: Duration = Duration::from_secs(60);

/// What everybody in a round knows and writes to.
pub struct Shared {
    pub endpoint: String,
    pub seed: u64,
    begun: Instant,
    pub operations: Mutex<Vec<Operation>>,
    pub past_reads: Mutex<Vec<PastRead>>,
    pub watches: Mutex<Vec<Watched>>,
    pub log: Mutex<Log>,
    /// What nobody could explain at once.
    pub wrong: Mutex<Vec<String>>,
    pub answered: watch::Sender<usize>,
    /// The newest revision of the log.
    pub logged: AtomicI64,
    /// The newest compaction that was asked for.
    pub compacted: AtomicI64,
    /// Clients end when it is true.
    pub over: watch::Sender<bool>,
    /// Watchers end at this revision.
    pub last: watch::Sender<Option<i64>>,
}

impl Shared {
    pub fn now(&self) -> Time {
        self.begun.elapsed().as_nanos() as Time
    }

    pub fn record(&self, operation: Operation) {
        let is_told = matches!(operation.outcome, Outcome::Told { .. });
        self.operations.lock().unwrap().push(operation);
        if is_told {
            self.answered.send_modify(|answered| *answered += 1);
        }
    }

    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::SeqCst)
    }
}

pub struct Round {
    process: Process,
    proxy: Proxy,
    shared: Arc<Shared>,
}

/// What was told in a round.
pub struct Told {
    pub operations: Vec<Operation>,
    pub answered: usize,
    pub past_reads: Vec<PastRead>,
    pub watches: Vec<Watched>,
    pub log: Log,
}

impl Round {
    pub async fn start(seed: u64) -> Option<Round> {
        let process = Process::start().await?;
        let proxy = Proxy::start(process.port).await;
        let shared = Arc::new(Shared {
            endpoint: proxy.endpoint.clone(),
            seed,
            begun: Instant::now(),
            operations: Mutex::default(),
            past_reads: Mutex::default(),
            watches: Mutex::default(),
            log: Mutex::default(),
            wrong: Mutex::default(),
            answered: watch::channel(0).0,
            logged: AtomicI64::new(1),
            compacted: AtomicI64::new(0),
            over: watch::channel(false).0,
            last: watch::channel(None).0,
        });
        Some(Round { process, proxy, shared })
    }

    pub async fn play(mut self, faults_of_each: usize) -> Told {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(clients::run(self.shared.clone(), number));
        }
        let mut watchers = JoinSet::new();
        watchers.spawn(watchers::log(self.shared.clone()));
        for number in 0..WATCHERS {
            watchers.spawn(watchers::run(self.shared.clone(), number));
        }

        let random = SimRandom::new(self.shared.seed);
        for _ in 0..faults_of_each {
            self.load().await;
            self.process.kill_and_start_again().await;
            self.load().await;
            self.process.pause();
            // Longer than clients wait, or not.
            tokio::time::sleep(Duration::from_millis(50 + random.below(600))).await;
            self.process.go_on();
            self.load().await;
            self.proxy.cut();
        }
        self.load().await;
        self.shared.over.send_replace(true);
        ended("clients", clients).await;

        let last = tokio::time::timeout(HANG, clients::revision(&self.shared)).await;
        self.shared.last.send_replace(Some(last.expect("it answers a read")));
        ended("watchers", watchers).await;
        let wrong = std::mem::take(&mut *self.shared.wrong.lock().unwrap());
        assert!(wrong.is_empty(), "seed {}: {wrong:#?}", self.shared.seed);
        let take = |shared: &Shared| Told {
            operations: std::mem::take(&mut shared.operations.lock().unwrap()),
            answered: *shared.answered.borrow(),
            past_reads: std::mem::take(&mut shared.past_reads.lock().unwrap()),
            watches: std::mem::take(&mut shared.watches.lock().unwrap()),
            log: std::mem::take(&mut shared.log.lock().unwrap()),
        };
        take(&self.shared)
    }

    /// Waits until clients have been answered again.
    async fn load(&self) {
        let mut answered = self.shared.answered.subscribe();
        let enough = *answered.borrow_and_update() + ANSWERS_BETWEEN_FAULTS;
        let waited = tokio::time::timeout(HANG, answered.wait_for(|answered| *answered >= enough)).await;
        assert!(
            waited.is_ok(),
            "seed {}: clients are answered no more",
            self.shared.seed
        );
    }
}

async fn ended(what: &str, mut tasks: JoinSet<()>) {
    let all = async {
        while let Some(task) = tasks.join_next().await {
            task.expect("no task panics");
        }
    };
    assert!(tokio::time::timeout(HANG, all).await.is_ok(), "{what} don't end");
}
