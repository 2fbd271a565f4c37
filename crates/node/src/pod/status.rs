//! The Pod's status as the plane shall have it, as a function of what is known. Only what this node owns is in it:
//! other writers' conditions are left alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use serde_json::{Map, Value, json};

use super::conditions::conditions;
use super::health::Health;
use super::observed::{Container, Nanos, Observed, State};
use super::plan::{Failure, RestartPolicy, Waiting, is_sidecar};

pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub health: &'a Health,
    /// From the plan and from failed starts: why a container is not running.
    pub waiting: &'a BTreeMap<String, Waiting>,
    pub failure: Option<&'a Failure>,
    pub host_ip: IpAddr,
    pub started_at: Nanos,
    pub now: Nanos,
    /// As in `containerd://<id>`.
    pub runtime_name: &'a str,
    /// Last words of dead containers by id, where the runtime does not give them.
    pub messages: &'a BTreeMap<String, String>,
    /// The Pod is being ended and nothing of it runs any more.
    pub ended: bool,
}

/// The complete status that this node wants.
pub fn status(inputs: &Inputs) -> Value {
    let empty = Default::default();
    let spec = inputs.pod.spec.as_ref().unwrap_or(&empty);
    let init: Vec<&Spec> = spec.init_containers.iter().flatten().collect();
    let main: Vec<&Spec> = spec.containers.iter().collect();

    let init_states: Vec<ContainerView> = init
        .iter()
        .map(|spec| view(inputs, spec, Role::of_init(spec)))
        .collect();
    let initialized = init_states.iter().all(ContainerView::is_initialized)
        || main.iter().any(|spec| inputs.observed.latest(&spec.name).is_some());
    let main_states: Vec<ContainerView> = main
        .iter()
        .map(|spec| {
            let role = if initialized { Role::Main } else { Role::MainBeforeInit };
            view(inputs, spec, role)
        })
        .collect();

    let phase = phase(inputs, &init_states, &main_states);
    let over = matches!(phase, "Succeeded" | "Failed");
    let mut status = Map::new();
    let mut put = |key: &str, value: Value| {
        status.insert(key.to_owned(), value);
    };
    put("phase", json!(phase));
    put("startTime", time(inputs.started_at));
    put("hostIP", json!(inputs.host_ip));
    put("hostIPs", json!([{"ip": inputs.host_ip}]));
    if let Some(generation) = inputs.pod.metadata.generation {
        put("observedGeneration", json!(generation));
    }
    put("reason", json!(inputs.failure.map(|failure| failure.reason)));
    put("message", json!(inputs.failure.map(|failure| &failure.message)));
    put(
        "qosClass",
        json!(crate::container::resources::QosClass::of(inputs.pod).as_str()),
    );

    let ips = pod_ips(inputs);
    if let Some(first) = ips.first() {
        put("podIP", json!(first));
        put("podIPs", ips.iter().map(|ip| json!({"ip": ip})).collect());
    }
    put(
        "containerStatuses",
        main_states.iter().map(ContainerView::to_tree).collect(),
    );
    if !init_states.is_empty() {
        put(
            "initContainerStatuses",
            init_states.iter().map(ContainerView::to_tree).collect(),
        );
    }
    put(
        "conditions",
        Value::Array(conditions(
            inputs,
            phase,
            initialized || over,
            &init_states,
            &main_states,
        )),
    );
    Value::Object(status)
}

fn pod_ips(inputs: &Inputs) -> Vec<String> {
    let on_host = inputs
        .pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true));
    let sandbox = inputs.observed.sandboxes.first();
    match sandbox {
        Some(_) if on_host => vec![inputs.host_ip.to_string()],
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.iter().map(IpAddr::to_string).collect(),
        // A sandbox that has ended no longer tells its address; the plane still knows it.
        _ => inputs
            .pod
            .status
            .iter()
            .flat_map(|status| status.pod_ips.iter().flatten())
            .map(|ip| ip.ip.clone())
            .collect(),
    }
}

/// Seconds, as the API writes times; `null` for never.
pub(super) fn time(nanos: Nanos) -> Value {
    if nanos <= 0 {
        return Value::Null;
    }
    Timestamp::from_second(nanos.div_euclid(super::observed::SECOND))
        .map_or(Value::Null, |time| json!(time.to_string()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Sidecar,
    Main,
    MainBeforeInit,
}

impl Role {
    fn of_init(spec: &Spec) -> Role {
        if is_sidecar(spec) { Role::Sidecar } else { Role::Init }
    }
}

pub(super) enum Now<'a> {
    Waiting { reason: String, message: String },
    Running(&'a Container),
    Terminated(&'a Container),
}

pub(super) struct ContainerView<'a> {
    inputs: &'a Inputs<'a>,
    pub(super) spec: &'a Spec,
    pub(super) role: Role,
    now: Now<'a>,
    last: Option<&'a Container>,
    latest: Option<&'a Container>,
    started: bool,
    pub(super) ready: bool,
}

fn view<'a>(inputs: &'a Inputs<'a>, spec: &'a Spec, role: Role) -> ContainerView<'a> {
    let latest = inputs.observed.latest(&spec.name);
    let previous = inputs
        .observed
        .previous(&spec.name)
        .filter(|previous| previous.state == State::Exited);
    let waiting = inputs.waiting.get(&spec.name).filter(|_| !inputs.ended);
    let (now, last) = match latest {
        Some(latest) if latest.state == State::Running => (Now::Running(latest), previous),
        Some(latest) if latest.state == State::Exited => match waiting {
            Some(waiting) => (Now::waiting(&waiting.reason, &waiting.message), Some(latest)),
            None => (Now::Terminated(latest), previous),
        },
        _ => {
            let default = match role {
                Role::Init | Role::Sidecar | Role::MainBeforeInit if has_init(inputs) => "PodInitializing",
                _ => "ContainerCreating",
            };
            match waiting {
                Some(waiting) => (Now::waiting(&waiting.reason, &waiting.message), previous),
                None => (Now::waiting(default, ""), previous),
            }
        }
    };
    let (started, ready) = match (&now, role) {
        (Now::Running(container), Role::Init) => (inputs.health.is_started(spec, container), false),
        (Now::Running(container), _) => (
            inputs.health.is_started(spec, container),
            inputs.health.is_ready(spec, container),
        ),
        (Now::Terminated(container), Role::Init) => (false, container.exit_code == 0),
        _ => (false, false),
    };
    ContainerView {
        inputs,
        spec,
        role,
        now,
        last,
        latest,
        started,
        ready,
    }
}

