//! Which system calls a container may make: profiles as documents (the format that Docker, containerd and Kubernetes'
//! `Localhost` profiles have), made into programs for the kernel's filter machine.

mod names;
mod program;

use std::path::Path;

use k8s_cri::v1::SecurityProfile;
use k8s_cri::v1::security_profile::ProfileType;
use serde::Deserialize;

use crate::error::{Doing, Error, Result};
use program::{Action, Condition, Rule};

/// What `RuntimeDefault` means: containerd's list.
const DEFAULT: &str = include_str!("../../data/seccomp.json");

/// Larger documents are no profiles.
const MAX_PROFILE_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default)]
    names: Vec<String>,
    /// As older profiles have it.
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Default, Deserialize)]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// The program for a container that has these capabilities; none for one that is not confined.
pub fn program(wanted: Option<&SecurityProfile>, capabilities: &[String]) -> Result<Option<Vec<u8>>> {
    let Some(wanted) = wanted else { return Ok(None) };
    let text = match wanted.profile_type() {
        ProfileType::Unconfined => return Ok(None),
        ProfileType::RuntimeDefault => DEFAULT.to_owned(),
        ProfileType::Localhost => read(Path::new(&wanted.localhost_ref))?,
    };
    compile(&text, capabilities).map(Some)
}

fn read(path: &Path) -> Result<String> {
    let doing = || format!("read the seccomp profile {}", path.display());
    if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err(Error::Invalid(format!(
            "{} is no place of a seccomp profile",
            path.display()
        )));
    }
    if path.metadata().doing(doing)?.len() > MAX_PROFILE_BYTES {
        return Err(Error::Invalid(format!(
            "{} is too large for a seccomp profile",
            path.display()
        )));
    }
    std::fs::read_to_string(path).doing(doing)
}

fn compile(text: &str, capabilities: &[String]) -> Result<Vec<u8>> {
    let profile: Profile =
        serde_json::from_str(text).map_err(|e| Error::Invalid(format!("the seccomp profile can't be read: {e}")))?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut rules = Vec::new();
    for calls in &profile.syscalls {
        if !calls.is_meant(capabilities) {
            continue;
        }
        let action = action(&calls.action, calls.errno_ret)?;
        let conditions = calls.conditions()?;
        for name in calls.names.iter().chain(&calls.name) {
            if let Some(number) = names::number(name) {
                rules.push((
                    number,
                    Rule {
                        conditions: conditions.clone(),
                        action,
                    },
                ));
            }
        }
    }
    program::assemble(default, rules)
}

impl Calls {
    fn is_meant(&self, capabilities: &[String]) -> bool {
        let has = |filter: &Filter| filter.caps.iter().any(|cap| capabilities.contains(cap));
        let all = |filter: &Filter| filter.caps.iter().all(|cap| capabilities.contains(cap));
        let here = |filter: &Filter| filter.arches.iter().any(|arch| arch == ARCHITECTURE);
        all(&self.includes)
            && (self.includes.arches.is_empty() || here(&self.includes))
            && !has(&self.excludes)
            && !here(&self.excludes)
    }

    fn conditions(&self) -> Result<Vec<Condition>> {
        let condition = |argument: &Argument| {
            let Argument {
                index,
                value,
                value_two,
                ..
            } = *argument;
            if index > 5 {
                return Err(Error::Invalid(format!("a system call has no argument {index}")));
            }
            let test = match argument.op.as_str() {
                "SCMP_CMP_EQ" => program::Test::Equal(value),
                "SCMP_CMP_NE" => program::Test::NotEqual(value),
                "SCMP_CMP_MASKED_EQ" => program::Test::MaskedEqual {
                    mask: value,
                    value: value_two,
                },
                "SCMP_CMP_GT" => program::Test::Greater(value),
                "SCMP_CMP_GE" => program::Test::GreaterOrEqual(value),
                "SCMP_CMP_LT" => program::Test::Less(value),
                "SCMP_CMP_LE" => program::Test::LessOrEqual(value),
                other => return Err(Error::Invalid(format!("{other:?} is no comparison of seccomp"))),
            };
            Ok(Condition { index, test })
        };
        self.args.iter().flatten().map(condition).collect()
    }
}

/// As profiles name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

fn action(name: &str, errno: Option<u32>) -> Result<Action> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => {
            return Err(Error::Unsupported(format!(
                "seccomp action {other:?} is not offered by this runtime"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_fits_the_kernels_limit_with_any_capabilities() {
        let few = compile(DEFAULT, &[]).unwrap();
        let many = compile(DEFAULT, &["CAP_SYS_ADMIN".to_owned(), "CAP_SYS_PTRACE".to_owned()]).unwrap();

        for program in [few, many] {
            let count = program.len() / 8;
            assert!(count > 20 && count < 2000, "{count}");
        }
    }

    #[test]
    fn what_a_profile_says_and_the_kernel_does_not_have_is_refused_in_words() {
        for (text, complaint) in [
            ("{", "can't be read"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "not offered"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
                "no argument 9",
            ),
        ] {
            let error = compile(text, &[]).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn profiles_lie_where_the_machine_keeps_them() {
        for path in ["relative.json", "/a/../etc/passwd"] {
            assert!(read(Path::new(path)).is_err());
        }
    }
}
