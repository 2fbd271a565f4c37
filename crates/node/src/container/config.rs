//! A container of a Pod as CRI wants it.

use std::collections::{BTreeMap, HashMap};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};

use super::env::expand;
use super::resources::{self, NodeCapacity};
use super::sandbox::{groups_policy, namespaces};
use crate::pod::observed::label;
use crate::pod::plan;

/// All that a container's configuration is made of.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub backoff_seconds: u64,
    /// The image as the runtime knows it after a pull.
    pub image_ref: &'a str,
    pub env: &'a [(String, String)],
    pub mounts: Vec<cri::Mount>,
    pub capacity: NodeCapacity,
    pub node_name: &'a str,
    /// Where `Localhost` seccomp profiles lie.
    pub seccomp_root: &'a str,
}

/// Whom an image runs as if nobody says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    UserIsRoot { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageIsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    ImageUserUnknown {
        user: String,
        pod: String,
        container: String,
    },
}

/// Upstream's lists (`ConvertToRuntimeMaskedPaths`).
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `<container>/<attempt>.log` under the Pod's log directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

pub fn message_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/dev/termination-log")
}

pub fn of(inputs: Inputs) -> cri::ContainerConfig {
    let (pod, container) = (inputs.pod, inputs.container);
    let scope: BTreeMap<String, String> = inputs.env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, &scope)).collect()
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();

    let labels = HashMap::from([
        (label::POD_NAME.to_owned(), text(&pod.metadata.name)),
        (label::POD_NAMESPACE.to_owned(), text(&pod.metadata.namespace)),
        (label::POD_UID.to_owned(), text(&pod.metadata.uid)),
        (label::CONTAINER_NAME.to_owned(), container.name.clone()),
        (label::NODE.to_owned(), inputs.node_name.to_owned()),
    ]);
    let annotations = HashMap::from([
        (label::HASH.to_owned(), plan::hash(container)),
        (label::RESTART_COUNT.to_owned(), inputs.attempt.to_string()),
        (label::BACKOFF_SECONDS.to_owned(), inputs.backoff_seconds.to_string()),
        (label::MESSAGE_PATH.to_owned(), message_path(container).to_owned()),
        (
            label::MESSAGE_POLICY.to_owned(),
            container
                .termination_message_policy
                .clone()
                .unwrap_or_else(|| "File".to_owned()),
        ),
    ]);
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: container.name.clone(),
            attempt: inputs.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: inputs.image_ref.to_owned(),
            user_specified_image: text(&container.image),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: text(&container.working_dir),
        envs: inputs
            .env
            .iter()
            .map(|(key, value)| cri::KeyValue {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        mounts: inputs.mounts,
        labels,
        annotations,
        log_path: log_path(&container.name, inputs.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::linux(pod, container, inputs.capacity)),
            security_context: Some(security(pod, container, inputs.seccomp_root)),
        }),
        ..Default::default()
    }
}

/// A container's word goes before the Pod's.
fn security(pod: &Pod, container: &Container, seccomp_root: &str) -> cri::LinuxContainerSecurityContext {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let privileged = own.privileged == Some(true);
    let user = own.run_as_user.or(of_pod.and_then(|pod| pod.run_as_user));
    let group = own.run_as_group.or(of_pod.and_then(|pod| pod.run_as_group));
    let seccomp = own
        .seccomp_profile
        .as_ref()
        .or(of_pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    let apparmor = own
        .app_armor_profile
        .as_ref()
        .or(of_pod.and_then(|pod| pod.app_armor_profile.as_ref()));
    let selinux = own
        .se_linux_options
        .as_ref()
        .or(of_pod.and_then(|pod| pod.se_linux_options.as_ref()));
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| -> Vec<String> {
        if unmasked || privileged {
            Vec::new()
        } else {
            list.iter().map(|path| (*path).to_owned()).collect()
        }
    };
    cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| cri::Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux.map(|options| cri::SeLinuxOption {
            user: options.user.clone().unwrap_or_default(),
            role: options.role.clone().unwrap_or_default(),
            r#type: options.type_.clone().unwrap_or_default(),
            level: options.level.clone().unwrap_or_default(),
        }),
        run_as_user: user.map(|value| cri::Int64Value { value }),
        run_as_group: group.map(|value| cri::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: of_pod
            .into_iter()
            .flat_map(|pod| {
                pod.fs_group
                    .into_iter()
                    .chain(pod.supplemental_groups.iter().flatten().copied())
            })
            .collect(),
        supplemental_groups_policy: groups_policy(of_pod.and_then(|pod| pod.supplemental_groups_policy.as_deref())),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(profile(
            seccomp.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())),
            seccomp_root,
            privileged,
        )),
        apparmor: apparmor.map(|profile_of| {
            profile(
                Some((profile_of.type_.as_str(), profile_of.localhost_profile.as_deref())),
                "",
                false,
            )
        }),
        ..Default::default()
    }
}

