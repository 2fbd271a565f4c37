//! Requests and limits as the runtime wants them: shares, quota, bytes and the score for the out-of-memory killer.

use std::collections::BTreeMap;

use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity;
use crate::pod::plan::is_sidecar;

/// The kernel's least and default shares, and the period that kubelet uses (100 ms).
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const QUOTA_PERIOD_US: i64 = 100_000;
/// Kernel refuses quotas below 1 ms.
const MIN_QUOTA_US: i64 = 1_000;

/// What the node has, as far as scores and defaults need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCapacity {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }

    /// As upstream's `ComputePodQOS`: over cpu and memory of all containers, zero amounts don't count.
    pub fn of(pod: &Pod) -> QosClass {
        match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
            Some("Guaranteed") => return QosClass::Guaranteed,
            Some("Burstable") => return QosClass::Burstable,
            Some("BestEffort") => return QosClass::BestEffort,
            _ => {}
        }
        let Some(spec) = &pod.spec else {
            return QosClass::BestEffort;
        };
        let mut anything = false;
        let mut guaranteed = true;
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let empty = ResourceRequirements::default();
            let resources = container.resources.as_ref().unwrap_or(&empty);
            for name in ["cpu", "memory"] {
                let request = amount(&resources.requests, name).filter(|value| *value > 0);
                let limit = amount(&resources.limits, name).filter(|value| *value > 0);
                anything |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && request.unwrap_or(limit.unwrap_or(0)) == limit.unwrap_or(0);
            }
        }
        match (anything, guaranteed) {
            (false, _) => QosClass::BestEffort,
            (true, true) => QosClass::Guaranteed,
            (true, false) => QosClass::Burstable,
        }
    }
}

fn amount(list: &Option<BTreeMap<String, Quantity>>, name: &str) -> Option<i64> {
    quantity::milli(&list.as_ref()?.get(name)?.0)
}

/// A container's resources for CRI.
pub fn linux(pod: &Pod, container: &Container, capacity: NodeCapacity) -> LinuxContainerResources {
    let empty = ResourceRequirements::default();
    let resources = container.resources.as_ref().unwrap_or(&empty);
    let cpu_limit = amount(&resources.limits, "cpu").unwrap_or(0);
    let cpu_request = amount(&resources.requests, "cpu").unwrap_or(cpu_limit);
    let memory_limit = limit_bytes(resources, "memory").unwrap_or(0);

    let mut linux = LinuxContainerResources {
        cpu_shares: (cpu_request.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score(pod, container, capacity),
        ..Default::default()
    };
    if cpu_limit > 0 {
        linux.cpu_period = QUOTA_PERIOD_US;
        linux.cpu_quota = (cpu_limit.saturating_mul(QUOTA_PERIOD_US) / 1000).max(MIN_QUOTA_US);
    }
    linux
}

/// A Pod's resources as a whole, for the group that holds its containers': its share of the processor beside other Pods, and
/// limits if all of its containers have them (upstream's `ResourceConfigForPod`).
pub fn of_pod(pod: &Pod) -> LinuxContainerResources {
    let empty = Default::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let (sidecars, init): (Vec<&Container>, Vec<&Container>) =
        spec.init_containers.iter().flatten().partition(|init| is_sidecar(init));
    let beside: Vec<&Container> = spec.containers.iter().chain(sidecars).collect();
    let overhead = |name: &str| amount(&spec.overhead, name).unwrap_or(0);
    // What runs before the others has what they will have, or its own if that is more.
    let whole = |of: &dyn Fn(&Container) -> Option<i64>| -> Option<i64> {
        let sum = beside
            .iter()
            .try_fold(0i64, |sum, container| Some(sum.saturating_add(of(container)?)))?;
        init.iter()
            .try_fold(sum, |most, container| Some(most.max(of(container)?)))
    };
    let resource = |container: &Container, name: &str, limit: bool| -> Option<i64> {
        let resources = container.resources.as_ref()?;
        let of_limit = || amount(&resources.limits, name).filter(|value| *value > 0);
        match limit {
            true => of_limit(),
            false => amount(&resources.requests, name).or_else(of_limit),
        }
    };
    let cpu = whole(&|container| Some(resource(container, "cpu", false).unwrap_or(0))).unwrap_or(0);
    let mut linux = LinuxContainerResources {
        cpu_shares: (cpu.saturating_add(overhead("cpu")).saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES),
        ..Default::default()
    };
    if let Some(limit) = whole(&|container| resource(container, "cpu", true)) {
        let limit = limit.saturating_add(overhead("cpu"));
        linux.cpu_period = QUOTA_PERIOD_US;
        linux.cpu_quota = (limit.saturating_mul(QUOTA_PERIOD_US) / 1000).max(MIN_QUOTA_US);
    }
    if let Some(limit) = whole(&|container| resource(container, "memory", true)) {
        // Amounts are in thousandths.
        linux.memory_limit_in_bytes = limit.saturating_add(overhead("memory")) / 1000;
    }
    linux
}

fn limit_bytes(resources: &ResourceRequirements, name: &str) -> Option<i64> {
    quantity::whole(&resources.limits.as_ref()?.get(name)?.0)
}

/// Upstream's `GetContainerOOMScoreAdjust`: guaranteed Pods last, best effort first, the rest by share of memory.
fn oom_score(pod: &Pod, container: &Container, capacity: NodeCapacity) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    // `system-node-critical` and above.
    if priority >= 2_000_001_000 {
        return GUARANTEED;
    }
    match QosClass::of(pod) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let request = container
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref()?.get("memory"))
                .and_then(|text| quantity::whole(&text.0))
                .unwrap_or(0);
            let share = request.saturating_mul(1000) / capacity.memory_bytes.max(1);
            let score = 1000 - share;
            if score < 1000 + GUARANTEED {
                1000 + GUARANTEED
            } else if score == BEST_EFFORT {
                BEST_EFFORT - 1
            } else {
                score
            }
        }
    }
}

