//! What a plane is made of and vouches for: API services, stored versions, certificates.

use serde_json::{Value, json};

use super::{Printer, age, column, labels, list, name, or, text};

pub(super) const API_SERVICES: Printer = Printer {
    columns: &[column("Name"), column("Service"), column("Available"), column("Age")],
    cells: |object, now| {
        let service = &object["spec"]["service"];
        let shown = if service.is_null() {
            "Local".to_owned()
        } else {
            format!("{}/{}", text(&service["namespace"]), text(&service["name"]))
        };
        vec![name(object), json!(shown), json!(available(object)), age(object, now)]
    },
};

fn available(service: &Value) -> String {
    let condition = list(&service["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Available");
    let Some(condition) = condition else {
        return "Unknown".to_owned();
    };
    let status = text(&condition["status"]);
    match text(&condition["reason"]) {
        reason if status != "True" && !reason.is_empty() => format!("{status} ({reason})"),
        _ => status.to_owned(),
    }
}

pub(super) const STORAGE_VERSIONS: Printer = Printer {
    columns: &[
        column("Name"),
        column("CommonEncodingVersion"),
        column("StorageVersions"),
        column("Age"),
    ],
    cells: |object, now| {
        let status = &object["status"];
        let versions: Vec<String> = list(&status["storageVersions"])
            .iter()
            .map(|version| {
                format!(
                    "{}={}",
                    text(&version["apiServerID"]),
                    text(&version["encodingVersion"])
                )
            })
            .collect();
        let shown = &versions[..versions.len().min(3)];
        vec![
            name(object),
            json!(or(text(&status["commonEncodingVersion"]), "<unset>")),
            json!(super::with_more(shown, versions.len(), "<unset>")),
            age(object, now),
        ]
    },
};

pub(super) const MIGRATIONS: Printer = Printer {
    columns: &[column("Name"), column("Resource"), column("Status")],
    cells: |object, _| {
        let resource = &object["spec"]["resource"];
        let group = text(&resource["group"]);
        let dot = if group.is_empty() { "" } else { "." };
        let state = list(&object["status"]["conditions"])
            .iter()
            .filter(|condition| condition["status"] == "True")
            .map(|condition| text(&condition["type"]))
            .rfind(|kind| matches!(*kind, "Running" | "Failed" | "Succeeded"));
        vec![
            name(object),
            json!(format!("{}{dot}{group}", text(&resource["resource"]))),
            json!(state.unwrap_or("Unknown")),
        ]
    },
};

pub(super) const TRUST_BUNDLES: Printer = Printer {
    columns: &[column("Name"), column("SignerName")],
    cells: |object, _| vec![name(object), json!(or(text(&object["spec"]["signerName"]), "<none>"))],
};

pub(super) const POD_CERTIFICATES: Printer = Printer {
    columns: &[
        column("Name"),
        column("PodName"),
        column("ServiceAccountName"),
        column("NodeName"),
        column("SignerName"),
        column("State"),
        column("UnverifiedUserAnnotations"),
    ],
    cells: |object, _| {
        let spec = &object["spec"];
        let state = list(&object["status"]["conditions"])
            .iter()
            .map(|condition| text(&condition["type"]))
            .rfind(|kind| matches!(*kind, "Issued" | "Denied" | "Failed"));
        let field = |name: &str| json!(text(&spec[name]));
        vec![
            name(object),
            field("podName"),
            field("serviceAccountName"),
            field("nodeName"),
            field("signerName"),
            json!(state.unwrap_or("Pending")),
            json!(labels(&spec["unverifiedUserAnnotations"])),
        ]
    },
};

pub(super) const LEASE_CANDIDATES: Printer = Printer {
    columns: &[
        column("Name"),
        column("LeaseName"),
        column("BinaryVersion"),
        column("EmulationVersion"),
        column("Age"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        vec![
            name(object),
            json!(text(&spec["leaseName"])),
            json!(text(&spec["binaryVersion"])),
            json!(text(&spec["emulationVersion"])),
            age(object, now),
        ]
    },
};

pub(super) const SERVICE_CIDRS: Printer = Printer {
    columns: &[column("Name"), column("CIDRs"), column("Age")],
    cells: |object, now| {
        let ranges: Vec<&str> = list(&object["spec"]["cidrs"]).iter().map(text).collect();
        vec![name(object), json!(ranges.join(",")), age(object, now)]
    },
};

/// Upstream gives the age a cell and no column; a client shows as many cells as there are columns.
pub(super) const IP_ADDRESSES: Printer = Printer {
    columns: &[column("Name"), column("ParentRef")],
    cells: |object, _| {
        let parent = &object["spec"]["parentRef"];
        let shown = if parent.is_null() {
            "<none>".to_owned()
        } else {
            let group = text(&parent["group"]);
            let dot = if group.is_empty() { "" } else { "." };
            let mut shown = format!("{}{dot}{group}", text(&parent["resource"])).to_lowercase();
            for field in ["namespace", "name"] {
                if field == "name" || !text(&parent[field]).is_empty() {
                    shown.push('/');
                    shown.push_str(text(&parent[field]));
                }
            }
            shown
        };
        vec![name(object), json!(shown)]
    },
};
