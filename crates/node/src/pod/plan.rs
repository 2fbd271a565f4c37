//! What to do next for one Pod, as a function of what it asks for and what the runtime has. No I/O, no clock.
//!
//! A plan holds only what can be done now. After its steps the Pod is observed and planned anew; what needs time to
//! pass is in `wake_at`. The rules are upstream's `computePodActions`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodSpec};

use super::backoff::{self, Restart};
use super::health::{Health, ProbeKind};
use super::observed::{Container, Nanos, Observed, SECOND, State};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Make a sandbox; `attempt` counts those before it.
    CreateSandbox {
        attempt: u32,
    },
    /// Stop all containers of a sandbox at once and then itself; it is of no more use.
    StopSandbox {
        id: String,
    },
    /// Pull the image if need be, create and start.
    Start {
        name: String,
        attempt: u32,
        backoff_seconds: u64,
    },
    /// Stop one running container, gracefully, because it is to be made anew.
    Kill {
        id: String,
        name: String,
        why: Why,
    },
    /// Forget a dead container and its log.
    RemoveContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// The Pod is over: end what still runs, and keep the dead for logs.
    Finish,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    Probe(ProbeKind),
    SpecChanged,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// Why a Pod as a whole has failed, when that is not for its containers to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// When to plan again if nothing happens.
    pub wake_at: Option<Nanos>,
    /// What containers wait for, by name.
    pub waiting: BTreeMap<String, Waiting>,
    pub failure: Option<Failure>,
}

impl Plan {
    fn wake(&mut self, at: Nanos) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub health: &'a Health,
    /// Containers (ids) that were stopped in order to be made anew, whatever code they exit with.
    pub condemned: &'a BTreeSet<String>,
    /// Why the machine wants the Pod ended, if it does.
    pub evicted: Option<&'a Failure>,
    /// When this agent, or the one before it, accepted the Pod.
    pub started_at: Nanos,
    /// When this agent began to look after the machine.
    pub agent_began: Nanos,
    pub now: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> RestartPolicy {
        match text {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    pub fn of(pod: &Pod) -> RestartPolicy {
        RestartPolicy::parse(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()))
    }

    /// A container's own policy goes before the Pod's.
    pub fn of_container(pod: &Pod, spec: &Spec) -> RestartPolicy {
        match spec.restart_policy.as_deref() {
            None | Some("") => RestartPolicy::of(pod),
            own => RestartPolicy::parse(own),
        }
    }
}

/// An init container that runs on beside the others.
pub fn is_sidecar(init: &Spec) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// What decides whether a running container is still the one that the Pod asks for.
pub fn hash(spec: &Spec) -> String {
    // FNV-1a, 64 bit, over what may change in a living Pod; kept in an annotation, so it must never change.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in spec
        .name
        .bytes()
        .chain([0])
        .chain(spec.image.iter().flat_map(|image| image.bytes()))
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:x}")
}

pub fn plan(inputs: &Inputs) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &inputs.pod.spec else {
        return plan;
    };

    let phase = inputs
        .pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        finish(inputs, &mut plan);
        return plan;
    }
    if let Some(failure) = inputs.evicted {
        plan.failure = Some(failure.clone());
        finish(inputs, &mut plan);
        return plan;
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        let deadline = inputs.started_at.saturating_add(seconds.saturating_mul(SECOND));
        if inputs.now >= deadline {
            plan.failure = Some(Failure {
                reason: "DeadlineExceeded",
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
            });
            finish(inputs, &mut plan);
            return plan;
        }
        plan.wake(deadline);
    }
    if is_over(inputs, spec) {
        finish(inputs, &mut plan);
        return plan;
    }

    match inputs.observed.sandbox() {
        None => new_sandbox(inputs, &mut plan),
        Some(sandbox) => {
            let sandbox_id = sandbox.id.clone();
            for other in inputs.observed.sandboxes.iter().skip(1).filter(|other| other.ready) {
                plan.steps.push(Step::StopSandbox { id: other.id.clone() });
            }
            if init_containers(inputs, spec, &sandbox_id, &mut plan) {
                for container in &spec.containers {
                    container_step(inputs, container, &sandbox_id, &mut plan);
                }
            }
        }
    }
    sweep(inputs, &mut plan);
    plan
}

