//! What keeps Pods running, and what bounds it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Printer, age, boolean, column, containers, count, human_duration, labels, list, name, number, or, selector,
    since_text, text, wide,
};

pub(super) const DEPLOYMENTS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Ready"),
        column("Up-to-date"),
        column("Available"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = containers(&spec["template"]);
        vec![
            name(object),
            json!(format!(
                "{}/{}",
                count(&status["readyReplicas"]),
                count(&spec["replicas"])
            )),
            json!(count(&status["updatedReplicas"])),
            json!(count(&status["availableReplicas"])),
            age(object, now),
            json!(names),
            json!(images),
            json!(selector(&spec["selector"])),
        ]
    },
};

pub(super) const REPLICA_SETS: Printer = Printer {
    columns: &[
        column("Name"),
        number("Desired"),
        number("Current"),
        number("Ready"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| replica_cells(object, now, selector(&object["spec"]["selector"])),
};

pub(super) const REPLICATION_CONTROLLERS: Printer = Printer {
    columns: REPLICA_SETS.columns,
    cells: |object, now| replica_cells(object, now, labels(&object["spec"]["selector"])),
};

fn replica_cells(object: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let (names, images) = containers(&spec["template"]);
    vec![
        name(object),
        json!(count(&spec["replicas"])),
        json!(count(&status["replicas"])),
        json!(count(&status["readyReplicas"])),
        age(object, now),
        json!(names),
        json!(images),
        json!(selector),
    ]
}

pub(super) const STATEFUL_SETS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Ready"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = containers(&spec["template"]);
        vec![
            name(object),
            json!(format!(
                "{}/{}",
                count(&status["readyReplicas"]),
                count(&spec["replicas"])
            )),
            age(object, now),
            json!(names),
            json!(images),
        ]
    },
};

pub(super) const DAEMON_SETS: Printer = Printer {
    columns: &[
        column("Name"),
        number("Desired"),
        number("Current"),
        number("Ready"),
        number("Up-to-date"),
        number("Available"),
        column("Node Selector"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = containers(&spec["template"]);
        vec![
            name(object),
            json!(count(&status["desiredNumberScheduled"])),
            json!(count(&status["currentNumberScheduled"])),
            json!(count(&status["numberReady"])),
            json!(count(&status["updatedNumberScheduled"])),
            json!(count(&status["numberAvailable"])),
            json!(labels(&spec["template"]["spec"]["nodeSelector"])),
            age(object, now),
            json!(names),
            json!(images),
            json!(selector(&spec["selector"])),
        ]
    },
};

pub(super) const JOBS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Status"),
        column("Completions"),
        column("Duration"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = containers(&spec["template"]);
        let succeeded = count(&status["succeeded"]);
        let completions = match (spec["completions"].as_i64(), count(&spec["parallelism"])) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
            (None, _) => format!("{succeeded}/1"),
        };
        vec![
            name(object),
            json!(job_status(object)),
            json!(completions),
            json!(job_duration(status, now)),
            age(object, now),
            json!(names),
            json!(images),
            json!(selector(&spec["selector"])),
        ]
    },
};

fn job_status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        list(&job["status"]["conditions"])
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn job_duration(status: &Value, now: Timestamp) -> String {
    let time = |field: &str| text(&status[field]).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else {
        return String::new();
    };
    let end = time("completionTime").unwrap_or(now);
    human_duration(end.as_second().saturating_sub(start.as_second()))
}

pub(super) const CRON_JOBS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Schedule"),
        column("Timezone"),
        boolean("Suspend"),
        number("Active"),
        column("Last Schedule"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = containers(&spec["jobTemplate"]["spec"]["template"]);
        let suspend = match spec["suspend"].as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = if status["lastScheduleTime"].is_null() {
            "<none>".to_owned()
        } else {
            since_text(&status["lastScheduleTime"], now)
        };
        vec![
            name(object),
            json!(text(&spec["schedule"])),
            json!(or(text(&spec["timeZone"]), "<none>")),
            json!(suspend),
            json!(list(&status["active"]).len()),
            json!(last),
            age(object, now),
            json!(names),
            json!(images),
            json!(selector(&spec["jobTemplate"]["spec"]["selector"])),
        ]
    },
};

