//! The loop of one Pod: observe, plan, act, report, wait. Everything that happens to the Pod happens here, one thing
//! after the other. It ends when nothing of the Pod is left, here and in the plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, watch};

use super::context::Context;
use super::events::EventType;
use super::prober::{Probers, Report};
use super::tokens::PodTokens;
use crate::container::field::NodeFacts;
use crate::cri::CriError;
use crate::pod::health::{Health, ProbeKind};
use crate::pod::observed::{Nanos, Observed, SECOND, State};
use crate::pod::plan::{self, Failure, Step, Waiting};
use crate::pod::references::{Reference, Snapshot, containers};
use crate::volume::directory::PodDirectory;
use crate::volume::payload::TokenRequest;

/// What the rest of the agent sees of a Pod.
#[derive(Clone, Debug)]
pub struct View {
    pub pod: Arc<Pod>,
    pub observed: Arc<Observed>,
}

/// How the agent drives a worker.
#[derive(Clone)]
pub struct Signals {
    /// The Pod as the plane has it.
    pub pod: watch::Receiver<Arc<Pod>>,
    /// The plane has it no more.
    pub gone: watch::Receiver<bool>,
    /// The machine wants it ended.
    pub evicted: watch::Receiver<Option<Failure>>,
    /// Something has happened to it here.
    pub wake: Arc<Notify>,
}

/// Waited after the runtime or the plane has failed, doubling from the first to the second.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// How long a failed start is not tried again, as for crashed containers.
const START_RETRY_FIRST: u64 = 10;
const START_RETRY_LONGEST: u64 = 300;

/// Without any event the runtime is looked at this often, lest a lost one leaves a dead container unseen for ever.
const LOOK_ANYWAY: Duration = Duration::from_secs(300);

pub struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) uid: String,
    pub(super) directory: PodDirectory,
    pub(super) signals: Signals,
    pub(super) view: watch::Sender<View>,
    /// The newest Pod that is known, from the watch or from an answer to a patch.
    pub(super) pod: Arc<Pod>,
    pub(super) health: Health,
    pub(super) condemned: BTreeSet<String>,
    pub(super) failure: Option<Failure>,
    /// Starts that failed, by container name.
    pub(super) failed_starts: BTreeMap<String, FailedStart>,
    pub(super) probers: Probers,
    reports: mpsc::Receiver<Report>,
    pub(super) tokens: PodTokens,
    /// The kernel is being told of the Pod's address; no container starts before.
    pub(super) admission: Option<tokio::task::JoinHandle<Result<(), network::Error>>>,
    pub(super) started_at: Nanos,
    /// Dead containers whose restart is being put off, by id: each was told of once.
    put_off: BTreeSet<String>,
    /// Last words of dead containers, by id.
    pub(super) messages: BTreeMap<String, String>,
    pub(super) volumes: Option<Volumes>,
    /// PersistentVolumes that the Pod's claims named last.
    pub(super) behind_claims: BTreeSet<Reference>,
    pub(super) complaint: Option<(String, Nanos)>,
    /// When to try again to write a status that the plane did not take.
    pub(super) report_at: Option<Nanos>,
    retry: Duration,
}

/// A container that could not be started, and when it is tried again.
#[derive(Clone, Debug)]
pub(super) struct FailedStart {
    /// In another one it is tried at once.
    sandbox_id: String,
    pub waiting: Waiting,
    pub retry_at: Nanos,
    pub delay_seconds: u64,
}

/// Volumes as last set up, and from what.
pub(super) struct Volumes {
    pub places: BTreeMap<String, PathBuf>,
    pub references: Snapshot,
    pub tokens: BTreeMap<TokenRequest, Result<String, String>>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What a start needs besides the Pod.
pub(super) struct Materials {
    pub references: Snapshot,
    pub places: BTreeMap<String, PathBuf>,
    pub facts: NodeFacts,
    pub services: BTreeMap<String, String>,
}

impl Worker {
    pub fn new(context: Arc<Context>, pod: Arc<Pod>, signals: Signals, view: watch::Sender<View>) -> Worker {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (probers, reports) = Probers::new(context.runtime.clone());
        let status = pod.status.as_ref();
        let started_at = status
            .and_then(|status| status.start_time.as_ref())
            .map_or_else(|| context.now(), |time| time.0.as_second().saturating_mul(SECOND));
        Worker {
            directory: PodDirectory::new(&context.root, &uid),
            tokens: PodTokens::new(Arc::clone(&context.tokens)),
            health: remembered_health(&pod),
            context,
            uid,
            signals,
            view,
            pod,
            condemned: BTreeSet::new(),
            failure: None,
            failed_starts: BTreeMap::new(),
            probers,
            reports,
            admission: None,
            started_at,
            put_off: BTreeSet::new(),
            messages: BTreeMap::new(),
            volumes: None,
            behind_claims: BTreeSet::new(),
            complaint: None,
            report_at: None,
            retry: RETRY_FIRST,
        }
    }

