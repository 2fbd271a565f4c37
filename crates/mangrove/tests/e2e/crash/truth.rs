//! What there is of Pods on a machine, in the kernel and on disk, beside what the store says there should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use testkit::{platform::Platform, said::Said, vitals::Vitals};

use crate::other_machines::OtherMachine;

/// Interfaces of sandboxes on the host are called so.
const INTERFACE_PREFIX: &str = "mgv";

/// How many descriptors more a server or an agent may have than the first time it was at rest, besides one a sandbox: an agent has a
/// connection for each object that its Pods refer to (four a tenant), and some that were needed at the same time and are kept.
const DESCRIPTORS_SLACK: u64 = 24;

/// A machine that runs Pods.
pub struct Ground {
    pub node: String,
    data: PathBuf,
    /// The control group of everything that runs there.
    group: String,
    /// A process in its namespaces, if they are not the test's own.
    inside: Option<u32>,
    /// The addresses of its Pods begin so.
    range: &'static str,
}

/// A sandbox that runs.
struct Sandbox {
    pod_uid: String,
    address: String,
    interface: String,
    supervisor_pid: u32,
}

/// A Pod of the super plane.
struct Pod {
    name: String,
    node: String,
    address: String,
    has_ended: bool,
}

/// What the super plane says, by uid.
pub struct Wanted(BTreeMap<String, Pod>);

/// How many descriptors the processes had when they were first seen at rest.
#[derive(Default)]
pub struct Descriptors(BTreeMap<u32, u64>);

pub fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Wanted {
    pub fn read(platform: &Platform) -> Wanted {
        let pods = platform.root().json(&["get", "pods", "-A"]);
        let pods = pods["items"].as_array().expect("a list").iter().map(|pod| {
            let (metadata, status) = (&pod["metadata"], &pod["status"]);
            let pod = Pod {
                name: text(&metadata["name"]),
                node: text(&pod["spec"]["nodeName"]),
                address: text(&status["podIP"]),
                has_ended: status["phase"] == "Failed" || status["phase"] == "Succeeded",
            };
            (text(&metadata["uid"]), pod)
        });
        Wanted(pods.collect())
    }

    /// Sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.values().map(|pod| pod.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn addresses(&self) -> BTreeSet<&str> {
        let running = self.0.values().filter(|pod| !pod.has_ended);
        running.map(|pod| pod.address.as_str()).collect()
    }
}

impl Ground {
    pub fn first(platform: &Platform) -> Ground {
        let nodes = platform.root().names(&["nodes"]);
        let node = nodes.into_iter().find(|name| name != "second");
        Ground {
            node: node.expect("the platform's own node"),
            data: platform.data_dir(),
            group: "mangrove".to_owned(),
            inside: None,
            range: "10.244.0.",
        }
    }

    pub fn second(second: &OtherMachine) -> Ground {
        Ground {
            node: second.name.to_owned(),
            data: second.data_dir().to_owned(),
            group: second.cgroup(),
            inside: Some(second.first()),
            range: "10.244.1.",
        }
    }

    pub fn runtime(&self) -> PathBuf {
        self.data.join("runtime")
    }