/// `resourceFieldRef`: a container's amount in units of `divisor`, with the node's as default of limits.
pub fn field(container: &Container, resource: &str, divisor: Option<&str>, capacity: NodeCapacity) -> Option<i64> {
    let empty = ResourceRequirements::default();
    let resources = container.resources.as_ref().unwrap_or(&empty);
    let (kind, name) = resource.split_once('.')?;
    let list = match kind {
        "limits" => &resources.limits,
        "requests" => &resources.requests,
        _ => return None,
    };
    let default = match (kind, name) {
        ("limits", "cpu") => capacity.cpu_milli,
        ("limits", "memory") => capacity.memory_bytes,
        ("limits", "ephemeral-storage") => capacity.ephemeral_storage_bytes,
        _ => 0,
    };
    let divisor = divisor.filter(|text| !text.is_empty() && *text != "0").unwrap_or("1");
    let given = list.as_ref().and_then(|list| list.get(name));
    if name == "cpu" {
        let value = given.map_or(Some(default), |text| quantity::milli(&text.0))?;
        let divisor = quantity::milli(divisor).filter(|value| *value > 0)?;
        Some(value / divisor + i64::from(value % divisor != 0))
    } else {
        let value = given.map_or(Some(default), |text| quantity::whole(&text.0))?;
        let divisor = quantity::whole(divisor).filter(|value| *value > 0)?;
        Some(value / divisor + i64::from(value % divisor != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CAPACITY: NodeCapacity = NodeCapacity {
        cpu_milli: 4000,
        memory_bytes: 8 << 30,
        ephemeral_storage_bytes: 100 << 30,
    };

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [
            {"name": "main", "image": "busybox", "resources": resources}
        ]}}))
        .unwrap()
    }

    fn container(pod: &Pod) -> &Container {
        &pod.spec.as_ref().unwrap().containers[0]
    }

    #[test]
    fn quality_of_service_is_upstreams() {
        for (resources, expected) in [
            (json!({}), QosClass::BestEffort),
            (json!({"requests": {"cpu": "100m"}}), QosClass::Burstable),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), QosClass::Guaranteed),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                QosClass::Guaranteed,
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                QosClass::Burstable,
            ),
            (json!({"requests": {"cpu": "0"}}), QosClass::BestEffort),
        ] {
            assert_eq!(QosClass::of(&pod(resources.clone())), expected, "{resources}");
        }
    }

    #[test]
    fn limits_become_quota_shares_bytes_and_score() {
        let pod =
            pod(json!({"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "2Gi"}}));

        let linux = linux(&pod, container(&pod), CAPACITY);

        assert_eq!(linux.cpu_shares, 102);
        assert_eq!((linux.cpu_quota, linux.cpu_period), (20_000, 100_000));
        assert_eq!(linux.memory_limit_in_bytes, 64 << 20);
        assert_eq!(linux.oom_score_adj, 750);
    }

    #[test]
    fn a_resource_field_has_the_nodes_limit_as_default() {
        let pod = pod(json!({"limits": {"cpu": "1500m"}}));
        let container = container(&pod);

        assert_eq!(field(container, "limits.cpu", None, CAPACITY), Some(2));
        assert_eq!(field(container, "limits.cpu", Some("1m"), CAPACITY), Some(1500));
        assert_eq!(field(container, "limits.memory", Some("1Mi"), CAPACITY), Some(8192));
        assert_eq!(field(container, "requests.memory", None, CAPACITY), Some(0));
        assert_eq!(field(container, "nonsense", None, CAPACITY), None);
    }

    #[test]
    fn a_pod_has_what_its_containers_have_together_and_limits_only_if_all_have_them() {
        let pod = |main: &str, limits: bool| -> Pod {
            let limit = |cpu: &str| {
                if limits {
                    serde_json::json!({"cpu": cpu, "memory": "64Mi"})
                } else {
                    serde_json::json!({})
                }
            };
            serde_json::from_value(serde_json::json!({"spec": {
                "initContainers": [
                    {"name": "i", "image": "x", "resources": {"requests": {"cpu": "100m"}, "limits": limit("3")}},
                    {"name": "s", "image": "x", "restartPolicy": "Always",
                        "resources": {"requests": {"cpu": "500m"}, "limits": limit("1")}}],
                "containers": [{"name": "m", "image": "x", "resources": {"requests": {"cpu": main}, "limits": limit("1")}}]}}))
            .unwrap()
        };

        let limited = of_pod(&pod("500m", true));
        assert_eq!((limited.cpu_shares, limited.cpu_quota), (1024, 300_000));
        assert_eq!(limited.memory_limit_in_bytes, 128 << 20);

        let free = of_pod(&pod("500m", false));
        assert_eq!(
            (free.cpu_shares, free.cpu_quota, free.memory_limit_in_bytes),
            (1024, 0, 0)
        );
        assert_eq!(of_pod(&Pod::default()).cpu_shares, 2);
    }
}
