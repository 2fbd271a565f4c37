//! The Node object as this agent wants it. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::container::resources::NodeCapacity;
use crate::machine::{Left, Machine};

/// What is said of kubelet where a version is asked.
pub const KUBELET_VERSION: &str = "v1.36.0";
const PODS_MAX: &str = "110";

/// Below these the node takes no more Pods, and ends some (upstream's `evictionHard`).
const LEAST_MEMORY_BYTES: i64 = 100 << 20;
const LEAST_DISK_PERCENT: i64 = 10;
/// On small disks a tenth is more than anyone needs; large ones are not called full with this much left.
const ENOUGH_DISK_BYTES: i64 = 2 << 30;
const LEAST_INODES: i64 = 1000;
const LEAST_PIDS: i64 = 1000;

pub struct Facts<'a> {
    pub name: &'a str,
    pub address: IpAddr,
    pub kubelet_port: u16,
    pub machine: &'a Machine,
    pub left: Left,
    /// `containerd://1.7`.
    pub runtime_version: &'a str,
    /// Why the runtime is not ready; empty if it is.
    pub runtime_problems: &'a [String],
    pub now: Timestamp,
}

pub fn labels(facts: &Facts) -> Value {
    json!({
        "kubernetes.io/hostname": facts.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": facts.machine.architecture,
    })
}

/// A Node that is not there yet.
pub fn object(facts: &Facts, pod_cidr: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": facts.name, "labels": labels(facts)},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
        "status": status(facts, &Value::Null),
    })
}

/// The status, with times of `current` (the status in the plane) kept where nothing has changed.
pub fn status(facts: &Facts, current: &Value) -> Value {
    let capacity = facts.machine.capacity;
    let resources = json!({
        "cpu": amount(capacity.cpu_milli),
        "memory": format!("{}Ki", capacity.memory_bytes / 1024),
        "ephemeral-storage": format!("{}Ki", capacity.ephemeral_storage_bytes / 1024),
        "pods": PODS_MAX,
    });
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "Hostname", "address": facts.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.kubelet_port}},
        "nodeInfo": {
            "machineID": facts.machine.machine_id,
            "systemUUID": facts.machine.system_uuid,
            "bootID": facts.machine.boot_id,
            "kernelVersion": facts.machine.kernel,
            "osImage": facts.machine.os_image,
            "containerRuntimeVersion": facts.runtime_version,
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": facts.machine.architecture,
        },
        "conditions": conditions(facts, current),
    })
}

/// What the machine has too little of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Short {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

pub fn is_short(left: &Left, capacity: NodeCapacity) -> Short {
    let disk_share = capacity.ephemeral_storage_bytes / 100 * LEAST_DISK_PERCENT;
    Short {
        memory: left.memory_bytes < LEAST_MEMORY_BYTES,
        disk: left.disk_bytes < disk_share.min(ENOUGH_DISK_BYTES) || left.disk_inodes < LEAST_INODES,
        pids: left.pids < LEAST_PIDS,
    }
}

fn amount(milli: i64) -> String {
    if milli % 1000 == 0 {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    }
}

fn conditions(facts: &Facts, current: &Value) -> Vec<Value> {
    let short = is_short(&facts.left, facts.machine.capacity);
    let pressure = |kind: &str, name: &str, is: bool, yes: &str, no: &str| {
        let (status, reason) = if is {
            ("True", format!("KubeletHas{name}"))
        } else {
            ("False", no.to_owned())
        };
        let message = if is {
            format!("kubelet has {yes}")
        } else {
            format!("kubelet has {}", words(no))
        };
        condition(facts, current, kind, status, &reason, &message)
    };
    let ready = if facts.runtime_problems.is_empty() {
        condition(
            facts,
            current,
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        )
    } else {
        let problems = facts.runtime_problems.join(", ");
        condition(facts, current, "Ready", "False", "KubeletNotReady", &problems)
    };
    vec![
        pressure(
            "MemoryPressure",
            "InsufficientMemory",
            short.memory,
            "insufficient memory available",
            "KubeletHasSufficientMemory",
        ),
        pressure(
            "DiskPressure",
            "DiskPressure",
            short.disk,
            "disk pressure",
            "KubeletHasNoDiskPressure",
        ),
        pressure(
            "PIDPressure",
            "InsufficientPID",
            short.pids,
            "insufficient PID available",
            "KubeletHasSufficientPID",
        ),
        ready,
    ]
}