fn profile(given: Option<(&str, Option<&str>)>, root: &str, privileged: bool) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match given {
        // As kubelet with `seccompDefault`: who says nothing is confined too.
        Some(("RuntimeDefault", _)) | None if !privileged => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", Some(name))) if root.is_empty() => (ProfileType::Localhost, name.to_owned()),
        Some(("Localhost", Some(name))) => (ProfileType::Localhost, format!("{root}/{name}")),
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile {
        profile_type: kind as i32,
        localhost_ref,
    }
}

/// `runAsNonRoot` is for the node to check, since only it knows whom the image runs as.
pub fn check_user(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), Refusal> {
    let own = container.security_context.as_ref();
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let non_root = own
        .and_then(|own| own.run_as_non_root)
        .or(of_pod.and_then(|pod| pod.run_as_non_root));
    if non_root != Some(true) {
        return Ok(());
    }
    let named = || {
        let metadata = &pod.metadata;
        (
            format!(
                "{}_{}({})",
                metadata.name.as_deref().unwrap_or_default(),
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.uid.as_deref().unwrap_or_default(),
            ),
            container.name.clone(),
        )
    };
    let user = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|pod| pod.run_as_user));
    match user {
        Some(0) => {
            let (pod, container) = named();
            Err(Refusal::UserIsRoot { pod, container })
        }
        Some(_) => Ok(()),
        None => match image.uid {
            Some(uid) if uid != 0 => Ok(()),
            None if !image.name.is_empty() => {
                let (pod, container) = named();
                Err(Refusal::ImageUserUnknown {
                    user: image.name.clone(),
                    pod,
                    container,
                })
            }
            _ => {
                let (pod, container) = named();
                Err(Refusal::ImageIsRoot { pod, container })
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::field::NodeFacts;
    use serde_json::{Value, json};

    fn pod(security: Value, container: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "web", "uid": "u"},
            "spec": {"securityContext": security, "containers": [container]},
        }))
        .unwrap()
    }

    fn config(pod: &Pod, env: &[(String, String)]) -> cri::ContainerConfig {
        of(Inputs {
            pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            attempt: 3,
            backoff_seconds: 40,
            image_ref: "sha256:abc",
            env,
            mounts: vec![],
            capacity: NodeFacts::for_tests().capacity,
            node_name: "n1",
            seccomp_root: "/seccomp",
        })
    }

    #[test]
    fn a_container_carries_what_a_later_agent_needs() {
        let pod = pod(
            json!({}),
            json!({"name": "m", "image": "busybox:1", "args": ["$(A)", "$(B)"]}),
        );

        let config = config(&pod, &[("A".to_owned(), "x".to_owned())]);

        assert_eq!(config.args, ["x", "$(B)"]);
        assert_eq!(config.log_path, "m/3.log");
        assert_eq!(config.annotations[label::RESTART_COUNT], "3");
        assert_eq!(config.annotations[label::BACKOFF_SECONDS], "40");
        assert_eq!(config.labels[label::POD_UID], "u");
        assert_eq!(config.image.unwrap().user_specified_image, "busybox:1");
    }

    #[test]
    fn the_containers_security_goes_before_the_pods() {
        let pod = pod(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"name": "m", "image": "x", "securityContext": {"runAsUser": 5,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"},
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}),
        );

        let security = config(&pod, &[]).linux.unwrap().security_context.unwrap();

        assert_eq!(security.run_as_user.unwrap().value, 5);
        assert_eq!(security.run_as_group.unwrap().value, 2);
        assert_eq!(security.supplemental_groups, [3]);
        assert!(security.no_new_privs && security.readonly_rootfs && !security.privileged);
        assert_eq!(security.seccomp.unwrap().localhost_ref, "/seccomp/p.json");
        assert_eq!(security.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(security.masked_paths.len(), MASKED_PATHS.len());
    }

    #[test]
    fn non_root_is_checked_against_pod_container_and_image() {
        let image = |uid, name: &str| ImageUser {
            uid,
            name: name.to_owned(),
        };
        for (security, user, fine) in [
            (json!({}), image(Some(0), ""), true),
            (json!({"runAsNonRoot": true}), image(Some(0), ""), false),
            (json!({"runAsNonRoot": true}), image(None, ""), false),
            (json!({"runAsNonRoot": true}), image(None, "www"), false),
            (json!({"runAsNonRoot": true}), image(Some(33), ""), true),
            (json!({"runAsNonRoot": true, "runAsUser": 9}), image(Some(0), ""), true),
            (
                json!({"runAsNonRoot": true, "runAsUser": 0}),
                image(Some(33), ""),
                false,
            ),
        ] {
            let pod = pod(security.clone(), json!({"name": "m", "image": "x"}));
            let container = &pod.spec.as_ref().unwrap().containers[0];

            assert_eq!(check_user(&pod, container, &user).is_ok(), fine, "{security} {user:?}");
        }
    }
}
