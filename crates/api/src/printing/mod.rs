//! What `kubectl get` shows: objects as `meta.k8s.io/v1 Table`, computed by the server.
//!
//! Columns and their order are upstream's. Columns of priority 1 are those of `-o wide`.

mod age;
mod devices;
mod jsonpath;
mod network;
mod plane;
mod pod;
mod policy;
mod storage;
mod system;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::Resource;

pub use age::{human_duration, since};
pub use jsonpath::JsonPath;

/// What a row carries of its object (`includeObject`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads the query parameter; `Metadata` is what upstream takes where it is absent.
    pub fn parse(parameter: &str) -> Option<Include> {
        match parameter {
            "None" => Some(Include::None),
            "" | "Metadata" => Some(Include::Metadata),
            "Object" => Some(Include::Object),
            _ => None,
        }
    }
}

/// A built-in kind's columns and how its cells are made.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    kind: &'static str,
    priority: u8,
}

const fn column(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        priority: 0,
    }
}

const fn number(name: &'static str) -> Column {
    Column {
        name,
        kind: "integer",
        priority: 0,
    }
}

const fn boolean(name: &'static str) -> Column {
    Column {
        name,
        kind: "boolean",
        priority: 0,
    }
}

const fn wide(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        priority: 1,
    }
}

/// The columns of one resource.
pub struct Columns(Source);

enum Source {
    BuiltIn(Printer),
    Custom(Vec<CustomColumn>),
}

struct CustomColumn {
    definition: Value,
    kind: String,
    path: Option<JsonPath>,
}

impl Columns {
    /// Those of a built-in kind; name and age where upstream has no others.
    pub fn of(resource: &Resource) -> Columns {
        Columns(Source::BuiltIn(printer(resource)))
    }

    /// Those of one version of a custom resource definition (an entry of `spec.versions`).
    pub fn custom(version: &Value) -> Columns {
        let given = version["additionalPrinterColumns"]
            .as_array()
            .filter(|columns| !columns.is_empty());
        let default = vec![json!({
            "name": "Age",
            "type": "date",
            "jsonPath": ".metadata.creationTimestamp",
            "description": "CreationTimestamp is a timestamp representing the server time when this object was created.",
        })];
        let columns = given.unwrap_or(&default).iter().map(|column| {
            let path = column["jsonPath"].as_str().unwrap_or("");
            let description = match column["description"].as_str() {
                Some(description) if !description.is_empty() => description.to_owned(),
                _ => format!("Custom resource definition column (in JSONPath format): {path}"),
            };
            CustomColumn {
                definition: json!({
                    "name": column["name"],
                    "type": column["type"],
                    "format": column["format"].as_str().unwrap_or(""),
                    "description": description,
                    "priority": column["priority"].as_i64().unwrap_or(0),
                }),
                kind: column["type"].as_str().unwrap_or("").to_owned(),
                path: JsonPath::parse(path),
            }
        });
        Columns(Source::Custom(columns.collect()))
    }

    /// `columnDefinitions` of a Table.
    pub fn definitions(&self) -> Value {
        let built_in = |column: &Column| {
            let format = if column.name == "Name" { "name" } else { "" };
            json!({
                "name": column.name,
                "type": column.kind,
                "format": format,
                "description": "",
                "priority": column.priority,
            })
        };
        match &self.0 {
            Source::BuiltIn(printer) => printer.columns.iter().map(built_in).collect(),
            Source::Custom(columns) => std::iter::once(built_in(&column("Name")))
                .chain(columns.iter().map(|column| column.definition.clone()))
                .collect(),
        }
    }

