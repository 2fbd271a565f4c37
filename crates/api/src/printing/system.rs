//! Nodes, namespaces, events, and what configures the plane.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Printer, age, boolean, column, count, human_duration, list, name, number, or, since_text, text, wide};

pub(super) const NAME_AND_AGE: Printer = Printer {
    columns: &[column("Name"), column("Age")],
    cells: |object, now| vec![name(object), age(object, now)],
};

/// Kinds for which upstream shows the time itself.
pub(super) const NAME_AND_CREATED_AT: Printer = Printer {
    columns: &[
        column("Name"),
        super::Column {
            name: "Created At",
            kind: "date",
            priority: 0,
        },
    ],
    cells: |object, _| vec![name(object), json!(text(&object["metadata"]["creationTimestamp"]))],
};

pub(super) const NODES: Printer = Printer {
    columns: &[
        column("Name"),
        column("Status"),
        column("Roles"),
        column("Age"),
        column("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |object, now| {
        let info = &object["status"]["nodeInfo"];
        let address = |kind: &str| {
            let found = list(&object["status"]["addresses"])
                .iter()
                .find(|address| address["type"] == kind);
            found.map_or("<none>", |address| text(&address["address"])).to_owned()
        };
        let mut kernel = or(text(&info["kernelVersion"]), "<unknown>").to_owned();
        if !text(&info["architecture"]).is_empty() {
            kernel.push_str(&format!(" ({})", text(&info["architecture"])));
        }
        vec![
            name(object),
            json!(node_status(object)),
            json!(node_roles(object)),
            age(object, now),
            json!(text(&info["kubeletVersion"])),
            json!(address("InternalIP")),
            json!(address("ExternalIP")),
            json!(or(text(&info["osImage"]), "<unknown>")),
            json!(kernel),
            json!(or(text(&info["containerRuntimeVersion"]), "<unknown>")),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let ready = list(&node["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.insert(role);
        } else if key == "kubernetes.io/role" {
            roles.insert(text(value));
        }
    }
    roles.remove("");
    let roles: Vec<&str> = roles.into_iter().collect();
    or(&roles.join(","), "<none>").to_owned()
}

pub(super) const NAMESPACES: Printer = Printer {
    columns: &[column("Name"), column("Status"), column("Age")],
    cells: |object, now| vec![name(object), json!(text(&object["status"]["phase"])), age(object, now)],
};

pub(super) const EVENTS: Printer = Printer {
    columns: &[
        column("Last Seen"),
        column("Type"),
        column("Reason"),
        column("Object"),
        wide("Subobject"),
        wide("Source"),
        column("Message"),
        wide("First Seen"),
        wide("Count"),
        wide("Name"),
    ],
    cells: event_cells,
};

/// Events of either group: `events.k8s.io` has other names for the same fields.
fn event_cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |one: &str, other: &str| -> Value {
        match event.get(one) {
            Some(value) if !value.is_null() => value.clone(),
            _ => event[other].clone(),
        }
    };
    let object = either("involvedObject", "regarding");
    let first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let last = either("lastTimestamp", "deprecatedLastTimestamp");
    let source = either("source", "deprecatedSource");
    let first_seen = if first.is_null() {
        since_text(&event["eventTime"], now)
    } else {
        since_text(&first, now)
    };
    let mut last_seen = if last.is_null() {
        first_seen.clone()
    } else {
        since_text(&last, now)
    };
    let mut times = count(&either("count", "deprecatedCount")).max(1);
    if event["series"].is_object() {
        last_seen = since_text(&event["series"]["lastObservedTime"], now);
        times = count(&event["series"]["count"]);
    }
    let kind = text(&object["kind"]).to_lowercase();
    let target = match text(&object["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let reporter = either("reportingComponent", "reportingController");
    let component = or(text(&source["component"]), text(&reporter)).to_owned();
    let instance = or(text(&source["host"]), text(&event["reportingInstance"])).to_owned();
    let shown_source = if instance.is_empty() {
        component
    } else {
        format!("{component}, {instance}")
    };
    vec![
        json!(last_seen),
        json!(text(&event["type"])),
        json!(text(&event["reason"])),
        json!(target),
        json!(text(&object["fieldPath"])),
        json!(shown_source),
        json!(text(&either("message", "note")).trim()),
        json!(first_seen),
        json!(times),
        name(event),
    ]
}

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, Map::len)
}

pub(super) const CONFIG_MAPS: Printer = Printer {
    columns: &[column("Name"), column("Data"), column("Age")],
    cells: |object, now| {
        let data = entries(&object["data"]) + entries(&object["binaryData"]);
        vec![name(object), json!(data), age(object, now)]
    },
};

pub(super) const SECRETS: Printer = Printer {
    columns: &[column("Name"), column("Type"), column("Data"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            json!(text(&object["type"])),
            json!(entries(&object["data"])),
            age(object, now),
        ]
    },
};

pub(super) const RESOURCE_QUOTAS: Printer = Printer {
    columns: &[column("Name"), column("Request"), column("Limit"), column("Age")],
    cells: |object, now| {
        let status = &object["status"];
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in status["hard"].as_object().into_iter().flatten() {
            let used = or(text(&status["used"][resource]), "0");
            let shown = format!("{resource}: {used}/{}", text(hard));
            if resource.starts_with("limits.") {
                limits.push(shown);
            } else {
                requests.push(shown);
            }
        }
        vec![
            name(object),
            json!(requests.join(", ")),
            json!(limits.join(", ")),
            age(object, now),
        ]
    },
};

pub(super) const BINDINGS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Role"),
        column("Age"),
        wide("Users"),
        wide("Groups"),
        wide("ServiceAccounts"),
    ],
    cells: |object, now| {
        let role = &object["roleRef"];
        let subjects = |kind: &str| {
            let names: Vec<String> = list(&object["subjects"])
                .iter()
                .filter(|subject| subject["kind"] == kind)
                .map(|subject| match text(&subject["namespace"]) {
                    namespace if kind == "ServiceAccount" => format!("{namespace}/{}", text(&subject["name"])),
                    _ => text(&subject["name"]).to_owned(),
                })
                .collect();
            names.join(", ")
        };
        vec![
            name(object),
            json!(format!("{}/{}", text(&role["kind"]), text(&role["name"]))),
            age(object, now),
            json!(subjects("User")),
            json!(subjects("Group")),
            json!(subjects("ServiceAccount")),
        ]
    },
};

