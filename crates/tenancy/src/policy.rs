//! What a tenant's Pod may ask of the shared machines (trap 9). Refusals are sentences for the tenant.

use serde_json::Value;

use crate::reserved::Cidr;

/// What is allowed beyond an ordinary Pod. Everything is off unless the operator of the super cluster says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    pub host_access: HostAccess,
    /// The cluster's networks (Pods, Services, machines): of these tenants' hand-written endpoints may name their own Pods alone.
    /// What nodes say of their addresses and ranges is reserved anyway.
    pub reserved: Vec<Cidr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostAccess {
    /// No host namespaces, host paths, host ports, devices or privileged containers.
    #[default]
    Refused,
    Allowed,
}

/// Capabilities beyond the runtime's default set that a container may add: Pod Security "baseline".
const ADDABLE: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sysctls that are namespaced and harmless: Pod Security "baseline".
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// Volumes that a tenant's Pod may have. Others need objects that are not carried down, or lead to the machine's own network.
const VOLUMES: &[&str] = &[
    "configMap",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Sources of projected volumes that may be: others would ask the super cluster about itself.
const PROJECTED: &[&str] = &["configMap", "downwardAPI", "secret", "serviceAccountToken"];

impl Policy {
    /// What of `spec` (a PodSpec) is refused; empty if nothing.
    pub fn refusals(&self, spec: &Value) -> Vec<String> {
        let mut refusals = Vec::new();
        refuse_volumes(spec, &mut refusals);
        if !list(&spec["resourceClaims"]).is_empty() {
            refusals.push("spec.resourceClaims are not supported in this cluster yet".to_owned());
        }
        if self.host_access == HostAccess::Allowed {
            return refusals;
        }
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if spec[field] == true {
                refusals.push(format!("spec.{field} is not allowed in this cluster"));
            }
        }
        for volume in list(&spec["volumes"]) {
            if volume.get("hostPath").is_some() {
                refusals.push(format!(
                    "volume {} of type hostPath is not allowed in this cluster",
                    volume["name"]
                ));
            }
        }
        for sysctl in list(&spec["securityContext"]["sysctls"]) {
            let name = sysctl["name"].as_str().unwrap_or("");
            if !SYSCTLS.contains(&name) {
                refusals.push(format!("sysctl {name:?} is not allowed in this cluster"));
            }
        }
        refuse_profiles("the Pod", &spec["securityContext"], &mut refusals);
        for field in ["initContainers", "containers", "ephemeralContainers"] {
            for container in list(&spec[field]) {
                self.refuse_container(container, &mut refusals);
            }
        }
        refusals
    }

    /// What of containers that come later (ephemeral ones) is refused.
    pub fn container_refusals(&self, containers: &[Value]) -> Vec<String> {
        let mut refusals = Vec::new();
        if self.host_access == HostAccess::Refused {
            for container in containers {
                self.refuse_container(container, &mut refusals);
            }
        }
        refusals
    }

    fn refuse_container(&self, container: &Value, refusals: &mut Vec<String>) {
        let name = &container["name"];
        let security = &container["securityContext"];
        if security["privileged"] == true {
            refusals.push(format!("privileged container {name} is not allowed in this cluster"));
        }
        for capability in list(&security["capabilities"]["add"]) {
            let capability = capability.as_str().unwrap_or("");
            if !ADDABLE.contains(&capability.trim_start_matches("CAP_")) {
                refusals.push(format!(
                    "capability {capability:?} of container {name} is not allowed in this cluster"
                ));
            }
        }
        if security["procMount"].as_str().is_some_and(|mount| mount != "Default") {
            refusals.push(format!("procMount of container {name} is not allowed in this cluster"));
        }
        refuse_profiles(&format!("container {name}"), security, refusals);
        refuse_hosts(container, refusals);
        for port in list(&container["ports"]) {
            if port["hostPort"].as_u64().unwrap_or(0) != 0 {
                refusals.push(format!(
                    "hostPort {} of container {name} is not allowed in this cluster",
                    port["hostPort"]
                ));
            }
        }
        for mount in list(&container["volumeMounts"]) {
            if mount["mountPropagation"] == "Bidirectional" {
                refusals.push(format!(
                    "mountPropagation Bidirectional of container {name} is not allowed in this cluster"
                ));
            }
        }
    }
}

