//! Many tenants: how fast planes are made, and what each costs while it is left alone.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Common,
    link::{Events, Link},
    load::{Until, closed_loop},
    platform::{Platform, virtual_cluster, virtual_clusters},
    report::{Report, short},
    trust::Trust,
    usage::{disk_bytes, own_cpu},
};
use crate::control::ControlConnection;

#[derive(Args, Clone)]
pub struct Options {
    /// How many tenants are made
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    planes: u64,
    /// How many are being made at a time
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1000))]
    at_once: u64,
    #[command(flatten)]
    pub common: Common,
}

/// One in so many is asked again in the end.
const SAMPLE: u64 = 100;

/// Whatever loops still do after the last plane was made is waited for, at most so long.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// Less than this of a core is calm.
const CALM: f64 = 0.02;

/// Kinds by which a tenant would show up in the super plane.
const SUPER_KINDS: [&str; 7] = [
    "namespaces",
    "configmaps",
    "secrets",
    "serviceaccounts",
    "services",
    "endpoints",
    "pods",
];

pub async fn run(options: &Options, platform: &Platform) -> anyhow::Result<Report> {
    let administrator = platform.administrator()?;
    let super_plane = Link::open(&administrator).await?;
    let lanes = usize::try_from(options.at_once)?;
    let mut control = Vec::new();
    for _ in 0..lanes {
        control.push(tokio::sync::Mutex::new(platform.control().connect().await?));
    }
    let makers = Arc::new(Makers {
        running: Running::follow(&super_plane).await?,
        super_plane: super_plane.clone(),
        control,
        trust: Trust::new(&administrator.authority_pem)?,
    });
    // The first brings in code and connections that all share.
    makers.make(0, "warm").await?;
    calm(platform).await?;
    let objects_before = super_objects(&super_plane).await?;
    let before = platform.usage()?;
    let disk_before = disk_bytes(platform.data_dir());

    let work = {
        let makers = makers.clone();
        move |lane, number| {
            let makers = makers.clone();
            async move { makers.make(lane, &name(number)).await }
        }
    };
    let load_before = own_cpu()?;
    let made = closed_loop(lanes, Until::Count(options.planes), work).await?;
    let load = own_cpu()?.saturating_sub(load_before);
    let busy = platform.usage()?;
    let settled = calm(platform).await?;
    let after = platform.usage()?;
    let disk_after = disk_bytes(platform.data_dir());

    let mut again = Vec::new();
    for number in (0..options.planes).step_by(SAMPLE as usize) {
        again.push(makers.ask_again(&name(number)).await?);
    }
    let asked = again.len() as u64;
    let again = super::load::Figures::new(again.iter().sum(), again);
    let objects = super_objects(&super_plane).await? - objects_before;

    let resident = after.resident_bytes.saturating_sub(before.resident_bytes);
    let disk = disk_after.saturating_sub(disk_before);
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e3 / options.planes as f64;
    let (cpu_each, load_each) = (each(after.cpu - before.cpu), each(load));
    let method = format!(
        "{} tenants, {} at a time: VirtualCluster created over TLS, its kubeconfig taken, a TLS connection with its client \
         certificate, one ConfigMap written; then left alone.",
        options.planes, options.at_once
    );
    let mut report = Report::new(method, &["figure", "value"]);
    let bytes = |bytes: u64| format!("{} KiB", short(bytes as f64 / 1024.0));
    for (name, value) in [
        (
            "create to first answered request, p50",
            format!("{} ms", short(made.percentile(50.0))),
        ),
        (
            "create to first answered request, p99",
            format!("{} ms", short(made.percentile(99.0))),
        ),
        ("planes a second", short(made.per_second())),
        ("processor time a plane", format!("{} ms", short(cpu_each))),
        (
            "processor time a plane, of the load",
            format!("{} ms", short(load_each)),
        ),
        ("resident, all processes", bytes(after.resident_bytes)),
        ("resident before", bytes(before.resident_bytes)),
        ("resident while they were made", bytes(busy.resident_bytes)),
        ("resident a plane", bytes(resident / options.planes)),
        ("disk a plane", bytes(disk / options.planes)),
        ("calm after", format!("{} s", short(settled.as_secs_f64()))),
        ("asked again", format!("{asked}, all had what was written")),
        ("asked again, p99", format!("{} ms", short(again.percentile(99.0)))),
        ("their objects in the super plane", objects.to_string()),
    ] {
        report.row([name.to_owned(), value]);
    }
    report.figure("planes", options.planes);
    report.figure("at_once", options.at_once);
    report.figure("create_p50_ms", made.percentile(50.0));
    report.figure("create_p99_ms", made.percentile(99.0));
    report.figure("planes_per_second", made.per_second());
    report.figure("cpu_ms_per_plane", cpu_each);
    report.figure("load_cpu_ms_per_plane", load_each);
    report.figure("resident_bytes_before", before.resident_bytes);
    report.figure("resident_bytes", after.resident_bytes);
    report.figure("resident_bytes_per_plane", resident / options.planes);
    report.figure("disk_bytes_per_plane", disk / options.planes);
    report.figure("asked_again", asked);
    report.figure("asked_again_p99_ms", again.percentile(99.0));
    report.figure("super_plane_objects", objects);
    Ok(report)
}