    /// One row of a Table.
    pub fn row(&self, object: &Value, now: Timestamp, include: Include) -> Value {
        let cells = match &self.0 {
            Source::BuiltIn(printer) => (printer.cells)(object, now),
            Source::Custom(columns) => {
                let mut cells = vec![name(object)];
                cells.extend(columns.iter().map(|column| column.cell(object, now)));
                cells
            }
        };
        let mut row = json!({"cells": cells});
        row["object"] = match include {
            Include::None => Value::Null,
            Include::Metadata => partial_metadata(object),
            Include::Object => object.clone(),
        };
        if let Some(condition) = pod::completion(object).filter(|_| matches!(self.0, Source::BuiltIn(_))) {
            row["conditions"] = json!([condition]);
        }
        row
    }

    /// A whole Table. The caller sets `metadata` (resource version, continue token) of lists.
    pub fn table(&self, objects: &[&Value], now: Timestamp, include: Include) -> Value {
        let rows: Vec<Value> = objects.iter().map(|object| self.row(object, now, include)).collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {},
            "columnDefinitions": self.definitions(),
            "rows": rows,
        })
    }
}

impl CustomColumn {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(found) = self.path.as_ref().and_then(|path| path.first(object)) else {
            return Value::Null;
        };
        match (self.kind.as_str(), found) {
            (_, Value::Null) => Value::Null,
            ("string", Value::String(_)) => found.clone(),
            ("string", other) => Value::String(other.to_string()),
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(whole) => json!(whole),
                None => json!(number.as_f64().unwrap_or(0.0) as i64),
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(time) => Value::String(since(time, now)),
                Err(_) => Value::String("<invalid>".to_owned()),
            },
            _ => Value::Null,
        }
    }
}

/// A Table of objects of a built-in kind.
pub fn table(resource: &Resource, objects: &[&Value], now: Timestamp, include: Include) -> Value {
    Columns::of(resource).table(objects, now, include)
}

/// An object's metadata alone, as `as=PartialObjectMetadata` asks for.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn printer(resource: &Resource) -> Printer {
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => pod::PODS,
        ("", "podtemplates") => workload::POD_TEMPLATES,
        ("", "replicationcontrollers") => workload::REPLICATION_CONTROLLERS,
        ("", "services") => network::SERVICES,
        ("", "endpoints") => network::ENDPOINTS,
        ("", "nodes") => system::NODES,
        ("", "namespaces") => system::NAMESPACES,
        ("", "events") | ("events.k8s.io", "events") => system::EVENTS,
        ("", "configmaps") => system::CONFIG_MAPS,
        ("", "secrets") => system::SECRETS,
        ("", "serviceaccounts") => system::NAME_AND_AGE,
        ("", "resourcequotas") => system::RESOURCE_QUOTAS,
        ("", "persistentvolumes") => storage::VOLUMES,
        ("", "persistentvolumeclaims") => storage::CLAIMS,
        ("apps", "deployments") => workload::DEPLOYMENTS,
        ("apps", "replicasets") => workload::REPLICA_SETS,
        ("apps", "statefulsets") => workload::STATEFUL_SETS,
        ("apps", "daemonsets") => workload::DAEMON_SETS,
        ("apps", "controllerrevisions") => workload::CONTROLLER_REVISIONS,
        ("batch", "jobs") => workload::JOBS,
        ("batch", "cronjobs") => workload::CRON_JOBS,
        ("autoscaling", "horizontalpodautoscalers") => workload::AUTOSCALERS,
        ("policy", "poddisruptionbudgets") => workload::DISRUPTION_BUDGETS,
        ("networking.k8s.io", "ingresses") => network::INGRESSES,
        ("networking.k8s.io", "ingressclasses") => network::INGRESS_CLASSES,
        ("networking.k8s.io", "networkpolicies") => network::NETWORK_POLICIES,
        ("discovery.k8s.io", "endpointslices") => network::ENDPOINT_SLICES,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => system::BINDINGS,
        ("coordination.k8s.io", "leases") => system::LEASES,
        ("scheduling.k8s.io", "priorityclasses") => system::PRIORITY_CLASSES,
        ("certificates.k8s.io", "certificatesigningrequests") => system::SIGNING_REQUESTS,
        ("node.k8s.io", "runtimeclasses") => system::RUNTIME_CLASSES,
        ("storage.k8s.io", "storageclasses") => storage::CLASSES,
        ("storage.k8s.io", "csinodes") => storage::CSI_NODES,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => system::FLOW_SCHEMAS,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => system::PRIORITY_LEVELS,
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => {
            system::WEBHOOKS
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => policy::VALIDATING_POLICIES,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => policy::MUTATING_POLICIES,
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings") => {
            policy::BINDINGS
        }
        ("apiregistration.k8s.io", "apiservices") => plane::API_SERVICES,
        ("internal.apiserver.k8s.io", "storageversions") => plane::STORAGE_VERSIONS,
        ("storagemigration.k8s.io", "storageversionmigrations") => plane::MIGRATIONS,
        ("certificates.k8s.io", "clustertrustbundles") => plane::TRUST_BUNDLES,
        ("certificates.k8s.io", "podcertificaterequests") => plane::POD_CERTIFICATES,
        ("coordination.k8s.io", "leasecandidates") => plane::LEASE_CANDIDATES,
        ("networking.k8s.io", "servicecidrs") => plane::SERVICE_CIDRS,
        ("networking.k8s.io", "ipaddresses") => plane::IP_ADDRESSES,
        ("resource.k8s.io", "resourceclaims") => devices::CLAIMS,
        ("resource.k8s.io", "resourceslices") => devices::SLICES,
        ("resource.k8s.io", "devicetaintrules") => devices::TAINTS,
        ("storage.k8s.io", "csidrivers") => storage::CSI_DRIVERS,
        ("storage.k8s.io", "volumeattachments") => storage::ATTACHMENTS,
        ("storage.k8s.io", "volumeattributesclasses") => storage::ATTRIBUTES_CLASSES,
        ("", "limitranges")
        | ("storage.k8s.io", "csistoragecapacities")
        | ("rbac.authorization.k8s.io", "roles" | "clusterroles")
        | ("apiextensions.k8s.io", "customresourcedefinitions") => system::NAME_AND_CREATED_AT,
        _ => system::NAME_AND_AGE,
    }
}