pub(super) const POD_TEMPLATES: Printer = Printer {
    columns: &[
        column("Name"),
        column("Containers"),
        column("Images"),
        column("Pod Labels"),
    ],
    cells: |object, _| {
        let (names, images) = containers(&object["template"]);
        vec![
            name(object),
            json!(names),
            json!(images),
            json!(labels(&object["template"]["metadata"]["labels"])),
        ]
    },
};

pub(super) const CONTROLLER_REVISIONS: Printer = Printer {
    columns: &[column("Name"), column("Controller"), column("Revision"), column("Age")],
    cells: |object, now| {
        let controller = list(&object["metadata"]["ownerReferences"])
            .iter()
            .find(|owner| owner["controller"] == true)
            .map(|owner| {
                let group = text(&owner["apiVersion"])
                    .split_once('/')
                    .map_or("", |(group, _)| group);
                let kind = text(&owner["kind"]).to_lowercase();
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", text(&owner["name"]))
            });
        vec![
            name(object),
            json!(controller.as_deref().unwrap_or("<none>")),
            json!(count(&object["revision"])),
            age(object, now),
        ]
    },
};

pub(super) const DISRUPTION_BUDGETS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Min Available"),
        column("Max Unavailable"),
        number("Allowed Disruptions"),
        column("Age"),
    ],
    cells: |object, now| {
        let bound = |field: &str| match &object["spec"][field] {
            Value::Null => "N/A".to_owned(),
            Value::String(percent) => percent.clone(),
            number => number.to_string(),
        };
        vec![
            name(object),
            json!(bound("minAvailable")),
            json!(bound("maxUnavailable")),
            json!(count(&object["status"]["disruptionsAllowed"])),
            age(object, now),
        ]
    },
};

pub(super) const AUTOSCALERS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Reference"),
        column("Targets"),
        column("MinPods"),
        column("MaxPods"),
        column("Replicas"),
        column("Age"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        let min = spec["minReplicas"]
            .as_i64()
            .map_or("<unset>".to_owned(), |min| min.to_string());
        vec![
            name(object),
            json!(format!("{}/{}", text(&target["kind"]), text(&target["name"]))),
            json!(metrics(spec, status)),
            json!(min),
            json!(count(&spec["maxReplicas"])),
            json!(count(&status["currentReplicas"])),
            age(object, now),
        ]
    },
};

/// Each metric as `current/target`, the first two of them.
fn metrics(spec: &Value, status: &Value) -> String {
    let specs = list(&spec["metrics"]);
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = specs
        .iter()
        .enumerate()
        .take(2)
        .map(|(at, metric)| {
            let field = match text(&metric["type"]) {
                "Resource" => "resource",
                "ContainerResource" => "containerResource",
                "Pods" => "pods",
                "Object" => "object",
                "External" => "external",
                _ => return "<unknown type>".to_owned(),
            };
            metric_cell(field, &metric[field], &status["currentMetrics"][at][field]["current"])
        })
        .collect();
    let joined = shown.join(", ");
    if specs.len() > shown.len() {
        format!("{joined} + {} more...", specs.len() - shown.len())
    } else {
        joined
    }
}

fn metric_cell(field: &str, metric: &Value, current: &Value) -> String {
    let target = &metric["target"];
    let resource = field.ends_with("esource");
    let prefix = if resource {
        format!("{}: ", text(&metric["name"]))
    } else {
        String::new()
    };
    if !target["averageValue"].is_null() {
        let suffix = if matches!(field, "object" | "external") {
            " (avg)"
        } else {
            ""
        };
        let now = or(text(&current["averageValue"]), "<unknown>");
        return format!("{prefix}{now}/{}{suffix}", text(&target["averageValue"]));
    }
    if resource {
        let percent = |value: &Value, absent: &str| value.as_i64().map_or(absent.to_owned(), |part| format!("{part}%"));
        let now = percent(&current["averageUtilization"], "<unknown>");
        return format!("{prefix}{now}/{}", percent(&target["averageUtilization"], "<auto>"));
    }
    format!(
        "{}/{}",
        or(text(&current["value"]), "<unknown>"),
        text(&target["value"])
    )
}
