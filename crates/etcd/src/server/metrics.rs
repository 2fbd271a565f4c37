//! `/metrics`, with etcd's names for what means the same.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use keyspace::OpResult;

use super::member::{Member, VERSION};

#[derive(Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Requests of one method, answers by gRPC code, and how long they took.
#[derive(Default)]
struct Method {
    started: u64,
    by_code: BTreeMap<u16, u64>,
    nanoseconds: u64,
}

#[derive(Default)]
pub struct Metrics {
    pub watchers: Gauge,
    pub watch_streams: Gauge,
    pub events: Counter,
    pub ranges: Counter,
    pub puts: Counter,
    pub deletes: Counter,
    /// Of more than one operation.
    pub txns: Counter,
    pub leases_granted: Counter,
    pub leases_revoked: Counter,
    pub leases_renewed: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    methods: Mutex<BTreeMap<&'static str, Method>>,
}

impl Metrics {
    fn method(&self, method: &'static str, change: impl FnOnce(&mut Method)) {
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        change(methods.entry(method).or_default());
    }

    /// `method` is of the fixed list of methods.
    pub fn started(&self, method: &'static str) {
        self.method(method, |method| method.started += 1);
    }

    /// The code is 0 for good.
    pub fn handled(&self, method: &'static str, code: u16, took: Duration) {
        self.method(method, |method| {
            *method.by_code.entry(code).or_default() += 1;
            method.nanoseconds += took.as_nanos() as u64;
        });
    }

    pub fn received(&self, bytes: usize) {
        self.received_bytes.add(bytes as u64);
    }

    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.add(bytes as u64);
    }

    /// As etcd counts: each operation that was carried out, and transactions of more than one.
    pub fn done(&self, results: &[OpResult]) {
        let operations = self.operations(results);
        self.txns.add(u64::from(operations > 1));
    }

    fn operations(&self, results: &[OpResult]) -> usize {
        let mut operations = 0;
        for result in results {
            operations += 1;
            match result {
                OpResult::Range(_) => self.ranges.add(1),
                OpResult::Put { .. } => self.puts.add(1),
                OpResult::Delete { .. } => self.deletes.add(1),
                OpResult::Txn(nested) => {
                    operations -= 1;
                    operations += self.operations(&nested.results);
                }
            }
        }
        operations
    }
}

const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// As Prometheus reads it.
pub fn text(member: &Member) -> String {
    let mut out = String::new();
    let metrics = &member.metrics;
    let storage = member.keyspace.storage();
    let (live, revision, compacted) = {
        let index = member.view().read();
        (index.live_keys(), index.revision(), index.compacted())
    };
    let healthy = i64::from(member.keyspace.health().is_ok());
    let mut one = |kind: &str, name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
    };
    one("gauge", "etcd_server_has_leader", &healthy);
    one("gauge", "etcd_server_is_leader", &healthy);
    one("counter", "etcd_server_leader_changes_seen_total", &1);
    one("gauge", "etcd_server_is_learner", &0);
    one("gauge", "etcd_server_proposals_committed_total", &storage.commits);
    one("gauge", "etcd_server_proposals_applied_total", &storage.commits);
    one("gauge", "etcd_server_proposals_pending", &0);
    one("counter", "etcd_server_health_success", &healthy);
    one("gauge", "etcd_server_quota_backend_bytes", &member.options.quota_bytes);
    one("gauge", "etcd_mvcc_db_total_size_in_bytes", &storage.size_bytes);
    one(
        "gauge",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        &storage.in_use_bytes,
    );
    one("gauge", "etcd_debugging_mvcc_keys_total", &live);
    one("gauge", "etcd_debugging_mvcc_current_revision", &revision);
    one("gauge", "etcd_debugging_mvcc_compact_revision", &compacted);
    one("gauge", "etcd_debugging_mvcc_watcher_total", &metrics.watchers.get());
    one(
        "gauge",
        "etcd_debugging_mvcc_watch_stream_total",
        &metrics.watch_streams.get(),
    );
    let counters = [
        ("etcd_debugging_mvcc_events_total", &metrics.events),
        ("etcd_mvcc_range_total", &metrics.ranges),
        ("etcd_mvcc_put_total", &metrics.puts),
        ("etcd_mvcc_delete_total", &metrics.deletes),
        ("etcd_mvcc_txn_total", &metrics.txns),
        ("etcd_debugging_lease_granted_total", &metrics.leases_granted),
        ("etcd_debugging_lease_revoked_total", &metrics.leases_revoked),
        ("etcd_debugging_lease_renewed_total", &metrics.leases_renewed),
        ("etcd_network_client_grpc_received_bytes_total", &metrics.received_bytes),
        ("etcd_network_client_grpc_sent_bytes_total", &metrics.sent_bytes),
    ];
    for (name, counter) in counters {
        one("counter", name, &counter.get());
    }
    let process = Process::read();
    one("gauge", "process_resident_memory_bytes", &process.resident_bytes);
    one("gauge", "process_virtual_memory_bytes", &process.virtual_bytes);
    one("counter", "process_cpu_seconds_total", &process.cpu_seconds);
    one("gauge", "process_open_fds", &process.open_files);
    let _ = writeln!(
        out,
        "# TYPE etcd_server_version gauge\netcd_server_version{{server_version=\"{VERSION}\"}} 1"
    );
    handled(metrics, &mut out);
    out
}

fn handled(metrics: &Metrics, out: &mut String) {
    let methods = metrics.methods.lock().unwrap_or_else(PoisonError::into_inner);
    let split = |path: &'static str| path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let _ = writeln!(out, "# TYPE grpc_server_started_total counter");
    for (path, method) in methods.iter() {
        let (service, name) = split(path);
        let _ = writeln!(
            out,
            "grpc_server_started_total{{grpc_method=\"{name}\",grpc_service=\"{service}\"}} {}",
            method.started
        );
    }
    let _ = writeln!(out, "# TYPE grpc_server_handled_total counter");
    for (path, method) in methods.iter() {
        let (service, name) = split(path);
        for (code, count) in &method.by_code {
            let code = CODES.get(usize::from(*code)).unwrap_or(&"Unknown");
            let _ = writeln!(
                out,
                "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{name}\",grpc_service=\"{service}\"}} {count}"
            );
        }
    }
    let _ = writeln!(out, "# TYPE grpc_server_handling_seconds summary");
    for (path, method) in methods.iter() {
        let (service, name) = split(path);
        let labels = format!("grpc_method=\"{name}\",grpc_service=\"{service}\"");
        let count: u64 = method.by_code.values().sum();
        let seconds = method.nanoseconds as f64 / 1e9;
        let _ = writeln!(out, "grpc_server_handling_seconds_sum{{{labels}}} {seconds}");
        let _ = writeln!(out, "grpc_server_handling_seconds_count{{{labels}}} {count}");
    }
}

/// What Linux says of this process.
#[derive(Default)]
struct Process {
    resident_bytes: u64,
    virtual_bytes: u64,
    cpu_seconds: f64,
    open_files: usize,
}

impl Process {
    fn read() -> Process {
        /// `getconf CLK_TCK` is 100 on every Linux that there is a Rust for.
        const TICKS_A_SECOND: f64 = 100.0;
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let status = read("status");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                << 10
        };
        let stat = read("stat");
        // The program's name may have spaces; it ends at the last bracket.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|ticks| ticks.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        Process {
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS_A_SECOND,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        }
    }
}
