//! `mangrove bench store`: the same load on two servers of the etcd v3 API in turn, ours and another.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use etcd::load::{self, Case, Measured, Workload};
use serde_json::json;
use world::World;

use super::report::Report;
use crate::cli::Output;

#[derive(Args, Clone)]
pub struct Options {
    /// The server that is measured, http://HOST:PORT
    #[arg(long, value_name = "URL")]
    endpoints: String,
    /// Another one, measured in turn
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    seconds: u64,
    /// Only these workloads: put, get, range, txn, kubernetes, watch, lease
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Clients at once
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [1, 64, 256])]
    clients: Vec<usize>,
    /// Sizes of values
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [256, 4096])]
    values: Vec<usize>,
    /// Watchers of one key
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    watchers: usize,
    /// A folder on the servers' disk, to say how often it can sync
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    disk: PathBuf,
    #[arg(short, long)]
    pub output: Option<Output>,
}

fn cases(options: &Options) -> Vec<Case> {
    let lasts = Duration::from_secs(options.seconds.max(1));
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut cases = Vec::new();
    let each = [
        ("put", Workload::Put),
        ("get", Workload::Get),
        ("range", Workload::Range),
        ("txn", Workload::TxnPut),
        ("kubernetes", Workload::Kubernetes),
    ];
    for (_, workload) in each.into_iter().filter(|(name, _)| wanted(name)) {
        for value_bytes in options.values.iter().copied() {
            for clients in options.clients.iter().copied() {
                cases.push(Case {
                    workload,
                    clients,
                    value_bytes,
                    lasts,
                });
            }
        }
    }
    let first_value = options.values.first().copied().unwrap_or(256);
    if wanted("watch") {
        cases.push(Case {
            workload: Workload::WatchFanOut {
                watchers: options.watchers,
            },
            clients: 1,
            value_bytes: first_value,
            lasts,
        });
    }
    if wanted("lease") {
        for clients in options.clients.iter().copied() {
            cases.push(Case {
                workload: Workload::KeepAlive,
                clients,
                value_bytes: 0,
                lasts,
            });
        }
    }
    cases
}

/// How often a second the disk makes something last.
fn syncs_a_second(dir: &Path) -> anyhow::Result<f64> {
    const SYNCS: u32 = 500;
    const BYTES: usize = 512;
    let path = dir.join(format!("mangrove-bench-sync-{}", std::process::id()));
    let mut file = File::create_new(&path).with_context(|| format!("can't write in {}", dir.display()))?;
    let measured = (|| {
        file.write_all(&vec![0; BYTES * SYNCS as usize])?;
        file.sync_all()?;
        let clock = World::real().clock;
        let begun = clock.monotonic();
        for at in 0..u64::from(SYNCS) {
            file.write_all_at(&[1; BYTES], at * BYTES as u64)?;
            file.sync_data()?;
        }
        Ok::<_, std::io::Error>(f64::from(SYNCS) / (clock.monotonic() - begun).as_secs_f64())
    })();
    std::fs::remove_file(&path)?;
    Ok(measured?)
}

pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let world = World::real();
    let syncs = syncs_a_second(&options.disk)?;
    let method = format!(
        "{} s each, in turn; {} syncs {syncs:.0} times a second (512 bytes), so that N clients put at most N times as often; \
         ratios are ours to the other's, by answers a second, p99 and processor time an answer",
        options.seconds,
        options.disk.display()
    );
    let mut report = Report::new(method, &COLUMNS);
    report.figure("syncs_per_second", syncs);
    let mut figures = Vec::new();
    for case in cases(options) {
        let mut both = Vec::new();
        for endpoint in std::iter::once(&options.endpoints).chain(&options.against) {
            let measured = load::run(endpoint, case, &world).await;
            both.push(measured.with_context(|| format!("{} at {endpoint}", case.workload.name()))?);
        }
        let compared = both.get(1).map(|other| Ratios::of(&both[0], other));
        for (at, (endpoint, measured)) in std::iter::once(&options.endpoints)
            .chain(&options.against)
            .zip(&both)
            .enumerate()
        {
            let ratios = compared.filter(|_| at == 0);
            report.row(row(case, endpoint, measured, ratios));
            figures.push(figure(case, endpoint, measured, ratios, syncs));
        }
    }
    report.figure("measured", figures);
    Ok(report)
}

const COLUMNS: [&str; 13] = [
    "workload",
    "clients",
    "bytes",
    "server",
    "per second",
    "p50 ms",
    "p99 ms",
    "cpu us each",
    "rss MiB",
    "failed",
    "per second",
    "p99",
    "cpu",
];

/// Of one server to the other.
#[derive(Clone, Copy)]
struct Ratios {
    per_second: f64,
    p99: f64,
    cpu: f64,
}

impl Ratios {
    fn of(ours: &Measured, other: &Measured) -> Ratios {
        let ratio = |one: f64, other: f64| one / other.max(1e-9);
        Ratios {
            per_second: ratio(ours.per_second(), other.per_second()),
            p99: ratio(ours.p99.as_secs_f64(), other.p99.as_secs_f64()),
            cpu: ratio(cpu_us(ours), cpu_us(other)),
        }
    }
}

/// Processor time of the server, an answer.
fn cpu_us(measured: &Measured) -> f64 {
    measured.cpu_seconds * 1e6 / (measured.done as f64).max(1.0)
}

fn row(case: Case, endpoint: &str, measured: &Measured, ratios: Option<Ratios>) -> Vec<String> {
    let ms = |duration: Duration| format!("{:.2}", duration.as_secs_f64() * 1e3);
    let times = |of: fn(Ratios) -> f64| ratios.map_or(String::new(), |ratios| format!("{:.2}x", of(ratios)));
    vec![
        case.workload.name().to_owned(),
        case.clients.to_string(),
        case.value_bytes.to_string(),
        endpoint.trim_start_matches("http://").to_owned(),
        format!("{:.0}", measured.per_second()),
        ms(measured.p50),
        ms(measured.p99),
        format!("{:.2}", cpu_us(measured)),
        format!("{:.0}", measured.resident_bytes as f64 / f64::from(1 << 20)),
        measured.failed.to_string(),
        times(|ratios| ratios.per_second),
        times(|ratios| ratios.p99),
        times(|ratios| ratios.cpu),
    ]
}

fn figure(case: Case, endpoint: &str, measured: &Measured, ratios: Option<Ratios>, syncs: f64) -> serde_json::Value {
    let writes = matches!(case.workload, Workload::Put | Workload::TxnPut);
    json!({
        "workload": case.workload.name(),
        "clients": case.clients,
        "value_bytes": case.value_bytes,
        "endpoint": endpoint,
        "per_second": measured.per_second(),
        "per_second_at_most": writes.then_some(syncs * case.clients as f64),
        "p50_ms": measured.p50.as_secs_f64() * 1e3,
        "p99_ms": measured.p99.as_secs_f64() * 1e3,
        "cpu_seconds": measured.cpu_seconds,
        "cpu_us_each": cpu_us(measured),
        "done": measured.done,
        "failed": measured.failed,
        "resident_bytes": measured.resident_bytes,
        "ratios": ratios.map(|ratios| json!({
            "per_second": ratios.per_second,
            "p99": ratios.p99,
            "cpu": ratios.cpu,
        })),
    })
}
