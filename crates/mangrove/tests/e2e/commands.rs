//! What people type at a tenant's plane, by every kubectl that is there: `kubectl/table` and, beside it, what they saw.

use std::{fs, path::Path, process::Command};

use testkit::{clients, kubectl::Kubectl, said::Said, terminal::Terminal};

use crate::{platform_with_image, shown::Words, terminal, two_tenants};

const TABLE: &str = include_str!("kubectl/table");

/// Versions whose words are kept; others only have to succeed where these do.
const KEPT: [u32; 3] = [20, 32, 36];

#[test]
fn every_kubectl_says_what_it_says_to_kubernetes() {
    let Some(platform) = platform_with_image() else { return };
    let mut wrong = Vec::new();
    let mut ran = Vec::new();
    for program in clients::kubectls() {
        let minor = platform.root().with_program(&program).minor();
        if ran.contains(&minor) {
            continue;
        }
        ran.push(minor);
        let tenant = platform.tenant(&format!("with-{minor}")).with_program(&program);
        let said = Running::new(&tenant, minor).table();
        match said {
            Ok(text) if KEPT.contains(&minor) => compare(minor, &text, &mut wrong),
            Ok(_) => println!("kubectl 1.{minor} has no snapshot; all of it succeeded"),
            Err(complaint) => wrong.push(format!("kubectl 1.{minor}: {complaint}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    platform.finish();
}

#[test]
fn every_kubectl_gets_into_a_pod() {
    let Some(platform) = platform_with_image() else { return };
    for program in clients::kubectls() {
        let minor = platform.root().with_program(&program).minor();
        let name = format!("with-{minor}");
        let known = platform.kubeconfig(&name).exists();
        if known {
            continue;
        }
        let tenant = platform.tenant(&name).with_program(&program);
        tenant.apply(crate::WEB);
        crate::rolled_out(&tenant, "web");
        two_tenants::logs_are_followed(&tenant);
        two_tenants::a_terminal_types_and_exits_with_the_commands_code(&tenant);
        terminal::a_shell_at_a_terminal(&tenant);
        terminal::a_pod_for_as_long_as_somebody_sits_there(&tenant);
        two_tenants::ports_are_forwarded("<h1>Served from a Pod</h1>", &tenant);
        two_tenants::files_are_copied_in_and_out(&tenant, platform.folder());
        two_tenants::attach_talks_to_the_process(&tenant);
        platform.run(&["tenant", "delete", &name]);
    }
    platform.finish();
}

/// One snapshot a version, so that a new kubectl changes a file of its own.
fn compare(minor: u32, text: &str, wrong: &mut Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/kubectl");
    let kept = folder.join(format!("said-by-1.{minor}"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&kept, text).expect("the folder of this test can be written");
        return;
    }
    let before = fs::read_to_string(&kept).unwrap_or_default();
    if before == text {
        return;
    }
    let differs = before.lines().zip(text.lines()).position(|(before, now)| before != now);
    let at = differs.unwrap_or_else(|| before.lines().count().min(text.lines().count()));
    let around = |text: &str| {
        let lines: Vec<&str> = text.lines().skip(at.saturating_sub(6)).take(12).collect();
        lines.join("\n")
    };
    wrong.push(format!(
        "kubectl 1.{minor} said something else than {} from line {} on (UPDATE_SNAPSHOTS=1 keeps it):\n--- kept\n{}\n--- now\n{}",
        kept.display(),
        at + 1,
        around(&before),
        around(text)
    ));
}

struct Running<'a> {
    kubectl: &'a Kubectl,
    minor: u32,
    node: String,
    words: Words,
    said: String,
}

impl Running<'_> {
    fn new(kubectl: &Kubectl, minor: u32) -> Running<'_> {
        let node = kubectl.names(&["nodes"]).pop().expect("there is a node");
        Running {
            kubectl,
            minor,
            words: Words::new(&node),
            node,
            said: String::new(),
        }
    }

    /// All that is said, or the first line that went otherwise than the table says.
    fn table(mut self) -> Result<String, String> {
        for line in TABLE.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix(':') {
                self.wait(rest);
                continue;
            }
            let line = match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
                Some((since, _)) if since.parse().is_ok_and(|since: u32| self.minor < since) => continue,
                Some((_, line)) => line,
                None => line,
            };
            self.command(line)?;
        }
        Ok(self.said)
    }

    fn command(&mut self, line: &str) -> Result<(), String> {
        if let Some(command) = line.strip_prefix("% ") {
            return self.typed(command);
        }
        let (refused, command) = match line.strip_prefix("! ") {
            Some(command) => (true, command),
            None => (false, line),
        };
        let said = self.run(command);
        if said.succeeded() == refused {
            return Err(format!("`{line}`: {:?} {}{}", said.code, said.out, said.err));
        }
        self.said += &format!("$ kubectl {command}\n");
        for part in [&said.out, &said.err] {
            self.said += &self.words.settled(command, part);
        }
        self.said.push('\n');
        Ok(())
    }

    /// At a terminal, which shows both outputs as one.
    fn typed(&mut self, command: &str) -> Result<(), String> {
        let (code, shown) = Terminal::start(&self.prepared(command), 24, 80).finish();
        if code != Some(0) {
            return Err(format!("`{command}`: {code:?} {shown}"));
        }
        self.said += &format!("$ kubectl {command}\n");
        self.said += &self.words.settled(command, &shown);
        self.said.push('\n');
        Ok(())
    }

    fn run(&self, command: &str) -> Said {
        Said::of(&mut self.prepared(command))
    }

    fn prepared(&self, command: &str) -> Command {
        let pod = if command.contains("{pod}") {
            self.ready().pop().unwrap_or_default()
        } else {
            String::new()
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/kubectl");
        let words: Vec<String> = command
            .split(' ')
            .map(|word| word.replace("{pod}", &pod).replace("{node}", &self.node))
            .collect();
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut prepared = self.kubectl.command(&arguments);
        prepared.current_dir(folder);
        prepared
    }

    /// Names of the Deployment's Pods, if all that are there are ready.
    fn ready(&self) -> Vec<String> {
        let pods = self.kubectl.json(&["get", "pods", "-l", "app=web"]);
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let is_ready = |pod: &serde_json::Value| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["containerStatuses"][0]["ready"] == true
        };
        if !pods.iter().all(is_ready) {
            return Vec::new();
        }
        let name = |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        pods.iter().map(name).collect()
    }

    fn wait(&self, line: &str) {
        let (what, rest) = line.split_once(' ').expect("a wait says for what");
        match what {
            "pods" => {
                let count: usize = rest.parse().expect("a number of Pods");
                self.kubectl
                    .until(line, |_| (self.ready().len() == count).then_some(()));
                let counts = "jsonpath={.status.readyReplicas}/{.status.replicas}/{.status.updatedReplicas}";
                let wanted = format!("{count}/{count}/{count}");
                self.kubectl.until(line, |kubectl| {
                    (kubectl.run(&["get", "deployment", "web", "-o", counts]) == wanted).then_some(())
                });
            }
            "until" => {
                let (text, command) = rest.split_once(' ').expect("a text and a command");
                self.kubectl.until(line, |_| {
                    let said = self.run(command);
                    (said.out.contains(text) || said.err.contains(text)).then_some(())
                });
            }
            other => panic!("there is no wait {other:?}"),
        }
    }
}
