//! Whom to kill, and what has to come of it for a Pod: the restart policy's answer, once.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use testkit::{kubectl::Kubectl, platform::WEB_IMAGE};

use super::truth::{Ground, read, supervised};

pub const POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

/// What the kernel says of a process that was killed.
const KILLED: i64 = 137;

/// Before the second restart; times in a status are whole seconds.
const BACK_OFF_SECONDS: i64 = 9;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    Server,
    /// The second node's.
    Agent,
    /// Of the round's Pod.
    Supervisor,
    /// Its first process.
    Container,
    /// The supervisor that was started last, of whatever Pod comes or goes, or the helper that is making a container for it.
    Youngest,
}

pub const VICTIMS: [Victim; 5] = [
    Victim::Server,
    Victim::Supervisor,
    Victim::Container,
    Victim::Agent,
    Victim::Youngest,
];

pub fn kill_now(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("pids are small"));
    // It may have ended by itself.
    let _ = kill(pid, Signal::SIGKILL);
}

/// Makes a Pod that runs until it is killed, on one node.
pub fn make(tenant: &Kubectl, name: &str, policy: &str, node: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeName": node, "restartPolicy": policy, "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
        "containers": [{"name": "c", "image": WEB_IMAGE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", "while true; do date; sleep 1; done"],
            "volumeMounts": [{"name": "memory", "mountPath": "/memory"}]}]}});
    tenant.apply(&pod.to_string());
    tenant.run(&[
        "wait",
        "--for=condition=Ready",
        &format!("pod/{name}"),
        "--timeout=100s",
    ]);
}

/// One Pod's container as the tenant sees it, and the processes behind it.
#[derive(Clone, Debug)]
pub struct Prey {
    pub name: String,
    pub policy: &'static str,
    restarts: u64,
    container_id: String,
    container_pid: u32,
    supervisor_pid: u32,
}

impl Prey {
    #[track_caller]
    pub fn of(tenant: &Kubectl, policy: &'static str, ground: &Ground) -> Prey {
        let name = policy.to_lowercase();
        let pod = tenant.json(&["get", "pod", &name]);
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"]
            .as_str()
            .unwrap_or_else(|| panic!("{name} runs: {status}"));
        let id = id.rsplit('/').next().expect("a split has a last part");
        let folder = ground.runtime().join("containers").join(id);
        let (state, record) = (read(&folder.join("state.json")), read(&folder.join("container.json")));
        let sandbox = record["sandbox"].as_str().expect("a container has a sandbox");
        let supervisor = read(&ground.runtime().join("sandboxes").join(sandbox).join("supervisor.json"));
        Prey {
            name,
            policy,
            restarts: status["restartCount"].as_u64().expect("it is a number"),
            container_id: id.to_owned(),
            container_pid: pid(&state["pid"]),
            supervisor_pid: pid(&supervisor["process"]["pid"]),
        }
    }

    pub fn kill(&self, victim: Victim) {
        kill_now(match victim {
            Victim::Container => self.container_pid,
            _ => self.supervisor_pid,
        });
    }

    /// Waits until the tenant sees what the Pod's policy asks for after `victims`. True if the Pod is of no more use.
    #[track_caller]
    pub fn has_been_hit(&self, tenant: &Kubectl, victims: &[Victim], keeper_was_killed: bool) -> bool {
        let of_pod: Vec<&Victim> = victims
            .iter()
            .filter(|victim| matches!(victim, Victim::Supervisor | Victim::Container))
            .collect();
        if of_pod.is_empty() {
            return false;
        }
        // Killed twice, at two moments, it may have been started anew in between.
        let allowed = self.restarts + 1..=self.restarts + of_pod.len() as u64;
        let backs_off = self.restarts > 0;
        tenant.until(&format!("{self:?} was hit by {victims:?}"), |tenant| {
            let pod = tenant.json(&["get", "pod", &self.name]);
            let status = &pod["status"]["containerStatuses"][0];
            let restarts = status["restartCount"].as_u64()?;
            let (state, last) = (&status["state"], &status["lastState"]["terminated"]);
            if self.policy == "Never" {
                assert_eq!(restarts, 0, "{status}");
                let ended = pod["status"]["phase"] == "Failed";
                assert!(!ended || state["terminated"]["exitCode"] == KILLED, "{status}");
                return ended.then_some(true);
            }
            if backs_off && state["waiting"]["reason"] == "CrashLoopBackOff" {
                assert_eq!(last["exitCode"], KILLED, "{status}");
                return Some(true);
            }
            let started = state["running"].is_object() && restarts > self.restarts;
            if !started {
                return None;
            }
            assert!(
                allowed.contains(&restarts),
                "{restarts} restarts, not {allowed:?}: {status}"
            );
            assert_eq!(last["exitCode"], KILLED, "{status}");
            if restarts == self.restarts + 1 {
                assert!(last["containerID"].as_str()?.ends_with(&self.container_id), "{status}");
            }
            let reason = match of_pod[..] {
                [Victim::Container] => "Error",
                [Victim::Supervisor] => "Unknown",
                _ => last["reason"].as_str()?,
            };
            assert_eq!(last["reason"], reason, "{status}");
            // An agent that was away when the whole sandbox ended blames nobody for it, now and the next time.
            let excused = keeper_was_killed && of_pod.contains(&&Victim::Supervisor);
            let waited = seconds(&state["running"]["startedAt"]) - seconds(&last["finishedAt"]);
            assert!(
                !backs_off || excused || waited >= BACK_OFF_SECONDS,
                "it did not back off: {status}"
            );
            Some(excused)
        })
    }
}

fn seconds(time: &Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().expect("a time").parse().expect("as RFC 3339 has it");
    time.as_second()
}

fn pid(value: &Value) -> u32 {
    let pid = value.as_u64().unwrap_or_else(|| panic!("a process id, not {value}"));
    u32::try_from(pid).expect("pids are small")
}

/// Which of the supervisors of Deployments' Pods was started last.
pub fn youngest(supervisors: &[u32]) -> Option<u32> {
    let comes_and_goes = |pid: u32| {
        let plan = read(&supervised(pid)?.join("plan.json"));
        Some(plan["hostname"].as_str()?.starts_with("web-"))
    };
    let of_deployments = supervisors
        .iter()
        .copied()
        .filter(|pid| comes_and_goes(*pid) == Some(true));
    of_deployments.max_by_key(|pid| started(*pid))
}

/// Field 22 of the process's line, in ticks since the machine's start.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}
