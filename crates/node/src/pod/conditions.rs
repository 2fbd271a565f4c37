//! A Pod's conditions, as a function of its containers' states.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::{Value, json};

use super::status::{ContainerView, Inputs, Role, time};

pub(super) fn conditions(
    inputs: &Inputs,
    phase: &str,
    initialized: bool,
    init: &[ContainerView],
    main: &[ContainerView],
) -> Vec<Value> {
    let over = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let on_host = inputs
        .pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true));
    let has_network = inputs
        .observed
        .sandbox()
        .is_some_and(|sandbox| on_host || !sandbox.ips.is_empty());

    let names = |views: Vec<&str>| format!("[{}]", views.join(" "));
    let unready: Vec<&str> = init
        .iter()
        .filter(|view| view.role == Role::Sidecar)
        .chain(main)
        .filter(|view| !view.ready)
        .map(|view| view.spec.name.as_str())
        .collect();
    let containers_ready = match over {
        Some(reason) => Verdict::no(reason, String::new()),
        None if unready.is_empty() => Verdict::yes(),
        None => Verdict::no(
            "ContainersNotReady",
            format!("containers with unready status: {}", names(unready)),
        ),
    };
    let initialized = match over {
        Some("PodCompleted") => Verdict {
            reason: "PodCompleted",
            ..Verdict::yes()
        },
        _ if initialized => Verdict::yes(),
        _ => {
            let incomplete = init
                .iter()
                .filter(|view| !view.is_initialized())
                .map(|view| view.spec.name.as_str())
                .collect();
            Verdict::no(
                "ContainersNotInitialized",
                format!("containers with incomplete status: {}", names(incomplete)),
            )
        }
    };
    let ready = if over.is_some() || !containers_ready.status {
        containers_ready.clone()
    } else {
        readiness_gates(inputs.pod)
    };
    let network = if has_network {
        Verdict::yes()
    } else {
        Verdict::no("", String::new())
    };

    let mut all = vec![
        condition(inputs, "PodReadyToStartContainers", network),
        condition(inputs, "Initialized", initialized),
        condition(inputs, "Ready", ready),
        condition(inputs, "ContainersReady", containers_ready),
    ];
    if existing(inputs.pod, "PodScheduled").is_none_or(|scheduled| scheduled.status != "True") {
        all.push(condition(inputs, "PodScheduled", Verdict::yes()));
    }
    all
}

#[derive(Clone)]
struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Verdict {
        Verdict {
            status: true,
            reason: "",
            message: String::new(),
        }
    }

    fn no(reason: &'static str, message: String) -> Verdict {
        Verdict {
            status: false,
            reason,
            message,
        }
    }
}

fn existing<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

fn readiness_gates(pod: &Pod) -> Verdict {
    let messages: Vec<String> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .filter_map(|gate| match existing(pod, &gate.condition_type) {
            None => Some(format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            )),
            Some(condition) if condition.status != "True" => Some(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            Some(_) => None,
        })
        .collect();
    if messages.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", messages.join(", "))
    }
}

/// `lastTransitionTime` stays while the status does.
fn condition(inputs: &Inputs, kind: &str, verdict: Verdict) -> Value {
    let status = if verdict.status { "True" } else { "False" };
    let since = existing(inputs.pod, kind)
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map_or_else(|| time(inputs.now), |time| json!(time.0.to_string()));
    let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    json!({
        "type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since,
        "reason": text(verdict.reason), "message": text(&verdict.message),
    })
}
