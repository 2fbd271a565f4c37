//! Probes of one Pod's running containers: a task each, owned here, that reports verdicts when they change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, Pod, Probe};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::handler::{self, Outcome, Target};
use crate::cri::Runtime;
use crate::pod::health::{Counter, Health, ProbeKind};
use crate::pod::observed::{Container, Nanos, Observed, State};
use crate::pod::references::containers;

/// A probe has come to a verdict, or failed once on the way to one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub container_id: String,
    pub container: String,
    pub kind: ProbeKind,
    /// Absent while the thresholds are not reached.
    pub verdict: Option<bool>,
    /// What was wrong, if anything was.
    pub problem: Option<String>,
}

/// Reports that may wait for the Pod's worker, which takes them between its steps. Probers wait, nothing is lost.
pub const REPORTS: usize = 32;

pub struct Probers {
    runtime: Runtime,
    sender: mpsc::Sender<Report>,
    tasks: HashMap<(String, ProbeKind), AbortOnDropHandle<()>>,
}

impl Probers {
    pub fn new(runtime: Runtime) -> (Probers, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(REPORTS);
        let probers = Probers {
            runtime,
            sender,
            tasks: HashMap::new(),
        };
        (probers, receiver)
    }

    /// Starts what should probe now and ends what should not.
    pub fn reconcile(&mut self, pod: &Arc<Pod>, observed: &Observed, health: &Health, ip: Option<IpAddr>, now: Nanos) {
        let mut wanted: Vec<(String, ProbeKind, &Container, &Spec, &Probe)> = Vec::new();
        for spec in containers(pod) {
            let Some(container) = observed
                .latest(&spec.name)
                .filter(|latest| latest.state == State::Running)
            else {
                continue;
            };
            for kind in ProbeKind::ALL {
                let Some(probe) = kind.of(spec) else { continue };
                let due = match kind {
                    ProbeKind::Startup => health.verdict(&container.id, kind).is_none(),
                    // Once condemned, a container is asked no more.
                    ProbeKind::Liveness => health.is_started(spec, container) && health.failed(container).is_none(),
                    ProbeKind::Readiness => health.is_started(spec, container),
                };
                if due {
                    wanted.push((container.id.clone(), kind, container, spec, probe));
                }
            }
        }
        self.tasks
            .retain(|(id, kind), _| wanted.iter().any(|(wanted, also, ..)| wanted == id && also == kind));
        for (id, kind, container, spec, probe) in wanted {
            let key = (id, kind);
            if self.tasks.contains_key(&key) {
                continue;
            }
            let delay_seconds = u64::from(probe.initial_delay_seconds.unwrap_or(0).max(0).unsigned_abs());
            let running = Duration::from_nanos(now.saturating_sub(container.started_at).max(0).unsigned_abs());
            let task = run(Prober {
                runtime: self.runtime.clone(),
                sender: self.sender.clone(),
                container_id: key.0.clone(),
                spec: spec.clone(),
                probe: probe.clone(),
                kind,
                ip,
                first_in: Duration::from_secs(delay_seconds).saturating_sub(running),
            });
            self.tasks.insert(key, AbortOnDropHandle::new(tokio::spawn(task)));
        }
    }

    /// The Pod is ending: nothing of it is judged any more.
    pub fn stop(&mut self) {
        self.tasks.clear();
    }
}

struct Prober {
    runtime: Runtime,
    sender: mpsc::Sender<Report>,
    container_id: String,
    spec: Spec,
    probe: Probe,
    kind: ProbeKind,
    ip: Option<IpAddr>,
    first_in: Duration,
}

async fn run(prober: Prober) {
    let seconds = |value: Option<i32>, default: u32| {
        let value = value.map_or(default, |value| value.max(1).unsigned_abs());
        Duration::from_secs(u64::from(value))
    };
    let period = seconds(prober.probe.period_seconds, 10);
    let timeout = seconds(prober.probe.timeout_seconds, 1);
    let mut counter = Counter::new(&prober.probe);
    let mut known = None;
    tokio::time::sleep(prober.first_in).await;
    // Counted from each start, so that a slow answer does not stretch the period.
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let target = Target {
            container_id: &prober.container_id,
            container: &prober.spec,
            ip: prober.ip,
        };
        let outcome = if let Some(action) = &prober.probe.exec {
            handler::exec(&prober.runtime, target, action, timeout).await
        } else if let Some(action) = &prober.probe.http_get {
            handler::http_get(target, action, timeout).await
        } else if let Some(action) = &prober.probe.tcp_socket {
            handler::tcp(target, action, timeout).await
        } else if let Some(action) = &prober.probe.grpc {
            handler::grpc(target, action, timeout).await
        } else {
            Outcome::Broken("missing probe handler".to_owned())
        };
        let (passed, problem) = match outcome {
            Outcome::Passed => (true, None),
            Outcome::Failed(problem) => (false, Some(format!("{} probe failed: {problem}", prober.kind.title()))),
            Outcome::Broken(problem) => (false, Some(format!("{} probe errored: {problem}", prober.kind.title()))),
        };
        let verdict = counter.record(passed).filter(|verdict| known != Some(*verdict));
        if verdict.is_some() {
            known = verdict;
        }
        if verdict.is_none() && problem.is_none() {
            continue;
        }
        let report = Report {
            container_id: prober.container_id.clone(),
            container: prober.spec.name.clone(),
            kind: prober.kind,
            verdict,
            problem,
        };
        if prober.sender.send(report).await.is_err() {
            return;
        }
        match (prober.kind, verdict) {
            // Startup is asked until it is answered; a condemned container is asked no more.
            (ProbeKind::Startup, Some(_)) | (ProbeKind::Liveness, Some(false)) => return,
            _ => {}
        }
    }
}