fn refuse_volumes(spec: &Value, refusals: &mut Vec<String>) {
    for volume in list(&spec["volumes"]) {
        let fields = volume.as_object().into_iter().flatten();
        for (kind, _) in fields.filter(|(field, value)| *field != "name" && !value.is_null()) {
            // Of hosts' paths is told with the rest of what is the host's.
            if kind != "hostPath" && !VOLUMES.contains(&kind.as_str()) {
                refusals.push(format!(
                    "volume {} of type {kind} is not supported in this cluster yet",
                    volume["name"]
                ));
            }
        }
        for source in list(&volume["projected"]["sources"]) {
            let kinds = source.as_object().into_iter().flatten();
            for (kind, _) in kinds.filter(|(kind, value)| !value.is_null() && !PROJECTED.contains(&kind.as_str())) {
                refusals.push(format!(
                    "source {kind} of volume {} is not supported in this cluster yet",
                    volume["name"]
                ));
            }
        }
    }
}

/// Profiles that confine are the runtime's; to do without, or to have another label, is a way to the host.
fn refuse_profiles(whose: &str, security: &Value, refusals: &mut Vec<String>) {
    for field in ["seccompProfile", "appArmorProfile"] {
        if security[field]["type"] == "Unconfined" {
            refusals.push(format!("{field} Unconfined of {whose} is not allowed in this cluster"));
        }
    }
    let selinux = security["seLinuxOptions"].as_object().into_iter().flatten();
    if selinux
        .into_iter()
        .any(|(_, value)| value.as_str().is_some_and(|text| !text.is_empty()))
    {
        refusals.push(format!("seLinuxOptions of {whose} are not allowed in this cluster"));
    }
    if security["windowsOptions"]["hostProcess"] == true {
        refusals.push(format!("hostProcess of {whose} is not allowed in this cluster"));
    }
}

/// Probes and hooks are carried out from the machine's own network: with a host of their own they would reach whatever the
/// machine does.
fn refuse_hosts(container: &Value, refusals: &mut Vec<String>) {
    let (name, lifecycle) = (&container["name"], &container["lifecycle"]);
    let handlers = [
        ("livenessProbe", &container["livenessProbe"]),
        ("readinessProbe", &container["readinessProbe"]),
        ("startupProbe", &container["startupProbe"]),
        ("postStart", &lifecycle["postStart"]),
        ("preStop", &lifecycle["preStop"]),
    ];
    for (what, handler) in handlers {
        let hosts = ["httpGet", "tcpSocket"].map(|how| handler[how]["host"].as_str().unwrap_or(""));
        if hosts.iter().any(|host| !host.is_empty()) {
            refusals.push(format!(
                "{what} of container {name} with a host of its own is not allowed in this cluster"
            ));
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_ordinary_pod_is_allowed() {
        let spec = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80}],
            "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}}]});

        assert_eq!(Policy::default().refusals(&spec), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_carried_down_is_refused_whatever_the_policy() {
        let cases = [
            json!({"volumes": [{"name": "v", "flexVolume": {"driver": "example.org/x"}}]}),
            json!({"volumes": [{"name": "v", "gitRepo": {"repository": "https://example.org/r"}}]}),
            json!({"volumes": [{"name": "v", "nfs": {"server": "10.0.0.1", "path": "/"}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"podCertificate": {"signerName": "s"}}]}}]}),
            json!({"resourceClaims": [{"name": "r"}]}),
        ];
        let open = Policy {
            host_access: HostAccess::Allowed,
            ..Policy::default()
        };

        for spec in cases {
            assert_eq!(open.refusals(&spec).len(), 1, "{spec}");
            assert_eq!(Policy::default().refusals(&spec).len(), 1, "{spec}");
        }
        assert_eq!(open.refusals(&json!({"hostNetwork": true})), Vec::<String>::new());
    }

    #[test]
    fn every_way_onto_the_host_is_refused() {
        let cases = [
            json!({"hostNetwork": true}),
            json!({"hostPID": true}),
            json!({"hostIPC": true}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            json!({"securityContext": {"sysctls": [{"name": "kernel.core_pattern", "value": "|x"}]}}),
            json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            json!({"initContainers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            json!({"ephemeralContainers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
            json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["ALL"]}}}]}),
            json!({"containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}),
            json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}),
            json!({"containers": [{"name": "c", "volumeMounts": [{"mountPropagation": "Bidirectional"}]}]}),
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            json!({"containers": [{"name": "c", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}]}),
            json!({"containers": [{"name": "c", "securityContext": {"seLinuxOptions": {"type": "spc_t"}}}]}),
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "127.0.0.1", "port": 10250}}}]}),
            json!({"containers": [{"name": "c", "readinessProbe": {"tcpSocket": {"host": "10.0.0.1", "port": 22}}}]}),
            json!({"initContainers": [{"name": "c", "lifecycle": {"preStop": {"httpGet": {"host": "169.254.169.254"}}}}]}),
        ];

        for spec in cases {
            assert_eq!(Policy::default().refusals(&spec).len(), 1, "{spec}");
        }
    }
}
