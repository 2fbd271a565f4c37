//! When a container is started again, how it is told to stop, and whether it lives through a change of its resources.

use serde_json::Value;

use super::check::{Check, Seen, list, text};
use crate::field::{self, Path};

const RULES_MAX: usize = 20;

const EXIT_CODES_MAX: usize = 255;

/// A container's own restart policy, and the rules that go before it.
pub fn check_policy(check: &mut Check, path: &Path, container: &Value) {
    let policy = path.field("restartPolicy");
    let rules = list(&container["restartPolicyRules"]);
    if container["restartPolicy"].is_null() {
        if !rules.is_empty() {
            check.required(&policy, "must specify restartPolicy when restart rules are used");
            return;
        }
    } else {
        let supported = ["Always", "Never", "OnFailure"];
        check.one_of_or_none(&policy, &container["restartPolicy"], &supported);
    }
    let rules_path = path.field("restartPolicyRules");
    if rules.len() > RULES_MAX {
        check.causes.push(field::too_many(&rules_path, rules.len(), RULES_MAX));
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = rules_path.index(at);
        let action = text(&rule["action"]);
        if !matches!(action, "Restart" | "RestartAllContainers") {
            check.not_supported(&path.field("action"), action, &["Restart", "RestartAllContainers"]);
        }
        let codes = path.field("exitCodes");
        if rule["exitCodes"].is_null() {
            check.required(&codes, "must be specified");
            continue;
        }
        let operator = text(&rule["exitCodes"]["operator"]);
        if !matches!(operator, "In" | "NotIn") {
            check.not_supported(&codes.field("operator"), operator, &["In", "NotIn"]);
        }
        let values = list(&rule["exitCodes"]["values"]);
        if values.len() > EXIT_CODES_MAX {
            let cause = field::too_many(&codes.field("values"), values.len(), EXIT_CODES_MAX);
            check.causes.push(cause);
        }
    }
}

/// `pod_policy` is the Pod's restart policy.
pub fn check_resize(check: &mut Check, path: &Path, policies: &Value, pod_policy: &str) {
    let policies = list(policies);
    let mut seen = Seen::default();
    for (at, policy) in policies.iter().enumerate() {
        let resource = text(&policy["resourceName"]);
        if seen.again(resource) {
            check.duplicate(&path.index(at), resource);
        }
        let restart = text(&policy["restartPolicy"]);
        for (value, supported) in [
            (resource, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if value.is_empty() {
                check.required(path, "");
            } else if !supported.contains(&value) {
                check.not_supported(path, value, &supported);
            }
        }
        if pod_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            check.invalid(path, restart, detail);
        }
    }
}

/// What runs to its end before the others is not started again for a resize.
pub fn check_resize_of_init(check: &mut Check, path: &Path, container: &Value) {
    let policies = path.field("resizePolicy");
    for (at, policy) in list(&container["resizePolicy"]).iter().enumerate() {
        if policy["restartPolicy"] == "RestartContainer" {
            let path = policies.index(at);
            let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            check.invalid(&path.field("restartPolicy"), "RestartContainer", detail);
        }
    }
}

const SIGNALS: [&str; 35] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGRTMIN",
];

const REAL_TIME_UP: i32 = 15;

const REAL_TIME_DOWN: i32 = 14;

fn signals() -> Vec<String> {
    let plain = SIGNALS.iter().map(|name| (*name).to_owned());
    let up = (1..=REAL_TIME_UP).map(|step| format!("SIGRTMIN+{step}"));
    let down = (1..=REAL_TIME_DOWN).map(|step| format!("SIGRTMAX-{step}"));
    let mut all: Vec<String> = plain.chain(up).chain(down).chain(["SIGRTMAX".to_owned()]).collect();
    all.sort();
    all
}

/// What a signal means depends on the operating system, so that has to be named.
pub fn check_stop_signal(check: &mut Check, path: &Path, signal: &Value, spec: &Value) {
    if signal.is_null() {
        return;
    }
    let signal = text(signal);
    let supported: Vec<String> = match text(&spec["os"]["name"]) {
        "" => {
            check.forbidden(path, "may not be set for containers with empty `spec.os.name`");
            return;
        }
        "windows" => vec!["SIGKILL".to_owned(), "SIGTERM".to_owned()],
        "linux" => signals(),
        _ => return,
    };
    if !supported.iter().any(|name| name == signal) {
        let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
        check.not_supported(path, signal, &supported);
    }
}
