//! Servers end, crash and come back; containers don't notice.

mod machine;

use std::io::BufRead;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_cri::v1;
use machine::{Machine, container_config, missing};

/// A server in a process of its own, to be killed.
struct Server(Child);

impl Server {
    fn start(machine: &Machine) -> Server {
        let options = &machine.options;
        let mut child = Command::new(&options.supervisor_exe)
            .arg("serve")
            .args([&options.root, &options.run, &options.socket])
            .args([&options.pod_cidr, &options.device, &options.cgroup_root])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "serving\n");
        while std::os::unix::net::UnixStream::connect(&options.socket).is_err() {
            std::thread::yield_now();
        }
        Server(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn counting() -> v1::ContainerConfig {
    container_config(
        "main",
        &["sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done"],
    )
}

/// Numbers in a log follow each other without a gap.
fn without_gap(log: &[String]) -> usize {
    for (index, line) in log.iter().enumerate() {
        assert_eq!(*line, format!("stdout F {}", index + 1));
    }
    log.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_and_starts_finds_everything_as_it_was() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let mut machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let address = cri.address(&sandbox).await;
    let running = cri.run(&sandbox, counting()).await;
    let started = cri.status(&running).await.started_at;
    let ended = cri
        .run(&sandbox, container_config("ended", &["sh", "-c", "exit 9"]))
        .await;
    let created = cri.create(&sandbox, container_config("created", &["true"])).await;
    let ends_meanwhile = container_config("meanwhile", &["sh", "-c", "sleep 0.3; exit 4"]);
    let meanwhile = cri.run(&sandbox, ends_meanwhile).await;
    cri.ended(&ended).await;

    machine.stop().await;
    let before = without_gap(&cri.log("web", "main"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    machine.start().await;
    let mut cri = machine.cri().await;

    assert_eq!(cri.sandbox("web").await, sandbox);
    assert_eq!(cri.address(&sandbox).await, address);
    assert_eq!(cri.status(&running).await.started_at, started);
    assert_eq!(cri.status(&ended).await.exit_code, 9);
    let status = cri.ended(&meanwhile).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (4, "Error"));
    cri.start(&created).await;
    assert_eq!(cri.ended(&created).await.reason, "Completed");
    assert_eq!(cri.exec_text(&running, &["echo", "alive"]).await, "alive");
    assert!(without_gap(&cri.log("web", "main")) > before + 10);
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_server_touches_no_container() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let mut machine = Machine::ready().await;
    machine.stop().await;
    let mut server = Server::start(&machine);
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let container = cri.run(&sandbox, counting()).await;
    let status = cri.status(&container).await;

    for _ in 0..5 {
        server.kill();
        server = Server::start(&machine);
        let mut cri = machine.cri().await;
        assert_eq!(cri.status(&container).await, status);
        assert_eq!(cri.exec_text(&container, &["echo", "alive"]).await, "alive");
    }

    server.kill();
    machine.start().await;
    without_gap(&machine.cri().await.log("web", "main"));
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_server_at_any_moment_leaves_nothing_half_made() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let mut machine = Machine::ready().await;
    machine.stop().await;
    // Twenty moments spread over the making of a sandbox and a container.
    for moment in 0..20u32 {
        let server = Server::start(&machine);
        let mut cri = machine.cri().await;
        let name = format!("pod-{moment}");
        let making = tokio::spawn(async move {
            let config = machine::sandbox_config(&name, &cri.logs);
            let request = v1::RunPodSandboxRequest {
                config: Some(config),
                runtime_handler: String::new(),
            };
            let sandbox = cri.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
            let request = v1::CreateContainerRequest {
                pod_sandbox_id: sandbox,
                config: Some(container_config("main", &["sleep", "1000"])),
                sandbox_config: None,
            };
            let container_id = cri.runtime.create_container(request).await?.into_inner().container_id;
            cri.runtime
                .start_container(v1::StartContainerRequest { container_id })
                .await
        });
        tokio::time::sleep(Duration::from_millis(u64::from(moment) * 8)).await;
        server.kill();
        let _ = making.await.unwrap();
    }

    machine.start().await;
    let mut cri = machine.cri().await;
    let request = v1::ListPodSandboxRequest { filter: None };
    let sandboxes = cri.runtime.list_pod_sandbox(request).await.unwrap().into_inner().items;
    for sandbox in &sandboxes {
        assert_eq!(sandbox.state, v1::PodSandboxState::SandboxReady as i32);
    }
    let root = &machine.options.root;
    let count = |folder: &str| std::fs::read_dir(root.join(folder)).unwrap().count();
    assert_eq!(count("sandboxes"), sandboxes.len());
    let last = usize::from(root.join("addresses/last").exists());
    assert_eq!(count("addresses") - last, sandboxes.len());
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().flatten().filter(|entry| {
        let maker = std::fs::read_to_string(entry.path().join("ifalias")).unwrap_or_default();
        maker.trim() == machine.options.device
    });
    assert_eq!(interfaces.count(), sandboxes.len());
    for sandbox in sandboxes {
        cri.remove_sandbox(&sandbox.id).await;
    }
    assert_eq!((count("sandboxes"), count("containers")), (0, 0));
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_supervisor_dies_its_containers_are_ended_and_told_of() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let container = cri.run(&sandbox, container_config("main", &["sleep", "1000"])).await;
    let request = v1::PodSandboxStatusRequest {
        pod_sandbox_id: sandbox.clone(),
        verbose: true,
    };
    let status = cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
    let pid = info["pid"].as_i64().unwrap() as i32;

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();

    let status = cri.ended(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Unknown"));
    let mut events = cri.events().await;
    while cri.sandbox_status(&sandbox).await.state == v1::PodSandboxState::SandboxReady as i32 {
        tokio::time::timeout(Duration::from_secs(10), events.message())
            .await
            .unwrap()
            .unwrap();
    }
    cri.remove_sandbox(&sandbox).await;
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_dies_while_its_sandbox_is_made_leaves_none_that_is_ready() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    const ROUNDS: u64 = 40;
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let folder = machine.options.root.join("sandboxes");
    for round in 0..ROUNDS {
        let request = v1::RunPodSandboxRequest {
            config: Some(machine::sandbox_config(
                &format!("web-{round}"),
                &machine.options.root.join("logs"),
            )),
            runtime_handler: String::new(),
        };
        let making = tokio::spawn({
            let mut cri = cri.clone();
            async move { cri.runtime.run_pod_sandbox(request).await }
        });
        let victim = loop {
            let mut records = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let record = records.find_map(|entry| std::fs::read(entry.path().join("supervisor.json")).ok());
            let record = record.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
            match record.and_then(|record| record["process"]["pid"].as_i64()) {
                Some(pid) => break nix::unistd::Pid::from_raw(pid as i32),
                None if making.is_finished() => panic!("no supervisor was seen: {:?}", making.await),
                None => tokio::time::sleep(Duration::from_micros(50)).await,
            }
        };
        tokio::time::sleep(Duration::from_micros(round * 100)).await;

        nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).unwrap();

        // Before it was made it is not made; after that it is, and ends.
        let Ok(made) = making.await.unwrap() else { continue };
        let sandbox = made.into_inner().pod_sandbox_id;
        let ended = async {
            while cri.sandbox_status(&sandbox).await.state == v1::PodSandboxState::SandboxReady as i32 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended)
            .await
            .unwrap_or_else(|_| panic!("round {round}: its supervisor has gone, and it is said to be ready"));
        cri.remove_sandbox(&sandbox).await;
    }
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_dies_while_its_container_is_started_lets_nobody_wait() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    const ROUNDS: u64 = 40;
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    for round in 0..ROUNDS {
        let sandbox = cri.sandbox(&format!("web-{round}")).await;
        let record = machine
            .options
            .root
            .join("sandboxes")
            .join(&sandbox)
            .join("supervisor.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        let supervisor = nix::unistd::Pid::from_raw(record["process"]["pid"].as_i64().unwrap() as i32);
        let container = cri.create(&sandbox, container_config("main", &["sleep", "1000"])).await;
        let request = v1::StartContainerRequest {
            container_id: container.clone(),
        };
        let starting = tokio::spawn({
            let mut cri = cri.clone();
            async move { cri.runtime.start_container(request).await }
        });
        tokio::time::sleep(Duration::from_micros(round * 1000)).await;

        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();

        let ended = async {
            let _ = starting.await.unwrap();
            while cri.sandbox_status(&sandbox).await.state == v1::PodSandboxState::SandboxReady as i32 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended)
            .await
            .unwrap_or_else(|_| panic!("round {round}: nobody was told that the supervisor has gone"));
        cri.remove_sandbox(&sandbox).await;
    }
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_dies_is_told_of_and_leaves_nothing() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    const ROUNDS: u32 = 40;
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let record = machine
        .options
        .root
        .join("sandboxes")
        .join(&sandbox)
        .join("supervisor.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let supervisor = record["process"]["pid"].as_i64().unwrap();
    let children = || {
        let text = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
        let pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.collect::<Vec<i32>>()
    };
    let mut died = 0;
    for round in 0..ROUNDS {
        let before = children();
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: "main".into(),
                attempt: round,
            }),
            ..container_config("main", &["sleep", "1000"])
        };
        let container = cri.create(&sandbox, config).await;
        let request = v1::StartContainerRequest {
            container_id: container.clone(),
        };
        let starting = tokio::spawn({
            let mut cri = cri.clone();
            async move { cri.runtime.start_container(request).await }
        });
        let helper = loop {
            match children().into_iter().find(|pid| !before.contains(pid)) {
                Some(pid) => break nix::unistd::Pid::from_raw(pid),
                None => tokio::time::sleep(Duration::from_micros(50)).await,
            }
        };
        tokio::time::sleep(Duration::from_micros(u64::from(round) * 500)).await;

        // It may have done its work.
        let _ = nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL);

        let started = tokio::time::timeout(Duration::from_secs(20), starting)
            .await
            .unwrap_or_else(|_| panic!("round {round}: nobody was told that the helper died"))
            .unwrap();
        if let Err(refusal) = started {
            assert!(refusal.message().contains("helper process died"), "{refusal}");
            died += 1;
        }
        let request = v1::RemoveContainerRequest {
            container_id: container,
        };
        cri.runtime.remove_container(request).await.unwrap();
    }
    assert!(died > 0);
    // The pid namespace's holder, if there is one, was there before.
    let left = async {
        while children().len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), left)
        .await
        .unwrap_or_else(|_| panic!("left: {:?}", children()));
    cri.run(&sandbox, container_config("after", &["sleep", "1000"])).await;
    cri.stop_sandbox(&sandbox).await;
    cri.remove_sandbox(&sandbox).await;
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_killed_while_commands_are_brought_into_it_leaves_no_control_group() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    for round in 0..10u32 {
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: "main".into(),
                attempt: round,
            }),
            ..container_config("main", &["sleep", "1000"])
        };
        let container = cri.run(&sandbox, config).await;
        let file = machine
            .options
            .root
            .join("containers")
            .join(&container)
            .join("state.json");
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let pid = nix::unistd::Pid::from_raw(state["pid"].as_i64().unwrap() as i32);
        let commands = (0..4).map(|_| {
            let (mut cri, container) = (cri.clone(), container.clone());
            tokio::spawn(async move { cri.try_exec(&container, &["true"], 5).await.is_ok() })
        });
        let commands: Vec<_> = commands.collect();
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 4)).await;

        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();

        assert_eq!(cri.ended(&container).await.exit_code, 137);
        for command in commands {
            let _ = command.await.unwrap();
        }
    }
    // All helpers have ended, or do in a moment.
    let left = || {
        let groups = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let of_sandbox = |root: std::path::PathBuf| root.join(&machine.options.cgroup_root).join(&sandbox);
        let folders = groups.map(|group| of_sandbox(group.path()));
        let inside = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        inside
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    for _ in 0..200 {
        if left().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(left().is_empty(), "{:?}", left());
    cri.stop_sandbox(&sandbox).await;
    cri.remove_sandbox(&sandbox).await;
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_back_and_are_not_used_again_at_once() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let mut seen = std::collections::HashSet::new();
    // The range of a test has 13 addresses, so this goes round.
    for number in 0..15 {
        let sandbox = cri.sandbox(&format!("pod-{number}")).await;
        let address = cri.address(&sandbox).await;
        assert_eq!(seen.insert(address.clone()), number < 13, "{address} in round {number}");
        cri.stop_sandbox(&sandbox).await;
        cri.remove_sandbox(&sandbox).await;
    }
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runtimes_never_share_a_folder() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let error = runtime::Runtime::open(machine.options.clone())
        .await
        .err()
        .expect("a refusal");
    assert!(error.to_string().contains("in use"), "{error}");
    machine.take_down().await;
}