    pub async fn run(mut self) {
        loop {
            self.take_newest();
            if self.is_ending() {
                self.end().await;
                return;
            }
            match self.turn().await {
                Ok(Next::Again) => self.retry = RETRY_FIRST,
                Ok(Next::WaitUntil(at)) => {
                    self.retry = RETRY_FIRST;
                    self.wait(at).await;
                }
                Err(error) => {
                    let metadata = &self.pod.metadata;
                    tracing::warn!(pod = ?metadata.name, namespace = ?metadata.namespace, %error, "a Pod's turn failed");
                    let at = self.context.now() + self.back_off();
                    self.wait(Some(at)).await;
                }
            }
        }
    }

    pub(super) fn back_off(&mut self) -> Nanos {
        let delay = self.retry;
        self.retry = (self.retry * 2).min(RETRY_LONGEST);
        Nanos::try_from(delay.as_nanos()).unwrap_or(SECOND)
    }

    pub(super) fn take_newest(&mut self) {
        let watched = self.signals.pod.borrow_and_update().clone();
        if revision(&watched) >= revision(&self.pod) {
            self.pod = watched;
        }
    }

    fn is_ending(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some() || *self.signals.gone.borrow()
    }

    /// One round. What cannot go on for now is in the status; an error is the runtime's or the disk's.
    async fn turn(&mut self) -> Result<Next, CriError> {
        let observed = self.observe().await?;
        let now = self.context.now();
        let pod = Arc::clone(&self.pod);
        let evicted = self.signals.evicted.borrow().clone();
        let plan = plan::plan(&plan::Inputs {
            pod: &pod,
            evicted: evicted.as_ref(),
            observed: &observed,
            health: &self.health,
            condemned: &self.condemned,
            started_at: self.started_at,
            agent_began: self.context.began,
            now,
        });
        if plan.failure.is_some() {
            self.failure = plan.failure.clone();
        }
        self.tell_of_back_off(&observed, &plan.waiting);
        let ip = self.ips(&observed).first().copied();
        self.admit(ip);
        self.probers.reconcile(&pod, &observed, &self.health, ip, now);
        let mut wake_at = plan.wake_at;
        let mut wake = |at: Nanos| wake_at = Some(wake_at.map_or(at, |earlier: Nanos| earlier.min(at)));

        let over = plan.steps.contains(&Step::Finish) || is_over(&pod);
        let materials = if over {
            None
        } else {
            let tokens = tokio::select! {
                tokens = self.tokens.current(&pod, now) => tokens,
                () = Worker::interrupted(&self.signals) => return Ok(Next::Again),
            };
            tokens.renew_at.into_iter().for_each(&mut wake);
            self.materials(&observed, tokens.tokens).await
        };

        let mut waiting = plan.waiting.clone();
        let mut acted = false;
        let steps: Vec<&Step> = plan
            .steps
            .iter()
            .filter(|step| match step {
                Step::CreateSandbox { .. } => materials.is_some(),
                Step::Start { name, .. } => {
                    let held_back = self.failed_starts.get(name).filter(|failed| {
                        now < failed.retry_at
                            && observed
                                .sandbox()
                                .is_some_and(|sandbox| sandbox.id == failed.sandbox_id)
                    });
                    if let Some(failed) = held_back {
                        waiting.insert(name.clone(), failed.waiting.clone());
                        wake(failed.retry_at);
                    }
                    held_back.is_none() && materials.is_some()
                }
                _ => true,
            })
            .collect();
        self.report(&observed, &waiting, false).await;
        self.report_at.take().into_iter().for_each(&mut wake);
        for step in steps {
            if self.is_interrupted() {
                return Ok(Next::Again);
            }
            acted = true;
            self.step(step, &observed, materials.as_ref()).await?;
        }
        if acted {
            Ok(Next::Again)
        } else {
            Ok(Next::WaitUntil(wake_at))
        }
    }

    /// Says to the kernel whom the Pod may reach, if that is news.
    pub(super) fn admit(&mut self, address: Option<IpAddr>) {
        let walls = &self.context.walls;
        if !walls.knows(&self.pod, address) {
            let (walls, pod) = (walls.clone(), Arc::clone(&self.pod));
            let saying = async move { walls.set(&pod, address).await };
            self.admission = Some(tokio::spawn(saying));
        }
    }

    /// The plane wants the Pod ended: nothing more is begun.
    fn is_interrupted(&self) -> bool {
        self.signals.pod.borrow().metadata.deletion_timestamp.is_some() || *self.signals.gone.borrow()
    }

    /// Completes when `is_interrupted` becomes true.
    pub(super) async fn interrupted(signals: &Signals) {
        let (mut pod, mut gone) = (signals.pod.clone(), signals.gone.clone());
        tokio::select! {
            _ = pod.wait_for(|pod| pod.metadata.deletion_timestamp.is_some()) => {}
            _ = gone.wait_for(|gone| *gone) => {}
        }
    }

