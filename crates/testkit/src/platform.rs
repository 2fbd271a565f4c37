//! The whole platform, started by its own command on a machine of the test's own, and ended with nothing left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    image::{Image, ImageBuilder},
    kubectl::Kubectl,
    machine::{Machine, on_path},
    said::{PATIENCE, Said},
};

/// The image that `examples/web.yaml` names.
pub const WEB_IMAGE: &str = "mangrove.test/web:1";

pub struct Platform {
    /// The program under test.
    binary: PathBuf,
    options: Vec<String>,
    folder: tempfile::TempDir,
    machine: Option<Machine>,
}

impl Platform {
    /// Starts `binary` on a machine of its own; `None`, with a printed word, where that can't be.
    pub fn start(binary: &str) -> Option<Platform> {
        let platform = Platform::prepare(binary)?;
        platform.up();
        Some(platform)
    }

    /// The machine and the folders, with nothing started.
    pub fn prepare(binary: &str) -> Option<Platform> {
        if !on_path("kubectl") {
            println!("skipped: there is no kubectl (Debian package kubernetes-client)");
            return None;
        }
        let machine = Machine::enter()?;
        let folder = tempfile::Builder::new()
            .prefix("mangrove-")
            .tempdir()
            .expect("a temporary folder can be made");
        Some(Platform {
            binary: binary.into(),
            options: Vec::new(),
            folder,
            machine: Some(machine),
        })
    }

    /// More options for every `up`.
    pub fn with_options(mut self, options: &[&str]) -> Platform {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self
    }

    pub fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("taken at the end only")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn kubeconfig(&self, of: &str) -> PathBuf {
        self.folder.path().join(format!("{of}.kubeconfig"))
    }

    /// A command of the program.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments);
        command
    }

    pub fn said(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.said(arguments).out()
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} prints JSON: {error}: {text}"))
    }

    /// To start it in the foreground.
    pub fn up_command(&self) -> Command {
        let mut up = self.command(&["up"]);
        if !self.options.iter().any(|option| option == "--listen") {
            up.args(["--listen", "127.0.0.1:6443"]);
        }
        up.arg("--data-dir").arg(self.data_dir());
        up.arg("--kubeconfig").arg(self.kubeconfig("super")).args(&self.options);
        up
    }

    pub fn try_up(&self) -> Said {
        Said::of(self.up_command().arg("--detach"))
    }

    /// Starts it, for the first time or again.
    #[track_caller]
    pub fn up(&self) -> String {
        self.try_up().out()
    }

    pub fn pid(&self) -> u32 {
        let record = fs::read("/run/mangrove/platform.json").expect("a platform has a record");
        let record: Value = serde_json::from_slice(&record).expect("the record is JSON");
        let pid = record["pid"].as_u64().expect("the record has a pid");
        u32::try_from(pid).expect("pids are small")
    }

    /// The processes that hold sandboxes.
    pub fn supervisors(&self) -> Vec<u32> {
        let mut pids = self.machine().groups.processes();
        pids.retain(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"supervise")
        });
        pids
    }

    /// Ends the server alone, and waits for its end.
    pub fn end_server(&self, signal: Signal) {
        let pid = self.pid();
        kill(Pid::from_raw(i32::try_from(pid).expect("pids are small")), signal).expect("the server runs");
        let begin = Instant::now();
        while runs(pid) {
            assert!(begin.elapsed() < PATIENCE, "the server does not end after {signal}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// As when the machine's power is cut: nothing runs any more, and what was not on disk is not there.
    pub fn lose_power(&self) {
        let machine = self.machine();
        let begin = Instant::now();
        loop {
            let left = machine.groups.processes();
            if left.is_empty() {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{left:?} can't be killed");
            for pid in left {
                // It may have ended with another.
                let _ = kill(
                    Pid::from_raw(i32::try_from(pid).expect("pids are small")),
                    Signal::SIGKILL,
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let run = Path::new("/run/mangrove");
        unmount_below(&[self.folder.path(), run]);
        fs::remove_dir_all(run).expect("the platform had its folder there");
        Said::of(Command::new("nft").args(["flush", "ruleset"])).out();
    }

    /// The super plane, as its administrator.
    pub fn root(&self) -> Kubectl {
        Kubectl::new(self.kubeconfig("super"), self.folder.path().join("kubectl"))
    }

    /// Makes a tenant; its plane, as its administrator.
    #[track_caller]
    pub fn tenant(&self, name: &str) -> Kubectl {
        let kubeconfig = self.kubeconfig(name);
        let file = kubeconfig.to_str().expect("temporary folders have simple names");
        self.run(&["tenant", "create", name, "--kubeconfig", file]);
        self.known_tenant(name)
    }

    /// A tenant whose kubeconfig has been written.
    pub fn known_tenant(&self, name: &str) -> Kubectl {
        Kubectl::new(self.kubeconfig(name), self.folder.path().join("kubectl"))
    }

    #[track_caller]
    pub fn import(&self, image: &Image) {
        let archive = self.folder.path().join("image.tar");
        image
            .write_docker_archive(&archive)
            .expect("the archive can be written");
        let file = archive.to_str().expect("temporary folders have simple names");
        let said = self.run(&["image", "import", file]);
        assert!(said.contains(&image.reference), "{said}");
        fs::remove_file(archive).expect("it was written just now");
    }

    /// Imports the image of `examples/web.yaml`: busybox and nothing else.
    #[track_caller]
    pub fn import_web_image(&self) {
        self.import(&web_image());
    }

    /// The log's end, for messages of failed tests.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.data_dir().join("mangrove.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    #[track_caller]
    pub fn down(&self) -> String {
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().expect("temporary folders have simple names");
        self.run(&["down", "--data-dir", data_dir])
    }

    /// Ends the platform and asserts that nothing of it is left on the machine.
    #[track_caller]
    pub fn finish(self) {
        self.down();
        let leftovers = self.machine().leftovers();
        assert!(leftovers.is_empty(), "left behind by `mangrove down`: {leftovers:#?}");
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- the platform's log ends with:\n{}", self.log());
            let sockets = Command::new("ss").args(["-Hlntp"]).output();
            let sockets = sockets.map(|output| output.stdout).unwrap_or_default();
            eprintln!("-- who listens:\n{}", String::from_utf8_lossy(&sockets));
            if let Ok(folder) = std::env::var("MANGROVE_TEST_KEEP") {
                let _ = fs::copy(
                    self.data_dir().join("mangrove.log"),
                    Path::new(&folder).join("mangrove.log"),
                );
            }
        }
        // Whatever still runs is killed with the machine; mounts below the folder have to go before the folder can.
        drop(self.machine.take());
        unmount_below(&[self.folder.path()]);
    }
}

/// Busybox and nothing else.
pub fn web_image() -> Image {
    let image = ImageBuilder::busybox(WEB_IMAGE).and_then(ImageBuilder::build);
    image.expect("busybox-static is installed")
}

fn unmount_below(folders: &[&Path]) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below: Vec<&str> = points
        .filter(|point| folders.iter().any(|folder| Path::new(point).starts_with(folder)))
        .collect();
    // The last mounted is on top.
    for point in below.into_iter().rev() {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}