    fn said(&self, arguments: &[&str]) -> String {
        let mut command = match self.inside {
            None => Command::new(arguments[0]),
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.args(["--net", "--mount", "--target", &pid.to_string(), arguments[0]]);
                command
            }
        };
        Said::of(command.args(&arguments[1..])).out()
    }

    fn mounts(&self) -> Vec<String> {
        let table = match self.inside {
            None => "/proc/thread-self/mountinfo".to_owned(),
            Some(pid) => format!("/proc/{pid}/mountinfo"),
        };
        let table = fs::read_to_string(table).expect("the machine runs");
        table
            .lines()
            .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
            .collect()
    }

    fn run_folder(&self) -> PathBuf {
        let root = self
            .inside
            .map_or(PathBuf::from("/"), |pid| format!("/proc/{pid}/root").into());
        root.join("run/mangrove/runtime/sandboxes")
    }

    /// Supervisors with the folders of their sandboxes.
    pub fn supervisors(&self, platform: &Platform) -> Vec<(PathBuf, u32)> {
        let sandboxes = self.runtime().join("sandboxes");
        let here = platform.supervisors().into_iter().filter_map(|pid| {
            let folder = supervised(pid)?;
            folder.starts_with(&sandboxes).then_some((folder, pid))
        });
        here.collect()
    }

    /// Everything that is there and should not be, and the other way round.
    pub fn faults(&self, platform: &Platform, wanted: &Wanted) -> Vec<String> {
        let mut faults = Faults {
            node: &self.node,
            found: Vec::new(),
        };
        let running = self.sandboxes(platform, &mut faults);
        self.pods_run_once(wanted, &running, &mut faults);
        self.network(wanted, &running, &mut faults);
        self.control_groups(&running, &mut faults);
        self.folders(wanted, &running, &mut faults);
        faults.found
    }

    fn sandboxes(&self, platform: &Platform, faults: &mut Faults) -> BTreeMap<String, Sandbox> {
        let mut running = BTreeMap::new();
        let supervisors = self.supervisors(platform);
        let mut recorded = BTreeSet::new();
        for id in names(&self.runtime().join("sandboxes")) {
            let record = read(&self.runtime().join("sandboxes").join(&id).join("sandbox.json"));
            match record["stopped"].as_bool() {
                None => faults.add(format!("sandbox {id} is half made")),
                Some(true) => {}
                Some(false) => {
                    recorded.insert(id.clone());
                    let sandbox = Sandbox {
                        pod_uid: text(&record["config"]["metadata"]["uid"]),
                        address: text(&record["address"]),
                        interface: text(&record["host_interface"]),
                        supervisor_pid: u32::try_from(record["supervisor_pid"].as_u64().unwrap_or_default())
                            .expect("pids are small"),
                    };
                    running.insert(id, sandbox);
                }
            }
        }
        let ids = supervisors
            .iter()
            .filter_map(|(folder, _)| folder.file_name()?.to_str());
        let mut supervised: Vec<String> = ids.map(str::to_owned).collect();
        supervised.sort();
        faults.differ("supervisors", &supervised, &recorded.into_iter().collect());
        running
    }

    fn pods_run_once(&self, wanted: &Wanted, running: &BTreeMap<String, Sandbox>, faults: &mut Faults) {
        let mut sandboxes: Vec<&str> = running.values().map(|sandbox| sandbox.pod_uid.as_str()).collect();
        sandboxes.sort_unstable();
        let here = wanted
            .0
            .iter()
            .filter(|(_, pod)| pod.node == self.node && !pod.has_ended);
        let pods: Vec<&str> = here.map(|(uid, _)| uid.as_str()).collect();
        faults.differ("Pods with sandboxes", &sandboxes, &pods);
        for sandbox in running.values() {
            let address = wanted.0.get(&sandbox.pod_uid).map(|pod| pod.address.as_str());
            if address != Some(sandbox.address.as_str()) {
                faults.add(format!("{} is told to have {address:?}", sandbox.address));
            }
        }
        let mut of_pods: BTreeMap<(String, String), usize> = BTreeMap::new();
        for id in names(&self.runtime().join("containers")) {
            let folder = self.runtime().join("containers").join(&id);
            let record = read(&folder.join("container.json"));
            let sandbox = text(&record["sandbox"]);
            let of_sandbox = read(&self.runtime().join("sandboxes").join(&sandbox).join("sandbox.json"));
            let uid = text(&of_sandbox["config"]["metadata"]["uid"]);
            if !wanted.0.contains_key(&uid) {
                faults.add(format!("container {id} of no Pod ({uid:?})"));
            }
            let state = read(&folder.join("state.json"));
            if state["exit"].is_null() {
                *of_pods
                    .entry((uid, text(&record["config"]["metadata"]["name"])))
                    .or_default() += 1;
                if !running.contains_key(&sandbox) {
                    faults.add(format!("container {id} runs in no sandbox"));
                }
            }
        }
        for (container, count) in of_pods.iter().filter(|(_, count)| **count != 1) {
            faults.add(format!("container {container:?} is there {count} times"));
        }
        // Each Pod of this test has one.
        faults.differ(
            "Pods with containers",
            &of_pods.keys().map(|(uid, _)| uid.as_str()).collect(),
            &pods,
        );
    }

    fn network(&self, wanted: &Wanted, running: &BTreeMap<String, Sandbox>, faults: &mut Faults) {
        let of_running =
            |what: fn(&Sandbox) -> &String| -> BTreeSet<String> { running.values().map(what).cloned().collect() };
        let addresses = of_running(|sandbox| &sandbox.address);
        let links = self.said(&["ip", "-o", "link"]);
        // Of "5: name@peer: <FLAGS> ..." the name.
        let interfaces = links.lines().filter_map(|line| line.split([' ', '@', ':']).nth(2));
        let interfaces = interfaces
            .filter(|name| name.starts_with(INTERFACE_PREFIX))
            .map(str::to_owned)
            .collect();
        faults.differ("interfaces", &interfaces, &of_running(|sandbox| &sandbox.interface));
        let routes = self.said(&["ip", "-4", "route"]);
        let routes = routes
            .lines()
            .filter(|line| line.contains(&format!("dev {INTERFACE_PREFIX}")));
        let routes = routes
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        faults.differ("routes", &routes, &addresses);
        let folder = self.runtime().join("addresses");
        let given: BTreeSet<(String, String)> = names(&folder)
            .into_iter()
            .filter(|name| name != "last")
            .map(|address| (fs::read_to_string(folder.join(&address)).unwrap_or_default(), address))
            .collect();
        let held = running
            .iter()
            .map(|(id, sandbox)| (id.clone(), sandbox.address.clone()));
        faults.differ("addresses given", &given, &held.collect());
        let rules = self.said(&["nft", "list", "ruleset"]);
        let all = wanted.addresses();
        let known = rules
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|word| word.starts_with(self.range) && !word.ends_with(".0") && !word.ends_with(".1"));
        for address in known.collect::<BTreeSet<_>>() {
            if !all.contains(address) {
                faults.add(format!("packet rules know {address}, which is no Pod's"));
            }
        }
        // One namespace a sandbox, whoever is in it.
        let spaces: BTreeSet<PathBuf> = self
            .members()
            .into_iter()
            .filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok())
            .collect();
        if spaces.len() != running.len() {
            faults.add(format!(
                "{} network namespaces for {} sandboxes",
                spaces.len(),
                running.len()
            ));
        }
    }

    /// The group in each hierarchy.
    fn groups(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let unified = PathBuf::from("/sys/fs/cgroup");
        roots
            .map(|root| root.path())
            .chain([unified])
            .map(|root| root.join(&self.group))
            .filter(|group| group.is_dir())
            .collect()
    }

    /// All processes of the machine's Pods.
    fn members(&self) -> BTreeSet<u32> {
        let mut members = BTreeSet::new();
        let mut folders = self.groups();
        while let Some(folder) = folders.pop() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            members.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            folders.extend(
                names(&folder)
                    .into_iter()
                    .map(|name| folder.join(name))
                    .filter(|path| path.is_dir()),
            );
        }
        members
    }

    fn control_groups(&self, running: &BTreeMap<String, Sandbox>, faults: &mut Faults) {
        let containers: BTreeSet<String> = names(&self.runtime().join("containers"))
            .into_iter()
            .filter(|id| read(&self.runtime().join("containers").join(id).join("state.json"))["exit"].is_null())
            .collect();
        for group in self.groups() {
            for name in folders(&group) {
                if name != "supervisors" && !running.contains_key(&name) {
                    faults.add(format!("control group {}", group.join(name).display()));
                    continue;
                }
                for inner in folders(&group.join(&name)) {
                    if !containers.contains(&inner) {
                        faults.add(format!("control group {}", group.join(&name).join(inner).display()));
                    }
                }
            }
            // Where a container's group was never made, its processes are still counted here.
            if group.join("memory.stat").exists() {
                let text = fs::read_to_string(group.join("supervisors/cgroup.procs")).unwrap_or_default();
                let members: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
                let supervisors = running.values().map(|sandbox| sandbox.supervisor_pid).collect();
                faults.differ("processes beside containers", &members, &supervisors);
            }
        }
    }

    fn folders(&self, wanted: &Wanted, running: &BTreeMap<String, Sandbox>, faults: &mut Faults) {
        let ids: BTreeSet<String> = running.keys().cloned().collect();
        faults.differ("run folders", &names(&self.run_folder()).into_iter().collect(), &ids);
        let of_node: BTreeSet<String> = wanted
            .0
            .iter()
            .filter(|(_, pod)| pod.node == self.node)
            .map(|(uid, _)| uid.clone())
            .collect();
        let pods = self.data.join("node/pods");
        faults.differ("Pods' folders", &names(&pods).into_iter().collect(), &of_node);
        let logs = names(&self.data.join("node/logs")).into_iter();
        let logs = logs.map(|name| name.rsplit('_').next().unwrap_or_default().to_owned());
        faults.differ("Pods' logs", &logs.collect(), &of_node);

        let mut shared = BTreeSet::new();
        for point in self.mounts() {
            if let Ok(rest) = Path::new(&point).strip_prefix("/run/mangrove/runtime/sandboxes") {
                let id = rest.iter().next().unwrap_or_default().to_string_lossy().into_owned();
                if !shared.insert(id) {
                    faults.add(format!("mounted twice: {point}"));
                }
            }
            if let Ok(rest) = Path::new(&point).strip_prefix(&pods) {
                let uid = rest.iter().next().unwrap_or_default().to_string_lossy().into_owned();
                if !of_node.contains(&uid) {
                    faults.add(format!("mounted for no Pod: {point}"));
                }
            }
        }
        faults.differ("mounts of shared memory", &shared, &ids);
    }
}