    pub(super) async fn observe(&mut self) -> Result<Arc<Observed>, CriError> {
        let observed = Arc::new(self.context.runtime.observe(&self.uid).await?);
        self.read_last_words(&observed);
        let alive = |id: &str| observed.containers.iter().any(|container| container.id == id);
        self.health.retain(alive);
        self.condemned.retain(|id| alive(id));
        self.messages.retain(|id, _| alive(id));
        self.put_off.retain(|id| alive(id));
        for container in observed.running() {
            self.failed_starts.remove(&container.name);
        }
        self.view.send_replace(View {
            pod: Arc::clone(&self.pod),
            observed: Arc::clone(&observed),
        });
        Ok(observed)
    }

    pub(super) fn ips(&self, observed: &Observed) -> Vec<IpAddr> {
        let on_host = self
            .pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        match observed.sandbox() {
            Some(_) if on_host => vec![self.context.host_ip],
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        }
    }

    /// Until something happens, or `at`.
    async fn wait(&mut self, at: Option<Nanos>) {
        let timer = async {
            let left = at.map_or(LOOK_ANYWAY, |at| {
                let left = at.saturating_sub(self.context.now()).max(0);
                Duration::from_nanos(left.unsigned_abs()).min(LOOK_ANYWAY)
            });
            self.context.world.clock.sleep(left).await;
        };
        tokio::select! {
            () = timer => {}
            () = self.signals.wake.notified() => {}
            result = self.signals.pod.changed() => {
                if result.is_err() {
                    // The agent is going away and drops its workers; containers stay as they are.
                    std::future::pending::<()>().await;
                }
            }
            _ = self.signals.gone.changed() => {}
            Some(report) = self.reports.recv() => self.take(report),
        }
        while let Ok(report) = self.reports.try_recv() {
            self.take(report);
        }
    }

    fn take(&mut self, report: Report) {
        if let Some(verdict) = report.verdict {
            self.health.record(&report.container_id, report.kind, verdict);
        }
        if let Some(problem) = report.problem {
            self.context.events.pod(
                &self.pod,
                Some(&report.container),
                EventType::Warning,
                "Unhealthy",
                problem,
            );
        }
    }

    /// What the status says for the moment an Event says for later.
    fn tell_of_back_off(&mut self, observed: &Observed, waiting: &BTreeMap<String, Waiting>) {
        for name in waiting.keys() {
            let Some(dead) = observed.latest(name) else { continue };
            if !self.put_off.insert(dead.id.clone()) {
                continue;
            }
            let metadata = &self.pod.metadata;
            let message = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                metadata.name.as_deref().unwrap_or_default(),
                metadata.namespace.as_deref().unwrap_or_default(),
                self.uid,
            );
            let events = &self.context.events;
            events.pod(&self.pod, Some(name), EventType::Warning, "BackOff", message);
        }
    }

    /// A start that failed is not tried again at once.
    pub(super) fn hold_back(&mut self, name: &str, observed: &Observed, waiting: Waiting) {
        let delay_seconds = self.failed_starts.get(name).map_or(START_RETRY_FIRST, |failed| {
            (failed.delay_seconds * 2).min(START_RETRY_LONGEST)
        });
        let retry_at = self.context.now() + Nanos::try_from(delay_seconds).unwrap_or(0) * SECOND;
        self.failed_starts.insert(
            name.to_owned(),
            FailedStart {
                sandbox_id: observed.sandbox().map(|sandbox| sandbox.id.clone()).unwrap_or_default(),
                waiting,
                retry_at,
                delay_seconds,
            },
        );
    }

    /// Dead containers may have left a message in their file.
    fn read_last_words(&mut self, observed: &Observed) {
        for container in observed
            .containers
            .iter()
            .filter(|container| container.state == State::Exited)
        {
            if self.messages.contains_key(&container.id) {
                continue;
            }
            let message = super::last_words::read(container);
            self.messages.insert(container.id.clone(), message);
        }
    }
}

enum Next {
    Again,
    WaitUntil(Option<Nanos>),
}

fn is_over(pod: &Pod) -> bool {
    matches!(
        pod.status.as_ref().and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    )
}

pub(super) fn revision(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// After a restart of the agent, containers that still run are as healthy as the plane knows them, until a probe says
/// otherwise: a restart of ours must not take them out of their Services.
fn remembered_health(pod: &Pod) -> Health {
    let mut health = Health::default();
    let statuses = pod.status.iter().flat_map(|status| {
        status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten())
    });
    for status in statuses {
        let Some(id) = status
            .container_id
            .as_deref()
            .and_then(|id| id.split_once("://"))
            .map(|(_, id)| id)
        else {
            continue;
        };
        let Some(spec) = containers(pod).find(|spec| spec.name == status.name) else {
            continue;
        };
        if spec.startup_probe.is_some() && status.started == Some(true) {
            health.record(id, ProbeKind::Startup, true);
        }
        if spec.readiness_probe.is_some() && status.ready {
            health.record(id, ProbeKind::Readiness, true);
        }
    }
    health
}
