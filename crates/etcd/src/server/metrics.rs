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

/// Answers of one method by gRPC code, and how long they took.
#[derive(Default)]
struct Method {
    by_code: BTreeMap<u16, u64>,
    nanoseconds: u64,
}

#[derive(Default)]
pub struct Metrics {
    pub watchers: Gauge,
    pub watch_streams: Gauge,
    pub events: Gauge,
    pub keep_alives: Gauge,
    pub received_bytes: AtomicU64,
    pub sent_bytes: AtomicU64,
    methods: Mutex<BTreeMap<&'static str, Method>>,
}

impl Metrics {
    /// `method` is of the fixed list of methods; its code is 0 for good.
    pub fn handled(&self, method: &'static str, code: u16, took: Duration) {
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        let method = methods.entry(method).or_default();
        *method.by_code.entry(code).or_default() += 1;
        method.nanoseconds += took.as_nanos() as u64;
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
    one("counter", "etcd_debugging_mvcc_events_total", &metrics.events.get());
    one(
        "counter",
        "etcd_debugging_lease_renewed_total",
        &metrics.keep_alives.get(),
    );
    let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    one(
        "counter",
        "etcd_network_client_grpc_received_bytes_total",
        &bytes(&metrics.received_bytes),
    );
    one(
        "counter",
        "etcd_network_client_grpc_sent_bytes_total",
        &bytes(&metrics.sent_bytes),
    );
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
    let _ = writeln!(out, "# TYPE grpc_server_handled_total counter");
    let split = |path: &'static str| path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
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
