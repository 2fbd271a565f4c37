//! Devices: claims on them, and who offers them.

use serde_json::{Value, json};

use super::{Printer, age, column, list, name, since_text, text};

pub(super) const CLAIMS: Printer = Printer {
    columns: &[column("Name"), column("State"), column("Age")],
    cells: |object, now| vec![name(object), json!(state(object)), age(object, now)],
};

fn state(claim: &Value) -> String {
    let deleted = claim["metadata"]["deletionTimestamp"].is_string();
    let status = &claim["status"];
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if !status["allocation"].is_null() {
        states.push("allocated");
        if !list(&status["reservedFor"]).is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}

pub(super) const SLICES: Printer = Printer {
    columns: &[
        column("Name"),
        column("Node"),
        column("Driver"),
        column("Pool"),
        column("Age"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        vec![
            name(object),
            json!(text(&spec["nodeName"])),
            json!(text(&spec["driver"])),
            json!(text(&spec["pool"]["name"])),
            age(object, now),
        ]
    },
};

pub(super) const TAINTS: Printer = Printer {
    columns: &[
        column("Name"),
        column("Key"),
        column("Value"),
        column("Effect"),
        column("TimeAdded"),
        column("Age"),
    ],
    cells: |object, now| {
        let taint = &object["spec"]["taint"];
        let added = if taint["timeAdded"].is_null() {
            "<unknown>".to_owned()
        } else {
            since_text(&taint["timeAdded"], now)
        };
        vec![
            name(object),
            json!(text(&taint["key"])),
            json!(text(&taint["value"])),
            json!(text(&taint["effect"])),
            json!(added),
            age(object, now),
        ]
    },
};
