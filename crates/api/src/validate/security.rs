//! What a Pod and its containers may do to their machine: users, namespaces, profiles, and what an operating system has.

use serde_json::Value;

use super::check::{Check, Seen, list, text};
use crate::field::{self, Path};

pub fn check_pod_security(check: &mut Check, spec_path: &Path, spec: &Value) {
    let security = &spec["securityContext"];
    let path = &spec_path.field("securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        check_id(check, &path.field(field), &security[field]);
    }
    let groups = path.field("supplementalGroups");
    for (at, group) in list(&security["supplementalGroups"]).iter().enumerate() {
        check_id(check, &groups.index(at), group);
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        check.invalid(&path.field("shareProcessNamespace"), true, detail);
    }
    check_sysctls(check, &path.field("sysctls"), spec);
    for (field, supported) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        check.one_of_or_none(&path.field(field), &security[field], &supported);
    }
    check_seccomp(check, &path.field("seccompProfile"), &security["seccompProfile"]);
    check_app_armor(check, &path.field("appArmorProfile"), &security["appArmorProfile"]);
}

/// Sysctls of the host can't be set where the Pod has the host's namespace.
fn check_sysctls(check: &mut Check, sysctls: &Path, spec: &Value) {
    let security = &spec["securityContext"];
    let mut seen = Seen::default();
    for (at, sysctl) in list(&security["sysctls"]).iter().enumerate() {
        let path = sysctls.index(at);
        let name = text(&sysctl["name"]);
        if name.is_empty() {
            check.required(&path.field("name"), "");
        } else if !is_sysctl_name(name) {
            check.invalid(
                &path.field("name"),
                name,
                "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if seen.again(name) {
            check.duplicate(&path.field("name"), name);
        }
        let dotted = name.replace('/', ".");
        let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .into_iter()
            .any(|prefix| dotted.starts_with(prefix))
            || dotted == "kernel.sem";
        for (field, inside) in [("hostNetwork", dotted.starts_with("net.")), ("hostIPC", of_ipc)] {
            if inside && spec[field] == true {
                let detail = format!("may not be specified when '{field}' is true");
                check.invalid(&path.field("name"), name, detail);
            }
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let part = |part: &str| {
        let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        ends(part.as_bytes().first())
            && ends(part.as_bytes().last())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

fn check_id(check: &mut Check, path: &Path, id: &Value) {
    if let Some(id) = id.as_i64().filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        check.invalid(path, id, format!("must be between 0 and {}, inclusive", i32::MAX));
    }
}

fn check_seccomp(check: &mut Check, path: &Path, profile: &Value) {
    if profile.is_null() {
        return;
    }
    let localhost = path.field("localhostProfile");
    match text(&profile["type"]) {
        "Localhost" => {
            if text(&profile["localhostProfile"]).is_empty() {
                check.required(&localhost, "must be set when seccomp type is Localhost");
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if !profile["localhostProfile"].is_null() {
                check.invalid(
                    &localhost,
                    profile["localhostProfile"].clone(),
                    "can only be set when seccomp type is Localhost",
                );
            }
        }
        "" => check.required(&path.field("type"), "type is required when seccompProfile is set"),
        other => check.not_supported(
            &path.field("type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
}

/// Of a container; `spec` is its Pod's.
pub fn check_container_security(check: &mut Check, path: &Path, security: &Value, spec: &Value) {
    for field in ["runAsUser", "runAsGroup"] {
        check_id(check, &path.field(field), &security[field]);
    }
    check.one_of_or_none(
        &path.field("procMount"),
        &security["procMount"],
        &["Default", "Unmasked"],
    );
    if security["procMount"] == "Unmasked" && spec["hostUsers"] != false {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        check.invalid(&path.field("procMount"), "Unmasked", detail);
    }
    check_seccomp(check, &path.field("seccompProfile"), &security["seccompProfile"]);
    if security["allowPrivilegeEscalation"] == false {
        if security["privileged"] == true {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            check.invalid(path, security.clone(), detail);
        }
        if list(&security["capabilities"]["add"])
            .iter()
            .any(|capability| capability == "CAP_SYS_ADMIN")
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            check.invalid(path, security.clone(), detail);
        }
    }
    check_app_armor(check, &path.field("appArmorProfile"), &security["appArmorProfile"]);
}

/// The longest path, which a profile's name is a part of.
const PROFILE_BYTES_MAX: usize = 4095;

fn check_app_armor(check: &mut Check, path: &Path, profile: &Value) {
    if profile.is_null() {
        return;
    }
    let localhost = path.field("localhostProfile");
    match text(&profile["type"]) {
        "Localhost" => match profile["localhostProfile"].as_str() {
            Some(name) if name.trim() != name => {
                check.invalid(&localhost, name, "must not be padded with whitespace");
            }
            None | Some("") => check.required(&localhost, "must be set when AppArmor type is Localhost"),
            Some(name) if name.len() > PROFILE_BYTES_MAX => {
                check.causes.push(field::too_long(&localhost, PROFILE_BYTES_MAX));
            }
            Some(_) => {}
        },
        "RuntimeDefault" | "Unconfined" => {
            if !profile["localhostProfile"].is_null() {
                let detail = "can only be set when AppArmor type is Localhost";
                check.invalid(&localhost, profile["localhostProfile"].clone(), detail);
            }
        }
        "" => check.required(&path.field("type"), "type is required when appArmorProfile is set"),
        other => {
            let kinds = ["Localhost", "RuntimeDefault", "Unconfined"];
            check.not_supported(&path.field("type"), other, &kinds);
        }
    }
}

/// All containers and where they stand.
fn each_container(spec: &Value, path: &Path, mut visit: impl FnMut(&Value, &Path)) {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.field(kind);
        for (at, container) in list(&spec[kind]).iter().enumerate() {
            visit(container, &path.index(at));
        }
    }
}

/// Users of its own and the host's namespaces do not go together.
pub fn check_own_users(check: &mut Check, path: &Path, spec: &Value) {
    if spec["hostUsers"] != false {
        return;
    }
    const DETAIL: &str = "when `hostUsers` is false";
    // Upstream writes two of the three with a capital.
    for (field, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec[field] == true {
            check.forbidden(&path.field(shown), DETAIL);
        }
    }
    each_container(spec, path, |container, path| {
        if !list(&container["volumeDevices"]).is_empty() {
            check.forbidden(&path.field("volumeDevices"), DETAIL);
        }
    });
}

/// What the Pod's operating system does not have.
pub fn check_system(check: &mut Check, path: &Path, spec: &Value) {
    let system = &spec["os"];
    if system.is_null() {
        return;
    }
    let os_path = path.field("os");
    match text(&system["name"]) {
        "" => check.required(&os_path.field("name"), ""),
        "linux" => {
            const DETAIL: &str = "windows options cannot be set for a linux pod";
            let mut refuse = |owner: &Value, path: &Path| {
                if !owner["securityContext"]["windowsOptions"].is_null() {
                    let security = path.field("securityContext");
                    check.forbidden(&security.field("windowsOptions"), DETAIL);
                }
            };
            refuse(spec, path);
            each_container(spec, path, refuse);
        }
        "windows" => check_windows(check, path, spec),
        other => check.not_supported(&os_path, other, &["linux", "windows"]),
    }
}

fn check_windows(check: &mut Check, path: &Path, spec: &Value) {
    const DETAIL: &str = "cannot be set for a windows pod";
    let is_set =
        |value: &Value| !value.is_null() && *value != false && value.as_array().is_none_or(|list| !list.is_empty());
    let security = path.field("securityContext");
    for field in [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ] {
        if is_set(&spec["securityContext"][field]) {
            check.forbidden(&security.field(field), DETAIL);
        }
    }
    for field in ["hostPID", "hostIPC"] {
        if spec[field] == true {
            check.forbidden(&path.field(field), DETAIL);
        }
    }
    for field in ["hostUsers", "shareProcessNamespace"] {
        if !spec[field].is_null() {
            check.forbidden(&path.field(field), DETAIL);
        }
    }
    each_container(spec, path, |container, path| {
        let security = path.field("securityContext");
        for field in [
            "appArmorProfile",
            "seLinuxOptions",
            "seccompProfile",
            "capabilities",
            "readOnlyRootFilesystem",
            "privileged",
            "allowPrivilegeEscalation",
            "procMount",
            "runAsUser",
            "runAsGroup",
        ] {
            if !container["securityContext"][field].is_null() {
                check.forbidden(&security.field(field), DETAIL);
            }
        }
    });
}
