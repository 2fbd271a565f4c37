//! What no Pod may do that is not trusted with its machine.

use serde_json::Value;

use super::{Level, Violation, containers, distinct, has_own_users, named, plural, quoted, sayers, these};

/// In upstream's order. `level` is the one asked for: a stricter one has its own form of some rules.
pub(super) fn check(metadata: &Value, spec: &Value, level: Level) -> Vec<Violation> {
    let only_here = level == Level::Baseline;
    [
        app_armor(metadata, spec),
        only_here.then(|| capabilities(spec)).flatten(),
        host_namespaces(spec),
        only_here.then(|| host_paths(spec)).flatten(),
        host_ports(spec),
        probe_hosts(spec),
        privileged(spec),
        only_here
            .then(|| (!has_own_users(spec)).then(|| proc_mount(spec)).flatten())
            .flatten(),
        se_linux(spec),
        only_here.then(|| seccomp(spec)).flatten(),
        sysctls(spec),
        host_process(spec),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

fn app_armor(metadata: &Value, spec: &Value) -> Option<Violation> {
    let kind = |owner: &Value| {
        owner["securityContext"]["appArmorProfile"]["type"]
            .as_str()
            .map(str::to_owned)
    };
    let bad = |owner: &Value| {
        !owner["securityContext"]["appArmorProfile"].is_null()
            && !matches!(kind(owner).as_deref(), Some("RuntimeDefault" | "Localhost"))
    };
    let names = named(spec, bad);
    let kinds: Vec<String> = std::iter::once(spec)
        .chain(containers(spec))
        .filter(|owner| bad(owner))
        .map(|owner| kind(owner).unwrap_or_default())
        .collect();
    let mut values: Vec<String> = distinct(kinds.iter().map(String::as_str))
        .into_iter()
        .map(str::to_owned)
        .collect();
    let annotations: Vec<String> = metadata["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| {
            let profile = value.as_str().unwrap_or("");
            key.starts_with(APP_ARMOR_ANNOTATION)
                && !profile.is_empty()
                && profile != "runtime/default"
                && !profile.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut who: Vec<String> = sayers(bad(spec), &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", annotations.len()));
        values.extend(annotations);
    }
    (!who.is_empty()).then(|| {
        Violation::new(
            plural("forbidden AppArmor profile", values.len()),
            format!(
                "{} must not set AppArmor profile type to {}",
                who.join(" and "),
                quoted(&values)
            ),
        )
    })
}

const CAPABILITIES: [&str; 13] = [
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

fn capabilities(spec: &Value) -> Option<Violation> {
    fn added(container: &Value) -> impl Iterator<Item = &str> {
        let added = container["securityContext"]["capabilities"]["add"].as_array();
        added
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|capability| !CAPABILITIES.contains(capability))
    }
    let names = named(spec, |container| added(container).next().is_some());
    (!names.is_empty()).then(|| {
        let all = distinct(containers(spec).flat_map(added));
        Violation::new(
            "non-default capabilities",
            format!(
                "{} must not include {} in securityContext.capabilities.add",
                these(&names),
                quoted(&all)
            ),
        )
    })
}

fn host_namespaces(spec: &Value) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

fn host_paths(spec: &Value) -> Option<Violation> {
    let names: Vec<&str> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|volume| !volume["hostPath"].is_null())
        .map(super::name)
        .collect();
    (!names.is_empty()).then(|| {
        let volumes = format!("{} {}", plural("volume", names.len()), quoted(&names));
        Violation::new("hostPath volumes", volumes)
    })
}

fn host_ports(spec: &Value) -> Option<Violation> {
    fn ports(container: &Value) -> impl Iterator<Item = String> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
    }
    let names = named(spec, |container| ports(container).next().is_some());
    (!names.is_empty()).then(|| {
        let all: Vec<String> = containers(spec).flat_map(ports).collect();
        let all = distinct(all.iter().map(String::as_str));
        Violation::new(
            "hostPort",
            format!(
                "{} {} {} {}",
                these(&names),
                if names.len() == 1 { "uses" } else { "use" },
                plural("hostPort", all.len()),
                all.join(", ")
            ),
        )
    })
}

fn probe_hosts(spec: &Value) -> Option<Violation> {
    fn hosts(container: &Value) -> Vec<&str> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
        probes
            .into_iter()
            .chain(hooks)
            .flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| handler[kind]["host"].as_str().unwrap_or("")))
            .filter(|host| !host.is_empty())
            .collect()
    }
    let names = distinct(named(spec, |container| !hosts(container).is_empty()).into_iter());
    (!names.is_empty()).then(|| {
        let all = distinct(containers(spec).flat_map(hosts));
        Violation::new(
            "probe or lifecycle host",
            format!(
                "{} {} {} {}",
                these(&names),
                if names.len() == 1 { "uses" } else { "use" },
                plural("probe or lifecycle host", all.len()),
                quoted(&all)
            ),
        )
    })
}

