//! What a tenant's Pod may ask of the shared machines (trap 9). Refusals are sentences for the tenant.

use serde_json::Value;

/// What is allowed beyond an ordinary Pod. Everything is off unless the operator of the super cluster says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    pub host_access: HostAccess,
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

impl Policy {
    /// What of `spec` (a PodSpec) is refused; empty if nothing.
    pub fn refusals(&self, spec: &Value) -> Vec<String> {
        if self.host_access == HostAccess::Allowed {
            return Vec::new();
        }
        let mut refusals = Vec::new();
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
        for field in ["initContainers", "containers", "ephemeralContainers"] {
            for container in list(&spec[field]) {
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
        ];

        for spec in cases {
            assert_eq!(Policy::default().refusals(&spec).len(), 1, "{spec}");
        }
    }
}