fn finish(inputs: &Inputs, plan: &mut Plan) {
    if inputs.observed.is_running() {
        plan.steps.push(Step::Finish);
    }
}

/// All containers have ended and none will run again, or an init container has failed for good.
fn is_over(inputs: &Inputs, spec: &PodSpec) -> bool {
    let ended = |container: &Spec| {
        inputs
            .observed
            .latest(&container.name)
            .is_some_and(|latest| latest.state == State::Exited && !should_restart(inputs, container, latest))
    };
    let init_failed = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| !is_sidecar(container))
        .any(|container| {
            RestartPolicy::of_container(inputs.pod, container) == RestartPolicy::Never
                && inputs
                    .observed
                    .latest(&container.name)
                    .is_some_and(|latest| latest.state == State::Exited && latest.exit_code != 0)
        });
    init_failed || (!spec.containers.is_empty() && spec.containers.iter().all(ended))
}

fn should_restart(inputs: &Inputs, spec: &Spec, ended: &Container) -> bool {
    match RestartPolicy::of_container(inputs.pod, spec) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => ended.exit_code != 0 || inputs.condemned.contains(&ended.id),
        RestartPolicy::Never => false,
    }
}

fn new_sandbox(inputs: &Inputs, plan: &mut Plan) {
    match inputs.observed.sandboxes.first() {
        None => plan.steps.push(Step::CreateSandbox { attempt: 0 }),
        Some(dead) => {
            // With it went its network and what ran in it; a Pod that must not run twice ends here.
            let has_run = !inputs.observed.containers.is_empty();
            if RestartPolicy::of(inputs.pod) == RestartPolicy::Never && has_run {
                plan.failure = Some(Failure {
                    reason: "SandboxLost",
                    message: "The Pod's sandbox has ended and its restart policy forbids another".to_owned(),
                });
                if inputs.observed.running().next().is_some() {
                    plan.steps.push(Step::Finish);
                }
                return;
            }
            // Also gives its address back.
            plan.steps.push(Step::StopSandbox { id: dead.id.clone() });
            plan.steps.push(Step::CreateSandbox {
                attempt: dead.attempt + 1,
            });
        }
    }
}

/// Steps for init containers; true once the main containers may run.
fn init_containers(inputs: &Inputs, spec: &PodSpec, sandbox_id: &str, plan: &mut Plan) -> bool {
    let initialized = spec
        .containers
        .iter()
        .any(|container| inputs.observed.latest_in(sandbox_id, &container.name).is_some());
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            container_step(inputs, container, sandbox_id, plan);
            let started = inputs
                .observed
                .latest_in(sandbox_id, &container.name)
                .is_some_and(|latest| latest.state == State::Running && inputs.health.is_started(container, latest));
            if !started && !initialized {
                return false;
            }
            continue;
        }
        if initialized {
            continue;
        }
        match inputs.observed.latest_in(sandbox_id, &container.name) {
            Some(latest) if latest.state == State::Exited && latest.exit_code == 0 => {}
            Some(latest) if latest.state == State::Running => return false,
            _ => {
                start(inputs, container, sandbox_id, plan);
                return false;
            }
        }
    }
    true
}

/// Steps for one container that should run: a main one or a sidecar.
fn container_step(inputs: &Inputs, spec: &Spec, sandbox_id: &str, plan: &mut Plan) {
    match inputs.observed.latest(&spec.name) {
        Some(latest) if latest.state == State::Running && latest.sandbox_id == sandbox_id => {
            let why = match inputs.health.failed(latest) {
                Some(kind) => Why::Probe(kind),
                None if !latest.hash.is_empty() && latest.hash != hash(spec) => Why::SpecChanged,
                None => return,
            };
            plan.steps.push(Step::Kill {
                id: latest.id.clone(),
                name: spec.name.clone(),
                why,
            });
        }
        // It runs in a sandbox that is gone or going.
        Some(latest) if latest.state == State::Running => plan.steps.push(Step::StopSandbox {
            id: latest.sandbox_id.clone(),
        }),
        Some(latest) if latest.state == State::Exited && !should_restart(inputs, spec, latest) => {}
        _ => start(inputs, spec, sandbox_id, plan),
    }
}