fn name(number: u64) -> String {
    format!("t-{number}")
}

struct Makers {
    super_plane: Link,
    running: Running,
    /// One a lane, as one who makes tenants has it.
    control: Vec<tokio::sync::Mutex<ControlConnection>>,
    trust: Trust,
}

const WRITTEN: &str = "/api/v1/namespaces/default/configmaps";

impl Makers {
    async fn make(&self, lane: usize, name: &str) -> anyhow::Result<()> {
        let running = self.running.expect(name);
        self.super_plane
            .create(&virtual_clusters(), &virtual_cluster(name))
            .await?;
        running.await.context("the watch of tenants ended")?;
        let link = self.enter(lane, name).await?;
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "written"},
            "data": {"tenant": name}});
        link.create(WRITTEN, &body).await?;
        Ok(())
    }

    /// A connection of the tenant's administrator.
    async fn enter(&self, lane: usize, name: &str) -> anyhow::Result<Link> {
        let access = self.control[lane].lock().await.tenant_access(name).await?;
        Link::trusting(&self.trust, &access.into_entry()).await
    }

    /// As its user who comes back after a long time.
    async fn ask_again(&self, name: &str) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let link = self.enter(0, name).await?;
        let answer = link.get(&format!("{WRITTEN}/written")).await?;
        let took = begin.elapsed();
        let answer: Value = serde_json::from_slice(&answer).context("reading a ConfigMap")?;
        ensure!(
            answer["data"]["tenant"] == name,
            "tenant {name} found {} in the place of what it wrote",
            answer["data"]
        );
        Ok(took)
    }
}

/// Tenants that are waited for until they run.
struct Running(Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>);

impl Running {
    async fn follow(super_plane: &Link) -> anyhow::Result<Running> {
        let mut events = super_plane.watch(&format!("{}?watch=true", virtual_clusters())).await?;
        let waiting = Arc::new(Mutex::new(HashMap::new()));
        let running = Running(waiting.clone());
        tokio::spawn(async move {
            if let Err(error) = settle(&mut events, &waiting).await {
                tracing::error!(%error, "tenants can't be followed");
            }
            // Whoever still waits is told so.
            lock(&waiting).clear();
        });
        Ok(running)
    }

    fn expect(&self, name: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.0).insert(name.to_owned(), sender);
        receiver
    }
}

/// As much of a watch's event as is waited for.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    object: ToldOf<'a>,
}

#[derive(Deserialize)]
struct ToldOf<'a> {
    #[serde(borrow)]
    metadata: ToldMeta<'a>,
    #[serde(borrow, default)]
    status: ToldStatus<'a>,
}

#[derive(Deserialize)]
struct ToldMeta<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
struct ToldStatus<'a> {
    #[serde(borrow, default)]
    phase: Cow<'a, str>,
}

async fn settle(events: &mut Events, waiting: &Mutex<HashMap<String, oneshot::Sender<()>>>) -> anyhow::Result<()> {
    while let Some(line) = events.next_line().await? {
        let told: Told<'_> = serde_json::from_slice(&line).context("reading a watch's event")?;
        if told.object.status.phase == "Running"
            && let Some(waiter) = lock(waiting).remove(&*told.object.metadata.name)
        {
            // One that has given up needs no word.
            let _ = waiter.send(());
        }
    }
    bail!("the stream ended")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

/// Waits until the platform does nothing more; how long that took.
async fn calm(platform: &Platform) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let mut last = platform.usage()?;
    while begin.elapsed() < SETTLE_MAX {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = platform.usage()?;
        if (now.cpu - last.cpu).as_secs_f64() <= CALM {
            return Ok(begin.elapsed());
        }
        last = now;
    }
    bail!("the platform is still busy {} s later", SETTLE_MAX.as_secs())
}

async fn super_objects(super_plane: &Link) -> anyhow::Result<i64> {
    let mut count = 0;
    for kind in SUPER_KINDS {
        let list = super_plane.get(&format!("/api/v1/{kind}")).await?;
        let list: Value = serde_json::from_slice(&list).with_context(|| format!("reading {kind}"))?;
        count += list["items"].as_array().map_or(0, Vec::len) as i64;
    }
    Ok(count)
}
