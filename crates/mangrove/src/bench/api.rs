//! An API server under load from the same machine. By `--kubeconfig` any Kubernetes is measured the same way.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use futures::future::try_join_all;
use identity::kubeconfig::Entry;
use serde_json::{Value, json};

use super::{
    Common,
    link::Link,
    load::{Figures, Until, closed_loop},
    platform::Platform,
    report::{Report, short},
    usage::Usage,
};

#[derive(Args, Clone)]
pub struct Options {
    /// Measure this cluster instead of a platform of its own
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A process of that cluster's server on this machine, so that its processor time and memory are told; may be given again
    #[arg(long, value_name = "PID", requires = "kubeconfig")]
    server_pid: Vec<u32>,
    /// Seconds for each of creates, gets and lists
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// TLS connections
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Requests under way at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    lanes: u16,
    /// Bytes of data in each ConfigMap
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    body_bytes: usize,
    /// Watches that each get every event
    #[arg(long, value_name = "N", default_value_t = 1000)]
    watchers: usize,
    /// Events that the watchers get
    #[arg(long, value_name = "N", default_value_t = 200)]
    events: usize,
    #[command(flatten)]
    pub common: Common,
}

const LIST: u64 = 500;
/// HTTP/2 servers commonly allow 100 to 250 streams a connection.
const WATCHES_A_CONNECTION: usize = 100;

/// What a server uses, where that can be known.
#[derive(Clone, Copy)]
struct Server<'a> {
    platform: Option<&'a Platform>,
    /// Of a foreign cluster.
    processes: &'a [u32],
}

impl Server<'_> {
    fn usage(&self) -> anyhow::Result<Option<Usage>> {
        if let Some(platform) = self.platform {
            return platform.usage().map(Some);
        }
        let mut sum = None;
        for pid in self.processes {
            let one = Usage::of_server(*pid)?;
            let all: &mut Usage = sum.get_or_insert_default();
            all.cpu += one.cpu;
            all.resident_bytes += one.resident_bytes;
        }
        Ok(sum)
    }
}

pub async fn run(options: &Options, access: Entry, platform: Option<&Platform>) -> anyhow::Result<Report> {
    let server = Server {
        platform,
        processes: &options.server_pid,
    };
    let links = connect(&access, usize::from(options.connections)).await?;
    let namespaces = ["creates", "lists", "events"].map(|name| format!("bench-{}-{name}", std::process::id()));
    for namespace in &namespaces {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        links[0].create("/api/v1/namespaces", &body).await?;
    }
    let [creates, lists, events] = &namespaces;
    let measured = measure(options, server, &access, &links, creates, lists, events).await;
    for namespace in &namespaces {
        links[0].delete(&format!("/api/v1/namespaces/{namespace}")).await?;
    }
    let Measured {
        created,
        got,
        listed,
        list_bytes,
        fanned,
    } = measured?;

    let method = format!(
        "One plane, load from the same machine: HTTP/2 over TLS, {} connections, {} requests at a time, JSON, not compressed; \
         ConfigMaps with {} bytes of data; lists of {LIST} ({} KiB).",
        options.connections,
        options.lanes,
        options.body_bytes,
        list_bytes / 1024
    );
    let mut report = Report::new(
        method,
        &["what", "a second", "p50 ms", "p99 ms", "count", "server µs each"],
    );
    for (name, (figures, cpu)) in [
        ("creates", &created),
        ("gets", &got),
        ("lists", &listed),
        ("watch events", &fanned),
    ] {
        let each = cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / figures.count as f64);
        let percentiles = [50.0, 99.0].map(|percent| figures.percentile(percent));
        report.row([
            name.to_owned(),
            short(figures.per_second()),
            short(percentiles[0]),
            short(percentiles[1]),
            figures.count.to_string(),
            each.map_or_else(|| "-".to_owned(), short),
        ]);
        report.figure(
            &name.replace(' ', "_"),
            json!({"per_second": figures.per_second(), "p50_ms": percentiles[0], "p99_ms": percentiles[1],
                "count": figures.count, "server_cpu_us_each": each}),
        );
    }
    report.figure("watchers", options.watchers);
    report.figure("body_bytes", options.body_bytes);
    report.figure("list_bytes", list_bytes);
    report.figure("connections", options.connections);
    report.figure("lanes", options.lanes);
    if let Some(usage) = server.usage()? {
        report.figure("server_resident_bytes", usage.resident_bytes);
    }
    Ok(report)
}

/// A load, and what it cost the server where that can be known.
type Costed = (Figures, Option<Duration>);

struct Measured {
    created: Costed,
    got: Costed,
    listed: Costed,
    list_bytes: usize,
    fanned: Costed,
}