fn start(inputs: &Inputs, spec: &Spec, sandbox_id: &str, plan: &mut Plan) {
    let name = spec.name.clone();
    let Some(latest) = inputs.observed.latest(&name) else {
        plan.steps.push(Step::Start {
            name,
            attempt: 0,
            backoff_seconds: 0,
        });
        return;
    };
    match latest.state {
        // Created and never started (the agent ended in between), or lost by the runtime: made anew.
        State::Created | State::Unknown => {
            plan.steps.push(Step::RemoveContainer { id: latest.id.clone() });
            plan.steps.push(Step::Start {
                name,
                attempt: latest.attempt,
                backoff_seconds: latest.backoff_seconds,
            });
        }
        State::Running => {}
        // The machine or the platform was down, which is no fault of the container's.
        State::Exited if latest.sandbox_id != sandbox_id && latest.finished_at < inputs.agent_began => {
            plan.steps.push(Step::Start {
                name,
                attempt: latest.attempt + 1,
                backoff_seconds: latest.backoff_seconds,
            });
        }
        // Whether it ended by itself or with its sandbox, as in upstream's `doBackOff`.
        State::Exited => match backoff::restart(latest, inputs.now) {
            Restart::Now { backoff_seconds } => plan.steps.push(Step::Start {
                name,
                attempt: latest.attempt + 1,
                backoff_seconds,
            }),
            Restart::Later { at, delay_seconds } => {
                plan.wake(at);
                let metadata = &inputs.pod.metadata;
                let message = format!(
                    "back-off {} restarting failed container={name} pod={}_{}({})",
                    backoff::go_duration(delay_seconds),
                    metadata.name.as_deref().unwrap_or_default(),
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.uid.as_deref().unwrap_or_default(),
                );
                plan.waiting.insert(
                    name,
                    Waiting {
                        reason: "CrashLoopBackOff".to_owned(),
                        message,
                    },
                );
            }
        },
    }
}

/// Of each container the latest and the dead one before it are kept (for `logs --previous`), of sandboxes the latest.
fn sweep(inputs: &Inputs, plan: &mut Plan) {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut kept_sandboxes: BTreeSet<&str> = BTreeSet::new();
    for container in &inputs.observed.containers {
        let count = seen.entry(&container.name).or_default();
        *count += 1;
        let already = plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::RemoveContainer { id } if *id == container.id));
        if *count > 2 && container.state != State::Running && !already {
            plan.steps.push(Step::RemoveContainer {
                id: container.id.clone(),
            });
        } else {
            kept_sandboxes.insert(&container.sandbox_id);
        }
    }
    for sandbox in inputs.observed.sandboxes.iter().skip(1) {
        if !sandbox.ready && !kept_sandboxes.contains(sandbox.id.as_str()) {
            plan.steps.push(Step::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

/// In which order a Pod's running containers are stopped: each group at once, the next when it has ended. The main
/// ones first, then sidecars, last started first.
pub fn shutdown_order<'a>(pod: Option<&Pod>, observed: &'a Observed) -> Vec<Vec<&'a Container>> {
    let sidecars: Vec<&str> = pod
        .and_then(|pod| pod.spec.as_ref())
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|container| is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let is_live = |container: &&Container| matches!(container.state, State::Running | State::Unknown);
    let mut order: Vec<Vec<&Container>> = vec![
        observed
            .containers
            .iter()
            .filter(is_live)
            .filter(|container| !sidecars.contains(&container.name.as_str()))
            .collect(),
    ];
    for name in sidecars.iter().rev() {
        order.push(
            observed
                .containers
                .iter()
                .filter(is_live)
                .filter(|container| container.name == *name)
                .collect(),
        );
    }
    order.retain(|group| !group.is_empty());
    order
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