fn privileged(spec: &Value) -> Option<Violation> {
    let names = named(spec, |container| container["securityContext"]["privileged"] == true);
    (!names.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.privileged=true", these(&names));
        Violation::new("privileged", detail)
    })
}

pub(super) fn proc_mount(spec: &Value) -> Option<Violation> {
    fn mount(container: &Value) -> Option<&str> {
        container["securityContext"]["procMount"]
            .as_str()
            .filter(|mount| *mount != "Default")
    }
    let names = named(spec, |container| mount(container).is_some());
    (!names.is_empty()).then(|| {
        let mounts = distinct(containers(spec).filter_map(mount));
        Violation::new(
            "procMount",
            format!(
                "{} must not set securityContext.procMount to {}",
                these(&names),
                quoted(&mounts)
            ),
        )
    })
}

const SE_LINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

fn se_linux(spec: &Value) -> Option<Violation> {
    fn options(owner: &Value) -> &Value {
        &owner["securityContext"]["seLinuxOptions"]
    }
    fn text<'a>(owner: &'a Value, field: &str) -> &'a str {
        options(owner)[field].as_str().unwrap_or("")
    }
    let bad = |owner: &Value| {
        !SE_LINUX_TYPES.contains(&text(owner, "type"))
            || !text(owner, "user").is_empty()
            || !text(owner, "role").is_empty()
    };
    let names = named(spec, bad);
    let who = sayers(bad(spec), &names)?;
    let owners: Vec<&Value> = std::iter::once(spec).chain(containers(spec)).collect();
    let types = distinct(
        owners
            .iter()
            .map(|owner| text(owner, "type"))
            .filter(|kind| !SE_LINUX_TYPES.contains(kind)),
    );
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if owners.iter().any(|owner| !text(owner, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    let detail = format!(
        "{who} set forbidden securityContext.seLinuxOptions: {}",
        data.join("; ")
    );
    Some(Violation::new("seLinuxOptions", detail))
}

/// What is said of seccomp and may not be.
pub(super) fn seccomp(spec: &Value) -> Option<Violation> {
    fn profile(owner: &Value) -> &Value {
        &owner["securityContext"]["seccompProfile"]
    }
    let bad = |owner: &Value| {
        !profile(owner).is_null() && !matches!(profile(owner)["type"].as_str(), Some("Localhost" | "RuntimeDefault"))
    };
    let names = named(spec, bad);
    let who = sayers(bad(spec), &names)?;
    let kinds = distinct(
        std::iter::once(spec)
            .chain(containers(spec))
            .filter(|owner| bad(owner))
            .map(|owner| profile(owner)["type"].as_str().unwrap_or("")),
    );
    let detail = format!(
        "{who} must not set securityContext.seccompProfile.type to {}",
        quoted(&kinds)
    );
    Some(Violation::new("seccompProfile", detail))
}

const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

fn sysctls(spec: &Value) -> Option<Violation> {
    let names: Vec<&str> = spec["securityContext"]["sysctls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(super::name)
        .filter(|name| !SYSCTLS.contains(name))
        .collect();
    (!names.is_empty()).then(|| Violation::new("forbidden sysctls", names.join(", ")))
}

fn host_process(spec: &Value) -> Option<Violation> {
    let bad = |owner: &Value| owner["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let who = sayers(bad(spec), &named(spec, bad))?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}