pub(super) const LEASES: Printer = Printer {
    columns: &[column("Name"), column("Holder"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            json!(text(&object["spec"]["holderIdentity"])),
            age(object, now),
        ]
    },
};

pub(super) const PRIORITY_CLASSES: Printer = Printer {
    columns: &[
        column("Name"),
        number("Value"),
        boolean("Global-Default"),
        column("Age"),
        column("PreemptionPolicy"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            json!(count(&object["value"])),
            json!(object["globalDefault"] == true),
            age(object, now),
            json!(text(&object["preemptionPolicy"])),
        ]
    },
};

pub(super) const SIGNING_REQUESTS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Age"),
        column("SignerName"),
        column("Requestor"),
        column("RequestedDuration"),
        column("Condition"),
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let has = |kind: &str| {
            list(&status["conditions"])
                .iter()
                .any(|condition| condition["type"] == kind)
        };
        let mut condition = if has("Denied") {
            "Denied"
        } else if has("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has("Failed") {
            condition.push_str(",Failed");
        }
        if !text(&status["certificate"]).is_empty() {
            condition.push_str(",Issued");
        }
        let duration = spec["expirationSeconds"]
            .as_i64()
            .map_or("<none>".to_owned(), human_duration);
        vec![
            name(object),
            age(object, now),
            json!(or(text(&spec["signerName"]), "<none>")),
            json!(text(&spec["username"])),
            json!(duration),
            json!(condition),
        ]
    },
};

pub(super) const RUNTIME_CLASSES: Printer = Printer {
    columns: &[column("Name"), column("Handler"), column("Age")],
    cells: |object, now| vec![name(object), json!(text(&object["handler"])), age(object, now)],
};

pub(super) const WEBHOOKS: Printer = Printer {
    columns: &[column("Name"), number("Webhooks"), column("Age")],
    cells: |object, now| vec![name(object), json!(list(&object["webhooks"]).len()), age(object, now)],
};

pub(super) const FLOW_SCHEMAS: Printer = Printer {
    columns: &[
        column("Name"),
        column("PriorityLevel"),
        column("MatchingPrecedence"),
        column("DistinguisherMethod"),
        column("Age"),
        column("MissingPL"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let missing = list(&object["status"]["conditions"])
            .iter()
            .find(|condition| condition["type"] == "Dangling")
            .map_or("?", |condition| text(&condition["status"]));
        vec![
            name(object),
            json!(text(&spec["priorityLevelConfiguration"]["name"])),
            json!(count(&spec["matchingPrecedence"])),
            json!(or(text(&spec["distinguisherMethod"]["type"]), "<none>")),
            age(object, now),
            json!(missing),
        ]
    },
};

pub(super) const PRIORITY_LEVELS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Type"),
        column("NominalConcurrencyShares"),
        column("Queues"),
        column("HandSize"),
        column("QueueLengthLimit"),
        column("Age"),
    ],
    cells: |object, now| {
        let limited = &object["spec"]["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let cell = |value: &Value| {
            if value.is_null() {
                json!("<none>")
            } else {
                value.clone()
            }
        };
        vec![
            name(object),
            json!(text(&object["spec"]["type"])),
            cell(&limited["nominalConcurrencyShares"]),
            cell(&queuing["queues"]),
            cell(&queuing["handSize"]),
            cell(&queuing["queueLengthLimit"]),
            age(object, now),
        ]
    },
};
