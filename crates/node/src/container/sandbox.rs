//! A Pod as a sandbox for CRI.

use std::collections::HashMap;
use std::path::Path;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;

use super::dns::{self, ClusterDns};
use super::quantity;
use crate::pod::observed::label;
use crate::pod::references::containers;

/// `<namespace>_<name>_<uid>`, as log collectors expect it.
pub fn log_directory_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}_{}_{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        metadata.uid.as_deref().unwrap_or_default(),
    )
}

pub fn of(pod: &Pod, attempt: u32, node_name: &str, dns: &ClusterDns, logs: &Path) -> cri::PodSandboxConfig {
    let metadata = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (name, namespace, uid) = (text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
    let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));

    let mut labels: HashMap<String, String> = metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.insert(label::POD_NAME.to_owned(), name.clone());
    labels.insert(label::POD_NAMESPACE.to_owned(), namespace.clone());
    labels.insert(label::POD_UID.to_owned(), uid.clone());
    labels.insert(label::NODE.to_owned(), node_name.to_owned());

    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name,
            uid,
            namespace,
            attempt,
        }),
        hostname: if on_host {
            String::new()
        } else {
            dns::kernel_hostname(pod, &dns.domain)
        },
        log_directory: logs.join(log_directory_name(pod)).to_string_lossy().into_owned(),
        dns_config: Some(dns::of(pod, dns)),
        port_mappings: if on_host { Vec::new() } else { port_mappings(pod) },
        labels,
        annotations: metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux(pod)),
        windows: None,
    }
}

/// Ports of the node that lead to the Pod.
pub fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    containers(pod)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(cri::PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => cri::Protocol::Udp,
                    Some("SCTP") => cri::Protocol::Sctp,
                    _ => cri::Protocol::Tcp,
                } as i32,
                container_port: port.container_port,
                host_port: port.host_port.filter(|port| *port > 0)?,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// Which namespaces the Pod's containers share with the node and among themselves.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = pod.spec.as_ref();
    let node_if = |asked: Option<bool>, otherwise: cri::NamespaceMode| {
        if asked == Some(true) {
            cri::NamespaceMode::Node as i32
        } else {
            otherwise as i32
        }
    };
    let shared = spec.is_some_and(|spec| spec.share_process_namespace == Some(true));
    cri::NamespaceOption {
        network: node_if(spec.and_then(|spec| spec.host_network), cri::NamespaceMode::Pod),
        ipc: node_if(spec.and_then(|spec| spec.host_ipc), cri::NamespaceMode::Pod),
        pid: node_if(
            spec.and_then(|spec| spec.host_pid),
            if shared {
                cri::NamespaceMode::Pod
            } else {
                cri::NamespaceMode::Container
            },
        ),
        target_id: String::new(),
        userns_options: None,
    }
}

fn linux(pod: &Pod) -> cri::LinuxPodSandboxConfig {
    let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let mut context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        privileged: containers(pod).any(|container| {
            container
                .security_context
                .as_ref()
                .is_some_and(|security| security.privileged == Some(true))
        }),
        seccomp: Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        }),
        ..Default::default()
    };
    let mut sysctls = HashMap::new();
    if let Some(security) = security {
        context.run_as_user = security.run_as_user.map(|value| cri::Int64Value { value });
        // A group means nothing to a runtime without a user.
        context.run_as_group = security
            .run_as_group
            .filter(|_| security.run_as_user.is_some())
            .map(|value| cri::Int64Value { value });
        context.supplemental_groups = security
            .fs_group
            .into_iter()
            .chain(security.supplemental_groups.iter().flatten().copied())
            .collect();
        context.supplemental_groups_policy = groups_policy(security.supplemental_groups_policy.as_deref());
        sysctls = security
            .sysctls
            .iter()
            .flatten()
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect();
    }
    let overhead = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.overhead.as_ref())
        .map(|overhead| {
            let amount = |name: &str, read: fn(&str) -> Option<i64>| overhead.get(name).and_then(|text| read(&text.0));
            cri::LinuxContainerResources {
                cpu_shares: amount("cpu", quantity::milli).map_or(0, |milli| milli.saturating_mul(1024) / 1000),
                memory_limit_in_bytes: amount("memory", quantity::whole).unwrap_or(0),
                ..Default::default()
            }
        });
    cri::LinuxPodSandboxConfig {
        security_context: Some(context),
        sysctls,
        overhead,
        resources: Some(super::resources::of_pod(pod)),
        ..Default::default()
    }
}

pub fn groups_policy(text: Option<&str>) -> i32 {
    match text {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict as i32,
        _ => cri::SupplementalGroupsPolicy::Merge as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sandbox_carries_the_standard_labels_and_what_the_pod_asks_of_the_host() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "web", "uid": "u", "labels": {"app": "x"}},
            "spec": {"hostPID": true, "runtimeClassName": "vm",
                "securityContext": {"fsGroup": 7, "supplementalGroups": [8], "sysctls": [{"name": "a.b", "value": "1"}]},
                "containers": [{"name": "m", "image": "x", "securityContext": {"privileged": true},
                    "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]},
        }))
        .unwrap();

        let config = of(&pod, 2, "n1", &ClusterDns::default(), Path::new("/logs"));

        assert_eq!(config.metadata.as_ref().unwrap().attempt, 2);
        assert_eq!(config.log_directory, "/logs/web_p_u");
        assert_eq!(config.hostname, "p");
        assert_eq!(config.labels[label::POD_UID], "u");
        assert_eq!(config.labels["app"], "x");
        assert_eq!(config.port_mappings.len(), 1);
        let linux = config.linux.unwrap();
        assert_eq!(linux.sysctls["a.b"], "1");
        let context = linux.security_context.unwrap();
        assert!(context.privileged);
        assert_eq!(context.supplemental_groups, [7, 8]);
        let namespaces = context.namespace_options.unwrap();
        assert_eq!(namespaces.pid, cri::NamespaceMode::Node as i32);
        assert_eq!(namespaces.network, cri::NamespaceMode::Pod as i32);
    }
}
