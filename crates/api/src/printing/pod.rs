//! Pods: the one kind whose status is a story of its own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, Printer, age, column, count, list, name, or, since, text, wide};

pub(super) const PODS: Printer = Printer {
    columns: &COLUMNS,
    cells,
};

const COLUMNS: [Column; 9] = [
    column("Name"),
    column("Ready"),
    column("Status"),
    column("Restarts"),
    column("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, since(last, now)),
        _ => summary.restarts.to_string(),
    };
    let (spec, status) = (&pod["spec"], &pod["status"]);
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or(text(&status["podIPs"][0]["ip"]), "<none>")),
        json!(or(text(&spec["nodeName"]), "<none>")),
        json!(or(text(&status["nominatedNodeName"]), "<none>")),
        json!(gates(pod)),
    ]
}

/// That a Pod's work is over, as a condition of its row.
pub(super) fn completion(object: &Value) -> Option<Value> {
    if text(&object["kind"]) != "Pod" {
        return None;
    }
    let (reason, message) = match text(&object["status"]["phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let is_sidecar = |name: &Value| {
        list(&spec["initContainers"])
            .iter()
            .any(|container| container["name"] == *name && container["restartPolicy"] == "Always")
    };
    let mut reason = or(text(&status["reason"]), text(&status["phase"])).to_owned();
    let gated = list(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    let sidecars = list(&spec["initContainers"])
        .iter()
        .filter(|container| container["restartPolicy"] == "Always")
        .count();
    let mut summary = Summary {
        ready: 0,
        total: list(&spec["containers"]).len() + sidecars,
        reason,
        restarts: 0,
        last_restart: None,
    };

    let (mut sidecar_restarts, mut sidecar_last) = (0, None);
    let mut initializing = false;
    for (at, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
        let sidecar = is_sidecar(&container["name"]);
        let ended = last_end(container);
        summary.restarts += count(&container["restartCount"]);
        summary.last_restart = summary.last_restart.max(ended);
        if sidecar {
            sidecar_restarts += count(&container["restartCount"]);
            sidecar_last = sidecar_last.max(ended);
        }
        let state = &container["state"];
        let terminated = &state["terminated"];
        let waiting = text(&state["waiting"]["reason"]);
        if !terminated.is_null() && count(&terminated["exitCode"]) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        summary.reason = if !terminated.is_null() {
            format!("Init:{}", end_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{at}/{}", list(&spec["initContainers"]).len())
        };
        initializing = true;
        break;
    }

    if !initializing || has_condition(status, "Initialized") {
        summary.restarts = sidecar_restarts;
        summary.last_restart = sidecar_last;
        summarize_containers(&mut summary, status);
    }

    let deleting = pod["metadata"]["deletionTimestamp"].is_string();
    if deleting && text(&status["reason"]) == "NodeLost" {
        summary.reason = "Unknown".to_owned();
    } else if deleting && !matches!(text(&status["phase"]), "Succeeded" | "Failed") {
        summary.reason = "Terminating".to_owned();
    }
    summary
}

fn summarize_containers(summary: &mut Summary, status: &Value) {
    let (mut running, mut failure) = (false, String::new());
    for container in list(&status["containerStatuses"]).iter().rev() {
        summary.restarts += count(&container["restartCount"]);
        summary.last_restart = summary.last_restart.max(last_end(container));
        let state = &container["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if !state["terminated"].is_null() {
            summary.reason = end_reason(&state["terminated"]);
            if count(&state["terminated"]["exitCode"]) != 0 {
                failure = summary.reason.clone();
            }
        } else if container["ready"] == true && !state["running"].is_null() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        if running && has_condition(status, "Ready") {
            summary.reason = "Running".to_owned();
        } else if !failure.is_empty() {
            summary.reason = failure;
        } else if running {
            summary.reason = "NotReady".to_owned();
        }
    }
}

fn last_end(container: &Value) -> Option<Timestamp> {
    text(&container["lastState"]["terminated"]["finishedAt"]).parse().ok()
}

fn end_reason(terminated: &Value) -> String {
    match (text(&terminated["reason"]), count(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", count(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn has_condition(status: &Value, kind: &str) -> bool {
    list(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn gates(pod: &Value) -> String {
    let gates = list(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| has_condition(&pod["status"], text(&gate["conditionType"])));
    format!("{}/{}", open.count(), gates.len())
}
