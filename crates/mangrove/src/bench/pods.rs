//! From a Pod's creation in a tenant's plane to its running there, hop by hop.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Common, image,
    link::Link,
    load::Figures,
    platform::Platform,
    report::{Report, short},
};

#[derive(Args, Clone)]
pub struct Options {
    /// How many Pods are made one after the other
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many are made at once after that
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    at_once: u32,
    #[command(flatten)]
    pub common: Common,
}

const PODS: &str = "/api/v1/namespaces/default/pods";
/// A Pod that has not got on by then never will.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Where a Pod has got to, in the order of the way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Hop {
    Created,
    InSuper,
    Bound,
    RunningInSuper,
    Running,
}

const HOPS: [(&str, Hop, Hop); 5] = [
    ("syncer, down", Hop::Created, Hop::InSuper),
    ("scheduler", Hop::InSuper, Hop::Bound),
    ("node and runtime", Hop::Bound, Hop::RunningInSuper),
    ("syncer, up", Hop::RunningInSuper, Hop::Running),
    ("whole way", Hop::Created, Hop::Running),
];

pub async fn run(options: &Options, platform: &Platform) -> anyhow::Result<Report> {
    let archive = platform.data_dir().join("bench-image.tar");
    image::write(&archive)?;
    let imported = platform
        .control()
        .post("/control/images", &json!({"archive": archive}))
        .await;
    imported.context("importing the image")?;
    let tenant = Link::open(&platform.make_tenant("bench").await?).await?;
    let super_plane = Link::open(&platform.administrator()?).await?;
    let seen = Seen::follow(&tenant, &super_plane).await?;

    // The first Pod brings in what all share: the namespace, the tenant's root certificate.
    make(&tenant, &seen, "warm").await?;
    remove(&tenant, &seen, "warm").await?;
    let mut one = Vec::new();
    for round in 0..options.rounds {
        let name = format!("one-{round}");
        make(&tenant, &seen, &name).await?;
        remove(&tenant, &seen, &name).await?;
        one.push(name);
    }
    let many: Vec<String> = (0..options.at_once).map(|number| format!("many-{number}")).collect();
    let begin = Instant::now();
    futures::future::try_join_all(many.iter().map(|name| make(&tenant, &seen, name))).await?;
    let all_running = begin.elapsed();

    let method = format!(
        "A Pod of one busybox container in a tenant's plane, from its creation to phase Running in the tenant's plane: {} one \
         after the other, then {} at once; hops as watches of both planes show them.",
        options.rounds, options.at_once
    );
    let mut report = Report::new(
        method,
        &["hop", "one p50 ms", "one p99 ms", "at once p50 ms", "at once p99 ms"],
    );
    for (name, from, to) in HOPS {
        let figures = [&one, &many].map(|names| seen.between(names, from, to));
        let cells = figures
            .iter()
            .flat_map(|figures| [50.0, 99.0].map(|percent| figures.percentile(percent)));
        let cells: Vec<f64> = cells.collect();
        report.row(std::iter::once(name.to_owned()).chain(cells.iter().map(|&cell| short(cell))));
        report.figure(
            &name.replace(", ", "_").replace(' ', "_"),
            json!({"one_p50_ms": cells[0], "one_p99_ms": cells[1],
                "at_once_p50_ms": cells[2], "at_once_p99_ms": cells[3]}),
        );
    }
    report.row([
        "all at once are running".to_owned(),
        String::new(),
        String::new(),
        String::new(),
        short(all_running.as_secs_f64() * 1e3),
    ]);
    report.figure("rounds", options.rounds);
    report.figure("at_once", options.at_once);
    report.figure("all_at_once_running_ms", all_running.as_secs_f64() * 1e3);
    Ok(report)
}

async fn make(tenant: &Link, seen: &Seen, name: &str) -> anyhow::Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": image::REFERENCE, "imagePullPolicy": "Never"}],
    }});
    seen.note(name, Hop::Created);
    tenant.create(PODS, &body).await?;
    seen.wait(name, |pod| pod.hops.contains_key(&Hop::Running)).await
}

async fn remove(tenant: &Link, seen: &Seen, name: &str) -> anyhow::Result<()> {
    tenant.delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).await?;
    seen.wait(name, |pod| pod.is_gone_in == [true; 2]).await
}

#[derive(Default)]
struct Pod {
    hops: HashMap<Hop, Instant>,
    /// In the tenant's plane, in the super plane.
    is_gone_in: [bool; 2],
}

/// What the watches of both planes have shown.
struct Seen {
    pods: Mutex<HashMap<String, Pod>>,
    changed: watch::Sender<()>,
}

impl Seen {
    async fn follow(tenant: &Link, super_plane: &Link) -> anyhow::Result<Arc<Seen>> {
        let seen = Arc::new(Seen {
            pods: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        for (at, link, path) in [
            (0, tenant, format!("{PODS}?watch=true")),
            (1, super_plane, "/api/v1/pods?watch=true".to_owned()),
        ] {
            let mut events = link.watch(&path).await?;
            let seen = seen.clone();
            tokio::spawn(async move {
                while let Ok(Some(event)) = events.next().await {
                    seen.take(&event, at);
                }
            });
        }
        Ok(seen)
    }

    fn take(&self, event: &Value, plane: usize) {
        let object = &event["object"];
        let Some(name) = object["metadata"]["name"].as_str() else {
            return;
        };
        let is_running = object["status"]["phase"] == "Running";
        if plane == 0 {
            if is_running {
                self.note(name, Hop::Running);
            }
        } else {
            self.note(name, Hop::InSuper);
            if object["spec"]["nodeName"].is_string() {
                self.note(name, Hop::Bound);
            }
            if is_running {
                self.note(name, Hop::RunningInSuper);
            }
        }
        if event["type"] == "DELETED" {
            let mut pods = self.pods.lock().expect("no holder of this lock panics");
            pods.entry(name.to_owned()).or_default().is_gone_in[plane] = true;
            drop(pods);
            self.changed.send_replace(());
        }
    }

    /// The first time counts.
    fn note(&self, name: &str, hop: Hop) {
        let mut pods = self.pods.lock().expect("no holder of this lock panics");
        let pod = pods.entry(name.to_owned()).or_default();
        pod.hops.entry(hop).or_insert_with(Instant::now);
        drop(pods);
        self.changed.send_replace(());
    }

    async fn wait(&self, name: &str, done: impl Fn(&Pod) -> bool) -> anyhow::Result<()> {
        let mut changed = self.changed.subscribe();
        let is_done = || {
            let pods = self.pods.lock().expect("no holder of this lock panics");
            pods.get(name).is_some_and(&done)
        };
        let waiting = changed.wait_for(|()| is_done());
        match tokio::time::timeout(WAIT_MAX, waiting).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("Pod {name} did not get on within {} s", WAIT_MAX.as_secs()),
        }
    }

    fn between(&self, names: &[String], from: Hop, to: Hop) -> Figures {
        let pods = self.pods.lock().expect("no holder of this lock panics");
        let latencies = names.iter().filter_map(|name| {
            let hops = &pods.get(name)?.hops;
            Some(hops.get(&to)?.saturating_duration_since(*hops.get(&from)?))
        });
        let latencies: Vec<Duration> = latencies.collect();
        Figures::new(latencies.iter().sum(), latencies)
    }
}
