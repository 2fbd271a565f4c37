//! Other machines (a network, mounts and `/run` of their own each) on one network with the test's own, that join as nodes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{
    kubectl::Kubectl,
    platform::{Platform, web_image},
    said::Said,
};

use crate::BINARY;

/// The first machine, as the others reach it.
pub const HERE: &str = "192.0.2.1";

/// Where all are plugged in.
const SWITCH: &str = "lan";

/// A platform that others can join, with nothing started but the network between them.
pub fn with_a_network(platform: Platform) -> Platform {
    ip(&["link", "add", SWITCH, "type", "bridge"]);
    ip(&["address", "add", &format!("{HERE}/24"), "dev", SWITCH]);
    ip(&["link", "set", SWITCH, "up"]);
    platform.with_options(&["--listen", "0.0.0.0:6443"])
}

pub fn take_the_network_away() {
    ip(&["link", "delete", SWITCH]);
}

/// Ends with its first process.
pub struct OtherMachine {
    pub name: &'static str,
    pub address: String,
    first: Child,
    agent: Option<Child>,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl OtherMachine {
    /// The machine, with the web image and nothing started.
    pub fn start(platform: &Platform, name: &'static str, number: u8) -> OtherMachine {
        let mut first = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c"])
            .arg("mount -t tmpfs -o mode=755 run /run && ip link set lo up && echo ready && exec cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be started");
        let mut line = String::new();
        let output = first.stdout.take().expect("it is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("it says a word");
        assert_eq!(line.trim(), "ready");
        // mount(8) keeps notes.
        let _ = fs::remove_dir_all("/run/mount");
        let machine = OtherMachine {
            name,
            address: format!("192.0.2.{number}"),
            first,
            agent: None,
            folder: platform.folder().join(name),
            kubeconfig: platform.folder().join(format!("{name}.joins")),
        };
        let images = machine.folder.join("images");
        fs::create_dir_all(&images).expect("a folder can be made");
        web_image()
            .write_docker_archive(&images.join("web.tar"))
            .expect("an image can be written");
        let pid = machine.first.id().to_string();
        let cable = machine.cable();
        ip(&[
            "link", "add", &cable, "type", "veth", "peer", "name", "lan0", "netns", &pid,
        ]);
        ip(&["link", "set", &cable, "master", SWITCH, "up"]);
        machine.inside(&[
            "ip",
            "address",
            "add",
            &format!("{}/24", machine.address),
            "dev",
            "lan0",
        ]);
        machine.inside(&["ip", "link", "set", "lan0", "up"]);
        machine
    }

    /// The end of its cable at the switch.
    fn cable(&self) -> String {
        format!("to-{}", self.name)
    }

    pub fn unplug(&self) {
        ip(&["link", "set", &self.cable(), "down"]);
    }

    pub fn plug_in(&self) {
        ip(&["link", "set", &self.cable(), "up"]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--net", "--mount", "--target", &self.first.id().to_string()])
            .args(arguments);
        command
    }

    pub fn inside(&self, arguments: &[&str]) -> String {
        Said::of(&mut self.command(arguments)).out()
    }

    /// The control group that its agent keeps everything in.
    pub fn cgroup(&self) -> String {
        format!("mangrove-{}", self.name)
    }

    /// Joins, for the first time or again, and waits until its node is ready.
    pub fn join(&mut self, platform: &Platform) {
        self.start_agent(platform);
        is_ready(&platform.root(), self.name);
    }

    pub fn start_agent(&mut self, platform: &Platform) {
        let text = fs::read_to_string(platform.kubeconfig("super")).expect("the platform is up");
        let text = text.replace("127.0.0.1:6443", &format!("{HERE}:6443"));
        fs::write(&self.kubeconfig, text).expect("a file can be written");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("agent.log"))
            .expect("a log can be made");
        let agent = self
            .command(&[BINARY, "agent", "--node-name", self.name, "--address", &self.address])
            .args(["--cgroup-root", &self.cgroup()])
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--data-dir")
            .arg(&self.folder)
            .stdout(log.try_clone().expect("a file has many handles"))
            .stderr(log)
            .spawn()
            .expect("the agent can be started");
        self.agent = Some(agent);
    }

    pub fn agent(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    /// In whose namespaces everything of this machine is.
    pub fn first(&self) -> u32 {
        self.first.id()
    }

    pub fn data_dir(&self) -> &Path {
        &self.folder
    }

    /// How many containers of `sleep` run there.
    pub fn containers(&self) -> usize {
        let groups = Said::of(Command::new("find").args(["/sys/fs/cgroup", "-name", "cgroup.procs"])).out();
        let ours = groups
            .lines()
            .filter(|path| path.contains(&format!("/{}/", self.cgroup())));
        let pids = ours.flat_map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        let pids: std::collections::BTreeSet<String> = pids.collect();
        let sleeps = |pid: &&String| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| matches!(name.trim(), "sleep" | "busybox"))
        };
        pids.iter().filter(sleeps).count()
    }

    /// Ends the agent alone, as `signal` has it.
    pub fn end_agent(&mut self, signal: Signal) {
        if let Some(mut agent) = self.agent.take() {
            let pid = Pid::from_raw(i32::try_from(agent.id()).expect("pids are small"));
            kill(pid, signal).expect("the agent runs");
            agent.wait().expect("it was started here");
        }
    }

    /// Ends everything there and looks at what it leaves.
    pub fn down(mut self) {
        self.end_agent(Signal::SIGTERM);
        let folder = self
            .folder
            .to_str()
            .expect("temporary folders have simple names")
            .to_owned();
        self.inside(&[BINARY, "down", "--data-dir", &folder]);
        assert_eq!(self.inside(&["nft", "list", "ruleset"]), "");
        let links = self.inside(&["ip", "-o", "link"]);
        assert_eq!(links.lines().count(), 2, "lo and lan0: {links}");
        drop(self.first.stdin.take());
        self.first.wait().expect("it was started here");
    }
}

impl Drop for OtherMachine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("-- the agent of {} says:\n{}", self.name, last.join("\n"));
        }
    }
}

/// Waits for a node to be ready.
#[track_caller]
pub fn is_ready(root: &Kubectl, node: &str) {
    root.until("the node is ready", |root| {
        let node = format!("node/{node}");
        root.said(&["wait", "--for=condition=Ready", &node, "--timeout=1s"])
            .succeeded()
            .then_some(())
    });
}

fn ip(arguments: &[&str]) {
    Said::of(Command::new("ip").args(arguments)).out();
}
