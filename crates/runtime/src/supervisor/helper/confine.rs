//! Confining a process by a filter of system calls, as the last thing before its program takes over.
//!
//! A process that may still gain rights (by set-uid programs) may give itself a filter only while it has
//! `CAP_SYS_ADMIN`. So one that is to have neither `no_new_privs` nor that right is made with it, and gives it away
//! behind the filter.

use std::collections::HashMap;

use caps::{CapSet, Capability};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::default::get_executor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use serde_json::{Value, json};

/// Where the bundle says which rights are given away again.
const LENT: &str = "io.mangrove.lent";

/// What installing a filter takes, and what giving rights away takes; in the order in which they go.
const NEEDED: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP];

/// The file in a bundle with the filter's program.
pub const FILTER: &str = "seccomp.bpf";

/// Adds to what the container is to have the rights that installing its filter takes.
pub fn lend(spec: &mut Value) {
    if spec["process"]["noNewPrivileges"] == true {
        return;
    }
    let capabilities = &mut spec["process"]["capabilities"];
    let has = |capability: &Capability, set: &Value| {
        let mut known = set.as_array().into_iter().flatten();
        known.any(|known| known.as_str() == Some(&capability.to_string()))
    };
    let lent: Vec<String> = NEEDED
        .iter()
        .filter(|needed| !has(needed, &capabilities["bounding"]) || !has(needed, &capabilities["effective"]))
        .map(ToString::to_string)
        .collect();
    for set in ["bounding", "effective", "permitted"] {
        let mut all = capabilities[set].as_array().cloned().unwrap_or_default();
        all.extend(
            lent.iter()
                .map(|name| json!(name))
                .filter(|name| !all.contains(name))
                .collect::<Vec<_>>(),
        );
        capabilities[set] = json!(all);
    }
    spec["annotations"][LENT] = json!(lent.join(","));
}

/// Starts the program of a container, or of an exec, behind its filter.
#[derive(Clone)]
pub struct Confined {
    program: Vec<u8>,
    lent: Vec<Capability>,
}

impl Confined {
    /// From the bundle's filter and document, as [`lend`] has left it.
    pub fn new(program: Vec<u8>, spec: &Value) -> Confined {
        let names = spec["annotations"][LENT].as_str().unwrap_or_default();
        Confined {
            program,
            lent: NEEDED
                .into_iter()
                .filter(|needed| names.split(',').any(|name| name == needed.to_string()))
                .collect(),
        }
    }

    fn give_back(&self) -> Result<(), caps::errors::CapsError> {
        // Who may not shrink its bounding set is who has given that right away: it goes last.
        for capability in &self.lent {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
        for capability in &self.lent {
            for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
                caps::drop(None, set, *capability)?;
            }
        }
        Ok(())
    }
}

impl Executor for Confined {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        install(&self.program).map_err(|error| ExecutorError::Other(format!("install the seccomp filter: {error}")))?;
        self.give_back()
            .map_err(|error| ExecutorError::Other(format!("give lent capabilities back: {error}")))?;
        get_executor().exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        get_executor().validate(spec)
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        get_executor().setup_envs(envs)
    }
}

fn install(program: &[u8]) -> std::io::Result<()> {
    const INSTRUCTION_BYTES: usize = 8;
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let instructions: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION_BYTES)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let filter = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| std::io::ErrorKind::InvalidData)?,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lives until the call returns, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(no_new_privileges: bool, capabilities: &[&str]) -> Value {
        json!({"process": {"noNewPrivileges": no_new_privileges, "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "inheritable": []}}})
    }

    #[test]
    fn only_what_is_missing_is_lent_and_given_back() {
        let mut plain = spec(false, &["CAP_CHOWN", "CAP_SETPCAP"]);
        lend(&mut plain);

        assert_eq!(
            plain["process"]["capabilities"]["effective"],
            json!(["CAP_CHOWN", "CAP_SETPCAP", "CAP_SYS_ADMIN"])
        );
        assert_eq!(plain["process"]["capabilities"]["inheritable"], json!([]));
        assert_eq!(Confined::new(Vec::new(), &plain).lent, [Capability::CAP_SYS_ADMIN]);
    }

    #[test]
    fn who_can_gain_nothing_needs_nothing() {
        let mut bound = spec(true, &[]);
        let before = bound.clone();
        lend(&mut bound);

        assert_eq!(bound, before);
        assert!(Confined::new(Vec::new(), &bound).lent.is_empty());
    }
}
