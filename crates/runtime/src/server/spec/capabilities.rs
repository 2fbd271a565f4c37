//! Which powers a container has.

use k8s_cri::v1::LinuxContainerSecurityContext;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// All names in the kernel's order (linux/capability.h): the index is the bit.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What docker and containerd give a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

fn bit(name: &str) -> Result<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| *known == short)
        .map(|index| 1 << index)
        .ok_or_else(|| Error::Invalid(format!("there is no capability {name:?}")))
}

/// What this process may hand on; asking the kernel for more would fail as a whole.
pub fn available() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}

pub fn capabilities(security: &LinuxContainerSecurityContext, available: u64, cgroup_unified: bool) -> Result<Value> {
    let all = (1u64 << NAMES.len()) - 1;
    let mut set = 0;
    let mut ambient = 0;
    if security.privileged {
        set = all;
    } else {
        for name in DEFAULT {
            // Devices are not filtered under version 2 of control groups (that needs a BPF program), so making device
            // nodes is a power that has to be asked for there.
            if name != "MKNOD" || !cgroup_unified {
                set |= bit(name)?;
            }
        }
    }
    if let Some(wanted) = &security.capabilities {
        let named = |names: &[String]| -> Result<(bool, u64)> {
            let mut everything = false;
            let mut bits = 0;
            for name in names {
                if name.eq_ignore_ascii_case("ALL") {
                    everything = true;
                } else {
                    bits |= bit(name)?;
                }
            }
            Ok((everything, bits))
        };
        let (add_all, add) = named(&wanted.add_capabilities)?;
        let (drop_all, drop) = named(&wanted.drop_capabilities)?;
        let (_, add_ambient) = named(&wanted.add_ambient_capabilities)?;
        if add_all {
            set = all;
        }
        if drop_all {
            set = 0;
        }
        set = (set | add | add_ambient) & !drop;
        ambient = add_ambient & set;
    }
    set &= available;
    ambient &= available;
    let names = |bits: u64| -> Vec<String> {
        NAMES
            .iter()
            .enumerate()
            .filter(|(index, _)| bits & (1 << index) != 0)
            .map(|(_, name)| format!("CAP_{name}"))
            .collect()
    };
    Ok(json!({
        "bounding": names(set),
        "effective": names(set),
        "permitted": names(set),
        // Inheritable ones would come back to a program that the image marks so (CVE-2022-24769).
        "inheritable": names(ambient),
        "ambient": names(ambient),
    }))
}