impl Descriptors {
    /// Compares with the first time that each process was at rest; `keepers` are servers and agents, which hold one more for
    /// each sandbox.
    pub fn faults(&mut self, keepers: &[(u32, usize)], supervisors: &[u32]) -> Vec<String> {
        let keepers = keepers
            .iter()
            .map(|(pid, sandboxes)| (*pid, *sandboxes as u64, DESCRIPTORS_SLACK));
        let supervisors = supervisors.iter().map(|pid| (*pid, 0, 0));
        let mut now = BTreeMap::new();
        let mut faults = Vec::new();
        for (pid, own, slack) in keepers.chain(supervisors) {
            let Some(vitals) = Vitals::of(pid) else { continue };
            let count = vitals.descriptors.saturating_sub(own);
            let first = self.0.get(&pid).copied().unwrap_or(count);
            if count > first + slack {
                faults.push(format!("process {pid} has {count} open files, and had {first}"));
            }
            now.insert(pid, first.min(count));
        }
        if faults.is_empty() {
            self.0 = now;
        }
        faults
    }
}

struct Faults<'a> {
    node: &'a str,
    found: Vec<String>,
}

impl Faults<'_> {
    fn add(&mut self, fault: String) {
        self.found.push(format!("{}: {fault}", self.node));
    }

    fn differ<T: PartialEq + Debug>(&mut self, what: &str, there: &T, wanted: &T) {
        if there != wanted {
            self.add(format!("{what}: there are {there:?}, there should be {wanted:?}"));
        }
    }
}

/// The folder of the sandbox that a supervisor is for.
pub fn supervised(pid: u32) -> Option<PathBuf> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    line.split('\0').nth(2).map(PathBuf::from)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn folders(folder: &Path) -> Vec<String> {
    names(folder)
        .into_iter()
        .filter(|name| folder.join(name).is_dir())
        .collect()
}