fn has_init(inputs: &Inputs) -> bool {
    inputs
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref())
        .is_some_and(|init| !init.is_empty())
}

impl Now<'_> {
    fn waiting(reason: &str, message: &str) -> Now<'static> {
        Now::Waiting {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

impl ContainerView<'_> {
    pub(super) fn is_initialized(&self) -> bool {
        match self.role {
            Role::Init => self.ready,
            _ => self.started,
        }
    }

    fn terminated(&self, container: &Container) -> Value {
        let mut tree = Map::new();
        tree.insert("exitCode".into(), json!(container.exit_code));
        let reason = match container.reason.as_str() {
            "" if container.exit_code == 0 => "Completed",
            "" => "Error",
            reason => reason,
        };
        tree.insert("reason".into(), json!(reason));
        let message = self.inputs.messages.get(&container.id).unwrap_or(&container.message);
        if !message.is_empty() {
            tree.insert("message".into(), json!(message));
        }
        tree.insert("startedAt".into(), time(container.started_at));
        tree.insert("finishedAt".into(), time(container.finished_at));
        tree.insert("containerID".into(), json!(self.container_id(container)));
        json!({ "terminated": tree })
    }

    fn container_id(&self, container: &Container) -> String {
        format!("{}://{}", self.inputs.runtime_name, container.id)
    }

    fn to_tree(&self) -> Value {
        let state = match &self.now {
            Now::Running(container) => json!({"running": {"startedAt": time(container.started_at)}}),
            Now::Terminated(container) => self.terminated(container),
            Now::Waiting { reason, message } if message.is_empty() => json!({"waiting": {"reason": reason}}),
            Now::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        };
        let last = self.last.map_or(json!({}), |container| self.terminated(container));
        let image = self
            .latest
            .map(|container| container.image.as_str())
            .filter(|image| !image.is_empty())
            .or(self.spec.image.as_deref())
            .unwrap_or_default();
        let mut tree = json!({
            "name": self.spec.name,
            "image": image,
            "imageID": self.latest.map_or("", |container| &container.image_id),
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.latest.map_or(0, |container| container.attempt),
            "state": state,
            "lastState": last,
        });
        if let Some(container) = self.latest {
            tree["containerID"] = json!(self.container_id(container));
        }
        tree
    }
}

fn phase<'a>(inputs: &Inputs, init: &[ContainerView], main: &[ContainerView]) -> &'a str {
    if let Some(known) = inputs.pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        if known == "Succeeded" {
            return "Succeeded";
        }
        if known == "Failed" {
            return "Failed";
        }
    }
    if inputs.failure.is_some() {
        return "Failed";
    }
    let policy = RestartPolicy::of(inputs.pod);

    if inputs.ended {
        let well = !main.is_empty()
            && main
                .iter()
                .all(|view| matches!(&view.now, Now::Terminated(container) if container.exit_code == 0));
        return if well { "Succeeded" } else { "Failed" };
    }
    let any_main = main.iter().any(|view| view.latest.is_some());
    if !any_main {
        for view in init.iter().filter(|view| view.role == Role::Init) {
            match &view.now {
                Now::Terminated(container) if container.exit_code != 0 => {
                    return match RestartPolicy::of_container(inputs.pod, view.spec) {
                        RestartPolicy::Never => "Failed",
                        _ => "Pending",
                    };
                }
                Now::Terminated(_) => {}
                _ => return "Pending",
            }
        }
    }
    let (mut running, mut waiting, mut stopped, mut well) = (0, 0, 0, 0);
    for view in main {
        match &view.now {
            Now::Running(_) => running += 1,
            Now::Terminated(container) => {
                stopped += 1;
                well += usize::from(container.exit_code == 0);
            }
            // It has run before and will again.
            Now::Waiting { .. } if view.last.is_some() => stopped += 1,
            Now::Waiting { .. } => waiting += 1,
        }
    }
    if waiting > 0 {
        "Pending"
    } else if running > 0 {
        "Running"
    } else if stopped == 0 {
        "Pending"
    } else if main.iter().all(|view| will_not_restart(inputs, view)) {
        if stopped == well { "Succeeded" } else { "Failed" }
    } else if policy == RestartPolicy::OnFailure && stopped == well {
        "Succeeded"
    } else {
        "Running"
    }
}

fn will_not_restart(inputs: &Inputs, view: &ContainerView) -> bool {
    match (RestartPolicy::of_container(inputs.pod, view.spec), &view.now) {
        (RestartPolicy::Never, Now::Terminated(_)) => true,
        (RestartPolicy::OnFailure, Now::Terminated(container)) => container.exit_code == 0,
        _ => false,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