async fn measure(
    options: &Options,
    server: Server<'_>,
    access: &Entry,
    links: &Arc<[Link]>,
    creates: &str,
    lists: &str,
    events: &str,
) -> anyhow::Result<Measured> {
    let lanes = usize::from(options.lanes);
    let time = Until::Time(Duration::from_secs(options.seconds));
    let data = "x".repeat(options.body_bytes);

    let created = costed(server, create(links, lanes, time, creates, &data)).await?;
    let got = {
        let (links, path, count) = (links.clone(), configmaps(creates), created.0.count);
        let load = closed_loop(lanes, time, move |lane, number| {
            let link = links[lane % links.len()].clone();
            let path = format!("{path}/c-{}", number % count);
            async move { link.get(&path).await.map(drop) }
        });
        costed(server, load).await?
    };
    create(links, lanes, Until::Count(LIST), lists, &data).await?;
    let whole = links[0].get(&configmaps(lists)).await?;
    let listed = {
        let (links, path, bytes) = (links.clone(), configmaps(lists), whole.len());
        let load = closed_loop(lanes, time, move |lane, _| {
            let link = links[lane % links.len()].clone();
            let path = path.clone();
            async move {
                let list = link.get(&path).await?;
                ensure!(
                    list.len() == bytes,
                    "a list of {} bytes where {bytes} are due",
                    list.len()
                );
                Ok(())
            }
        });
        costed(server, load).await?
    };
    Ok(Measured {
        created,
        got,
        listed,
        list_bytes: whole.len(),
        fanned: costed(server, fan_out(options, access, links, events, &data)).await?,
    })
}

/// Every watcher gets every event; a latency is from a write's answer (or, where the event was faster, its begin) to one watcher.
async fn fan_out(
    options: &Options,
    access: &Entry,
    links: &Arc<[Link]>,
    namespace: &str,
    data: &str,
) -> anyhow::Result<Figures> {
    let watching = connect(access, options.watchers.div_ceil(WATCHES_A_CONNECTION)).await?;
    let path = configmaps(namespace);
    let list: Value = serde_json::from_slice(&links[0].get(&path).await?).context("reading a list")?;
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .context("a list has no version")?;
    let path_of_watch = format!("{path}?watch=true&resourceVersion={revision}");
    let opened = (0..options.watchers).map(|number| {
        let link = watching[number / WATCHES_A_CONNECTION].clone();
        let path = path_of_watch.clone();
        async move { link.watch(&path).await }
    });
    let opened = try_join_all(opened).await?;
    let count = options.events;
    let watchers: Vec<_> = opened
        .into_iter()
        .map(|mut events| {
            tokio::spawn(async move {
                let mut arrivals = Vec::with_capacity(count);
                while arrivals.len() < count {
                    let line = events.next_line().await?.context("a watch ended early")?;
                    // Bookmarks are no events.
                    if line.starts_with(b"{\"type\":\"ADDED\"") {
                        arrivals.push((number_of(&line)?, Instant::now()));
                    }
                }
                anyhow::Ok(arrivals)
            })
        })
        .collect();
    let begin = Instant::now();
    let mut answered = Vec::with_capacity(count);
    for number in 0..count {
        links[0].create_bytes(&path, body(&format!("e-{number}"), data)).await?;
        answered.push(Instant::now());
    }
    let mut latencies = Vec::with_capacity(count * options.watchers);
    for watcher in watchers {
        for (number, arrived) in watcher.await?? {
            latencies.push(arrived.saturating_duration_since(answered[number]));
        }
    }
    Ok(Figures::new(begin.elapsed(), latencies))
}

/// Which event this is, by the number in its object's name.
fn number_of(line: &[u8]) -> anyhow::Result<usize> {
    const BEFORE: &[u8] = b"\"name\":\"e-";
    let at = line.windows(BEFORE.len()).position(|part| part == BEFORE);
    let digits = &line[at.context("an event without a name")? + BEFORE.len()..];
    let end = digits
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    Ok(std::str::from_utf8(&digits[..end])?.parse()?)
}

async fn create(
    links: &Arc<[Link]>,
    lanes: usize,
    until: Until,
    namespace: &str,
    data: &str,
) -> anyhow::Result<Figures> {
    let (links, path, data) = (links.clone(), configmaps(namespace), Arc::<str>::from(data));
    closed_loop(lanes, until, move |lane, number| {
        let link = links[lane % links.len()].clone();
        let path = path.clone();
        let body = body(&format!("c-{number}"), &data);
        async move { link.create_bytes(&path, body).await.map(drop) }
    })
    .await
}

fn body(name: &str, data: &str) -> Bytes {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"data": data}});
    body.to_string().into()
}

fn configmaps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

async fn connect(access: &Entry, count: usize) -> anyhow::Result<Arc<[Link]>> {
    let links = try_join_all((0..count).map(|_| Link::open(access))).await?;
    Ok(links.into())
}

async fn costed(server: Server<'_>, load: impl Future<Output = anyhow::Result<Figures>>) -> anyhow::Result<Costed> {
    let before = server.usage()?;
    let figures = load.await?;
    let after = server.usage()?;
    Ok((figures, after.zip(before).map(|(after, before)| after.cpu - before.cpu)))
}
