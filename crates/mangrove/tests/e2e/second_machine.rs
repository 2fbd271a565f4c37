//! A machine beside the test's own: a network, mounts and `/run` of its own, behind a cable. An agent on it joins the platform.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{platform::Platform, platform::web_image, said::Said};

use crate::BINARY;

pub const HERE: &str = "192.0.2.1";
pub const THERE: &str = "192.0.2.2";

/// The node's name.
pub const NAME: &str = "second";
/// The control group that its agent keeps everything in.
pub const GROUP: &str = "mangrove-second";

/// Ends with its first process.
pub struct SecondMachine {
    first: Child,
    agent: Option<Child>,
    folder: PathBuf,
}

impl SecondMachine {
    pub fn start(folder: &Path) -> SecondMachine {
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
        let machine = SecondMachine {
            first,
            agent: None,
            folder: folder.join("second"),
        };
        fs::create_dir_all(machine.folder.join("images")).expect("a folder can be made");
        let archive = machine.folder.join("images/web.tar");
        web_image()
            .write_docker_archive(&archive)
            .expect("the archive can be written");
        let pid = machine.first.id().to_string();
        ip(&[
            "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", &pid,
        ]);
        ip(&["address", "add", &format!("{HERE}/24"), "dev", "cable0"]);
        ip(&["link", "set", "cable0", "up"]);
        machine.inside(&["ip", "address", "add", &format!("{THERE}/24"), "dev", "cable1"]);
        machine.inside(&["ip", "link", "set", "cable1", "up"]);
        machine
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

    pub fn join(&mut self, kubeconfig: &Path) {
        let (kubeconfig, folder) = (kubeconfig.to_str().unwrap(), self.folder.to_str().unwrap());
        let log = fs::File::create(self.folder.join("agent.log")).expect("a log can be made");
        let agent = self
            .command(&[BINARY, "agent", "--kubeconfig", kubeconfig, "--node-name", NAME])
            .args(["--address", THERE, "--data-dir", folder, "--cgroup-root", GROUP])
            .stdout(log.try_clone().expect("a file has many handles"))
            .stderr(log)
            .spawn()
            .expect("the agent can be started");
        self.agent = Some(agent);
    }

    pub fn leave(&mut self) {
        self.end_agent(Signal::SIGTERM);
    }

    /// Ends the agent alone, and waits for its end.
    pub fn end_agent(&mut self, signal: Signal) {
        if let Some(mut agent) = self.agent.take() {
            kill(Pid::from_raw(i32::try_from(agent.id()).unwrap()), signal).unwrap();
            agent.wait().unwrap();
        }
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

    /// Asserts that nothing stays.
    pub fn down(mut self) {
        self.leave();
        let folder = self.folder.to_str().unwrap().to_owned();
        self.inside(&[BINARY, "down", "--data-dir", &folder]);
        let rules = self.inside(&["nft", "list", "ruleset"]);
        assert_eq!(rules, "");
        drop(self.first.stdin.take());
        self.first.wait().unwrap();
        ip(&["link", "delete", "cable0"]);
    }
}

/// The super cluster's administrator as the second machine reaches it; the platform has to listen there.
pub fn kubeconfig(platform: &Platform) -> PathBuf {
    let file = platform.folder().join("second.kubeconfig");
    let text = fs::read_to_string(platform.kubeconfig("super")).expect("`up` wrote it");
    fs::write(&file, text.replace("127.0.0.1:6443", &format!("{HERE}:6443"))).expect("the folder is ours");
    file
}

impl Drop for SecondMachine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default();
            eprintln!("-- the agent says:\n{log}");
        }
    }
}

fn ip(arguments: &[&str]) {
    Said::of(Command::new("ip").args(arguments)).out();
}