/// Upstream's messages for the good cases.
fn words(reason: &str) -> &'static str {
    match reason {
        "KubeletHasSufficientMemory" => "sufficient memory available",
        "KubeletHasNoDiskPressure" => "no disk pressure",
        _ => "sufficient PID available",
    }
}

fn condition(facts: &Facts, current: &Value, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let now = seconds(facts.now);
    let since = current["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind && condition["status"] == status)
        .and_then(|condition| condition["lastTransitionTime"].as_str())
        .map_or_else(|| now.clone(), str::to_owned);
    json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": since})
}

pub fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Whether the plane should hear of it before the next regular report: heartbeats alone are no news.
pub fn is_news(current: &Value, wanted: &Value) -> bool {
    let essence = |status: &Value| {
        let mut status = status.clone();
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            if let Some(condition) = condition.as_object_mut() {
                condition.remove("lastHeartbeatTime");
                condition.remove("lastTransitionTime");
            }
        }
        status
    };
    let (current, wanted) = (essence(current), essence(wanted));
    wanted
        .as_object()
        .into_iter()
        .flatten()
        .any(|(key, value)| match key.as_str() {
            "conditions" => value.as_array().into_iter().flatten().any(|condition| {
                let list = current["conditions"].as_array();
                !list.into_iter().flatten().any(|other| other == condition)
            }),
            _ => current[key] != *value,
        })
}

/// A strategic merge patch; addresses that are gone must go.
pub fn patch(wanted: &Value) -> Value {
    let mut status: Map<String, Value> = wanted.as_object().cloned().unwrap_or_default();
    if let Some(Value::Array(list)) = status.get_mut("addresses") {
        list.push(json!({"$patch": "replace"}));
    }
    json!({ "status": status })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::resources::NodeCapacity;

    fn machine() -> Machine {
        Machine {
            capacity: NodeCapacity {
                cpu_milli: 2000,
                memory_bytes: 4 << 30,
                ephemeral_storage_bytes: 10 << 30,
            },
            kernel: "6.1".into(),
            os_image: "Debian".into(),
            architecture: "amd64",
            machine_id: String::new(),
            boot_id: String::new(),
            system_uuid: String::new(),
        }
    }

    fn status_with(memory_left: i64, problems: &[String], current: &Value, now: i64) -> Value {
        let machine = machine();
        status(
            &Facts {
                name: "n1",
                address: [192, 0, 2, 1].into(),
                kubelet_port: 10250,
                machine: &machine,
                left: Left {
                    memory_bytes: memory_left,
                    disk_bytes: 5 << 30,
                    disk_inodes: i64::MAX,
                    pids: 30_000,
                },
                runtime_version: "mangrove://0.1",
                runtime_problems: problems,
                now: Timestamp::from_second(now).unwrap(),
            },
            current,
        )
    }

    #[test]
    fn a_well_node_is_ready_and_says_what_it_has() {
        let status = status_with(1 << 30, &[], &Value::Null, 60);

        assert_eq!(
            status["capacity"],
            json!({"cpu": "2", "memory": "4194304Ki", "ephemeral-storage": "10485760Ki", "pods": "110"})
        );
        let statuses: Vec<(&str, &str)> = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
            .collect();
        assert_eq!(
            statuses,
            [
                ("MemoryPressure", "False"),
                ("DiskPressure", "False"),
                ("PIDPressure", "False"),
                ("Ready", "True")
            ]
        );
        assert_eq!(
            status["conditions"][0]["message"],
            "kubelet has sufficient memory available"
        );
    }

    #[test]
    fn only_what_changes_is_news_and_transition_times_stay() {
        let first = status_with(1 << 30, &[], &Value::Null, 60);
        let later = status_with(1 << 30, &[], &first, 120);
        let pressed = status_with(1 << 20, &["RuntimeReady: away".to_owned()], &first, 180);

        assert!(is_news(&Value::Null, &first));
        assert!(!is_news(&first, &later));
        assert_eq!(later["conditions"][3]["lastTransitionTime"], "1970-01-01T00:01:00Z");
        assert_eq!(later["conditions"][3]["lastHeartbeatTime"], "1970-01-01T00:02:00Z");
        assert!(is_news(&first, &pressed));
        assert_eq!(pressed["conditions"][0]["status"], "True");
        assert_eq!(pressed["conditions"][3]["message"], "RuntimeReady: away");
    }
}