// What cells are made of.

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn or<'a>(text: &'a str, absent: &'a str) -> &'a str {
    if text.is_empty() { absent } else { text }
}

fn name(object: &Value) -> Value {
    json!(text(&object["metadata"]["name"]))
}

fn age(object: &Value, now: Timestamp) -> Value {
    json!(since_text(&object["metadata"]["creationTimestamp"], now))
}

/// The time since a timestamp of JSON.
fn since_text(timestamp: &Value, now: Timestamp) -> String {
    match text(timestamp).parse::<Timestamp>() {
        Ok(time) => since(time, now),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// `a=1,b=2`, sorted; `<none>` if there are none.
fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A label selector in its text form.
fn selector(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", text(value))))
        .collect();
    for expression in list(&selector["matchExpressions"]) {
        let key = text(&expression["key"]);
        let mut values: Vec<&str> = list(&expression["values"]).iter().map(text).collect();
        values.sort_unstable();
        let shown = match text(&expression["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), shown));
    }
    parts.sort();
    let shown: Vec<String> = parts.into_iter().map(|(_, shown)| shown).collect();
    or(&shown.join(","), "<none>").to_owned()
}

/// The names and the images of a template's containers.
fn containers(template: &Value) -> (String, String) {
    let all = |field: &str| {
        let items: Vec<&str> = list(&template["spec"]["containers"])
            .iter()
            .map(|container| text(&container[field]))
            .collect();
        items.join(",")
    };
    (all("name"), all("image"))
}

/// The first few of a list and how many there are more.
fn with_more(shown: &[String], total: usize, absent: &str) -> String {
    let joined = shown.join(",");
    if total > shown.len() {
        format!("{joined} + {} more...", total - shown.len())
    } else {
        or(&joined, absent).to_owned()
    }
}

#[cfg(test)]
mod tests;
