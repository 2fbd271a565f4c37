//! What a container may be asked to be: its user, its powers, its mounts, its limits.

mod machine;

use std::collections::HashMap;

use k8s_cri::v1;
use machine::{Cri, Machine, container_config, missing, sandbox_config};

fn with_security(mut config: v1::ContainerConfig, security: v1::LinuxContainerSecurityContext) -> v1::ContainerConfig {
    config.linux = Some(v1::LinuxContainerConfig {
        security_context: Some(security),
        resources: None,
    });
    config
}

fn sleeping(name: &str) -> v1::ContainerConfig {
    container_config(name, &["sleep", "1000"])
}

/// Runs a shell line as its own container and returns what it printed.
async fn output(cri: &mut Cri, sandbox: (&str, &str), mut config: v1::ContainerConfig, line: &str) -> String {
    config.command = vec!["sh".into(), "-c".into(), line.into()];
    let name = config.metadata.clone().unwrap().name;
    let container = cri.run(sandbox.1, config).await;
    cri.ended(&container).await;
    let log = cri.log(sandbox.0, &name);
    let lines = log
        .iter()
        .map(|line| line.splitn(3, ' ').nth(2).unwrap_or("").to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_groups_are_those_asked_for() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let user = |uid, gid: Option<i64>, groups: &[i64], policy| v1::LinuxContainerSecurityContext {
        run_as_user: Some(v1::Int64Value { value: uid }),
        run_as_group: gid.map(|value| v1::Int64Value { value }),
        supplemental_groups: groups.to_vec(),
        supplemental_groups_policy: policy,
        ..Default::default()
    };
    let id = "id -u; id -g; id -G; echo through > /dev/stdout";
    for (name, security, expected) in [
        (
            "numbers",
            user(1000, Some(2000), &[3000], 0),
            "1000\n2000\n2000 3000\nthrough",
        ),
        ("merged", user(33, None, &[], 0), "33\n44\n44 50\nthrough"),
        ("strict", user(33, None, &[7], 1), "33\n44\n44 7\nthrough"),
    ] {
        let config = with_security(container_config(name, &[]), security);
        let text = output(&mut cri, ("web", &sandbox), config, id).await;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut groups: Vec<&str> = lines[2].split(' ').collect();
        groups.sort_unstable();
        lines[2] = groups.join(" ");
        assert_eq!(lines.join("\n"), expected, "{name}");
    }
    let named = v1::LinuxContainerSecurityContext {
        run_as_username: "nobody-here".into(),
        ..Default::default()
    };
    let container = cri.create(&sandbox, with_security(sleeping("named"), named)).await;
    let request = v1::StartContainerRequest {
        container_id: container,
    };
    let error = cri.runtime.start_container(request).await.unwrap_err();
    assert!(error.message().contains("nobody-here"), "{error}");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn powers_and_paths_are_taken_away_and_given() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let capabilities = |add: &[&str], drop: &[&str]| {
        Some(v1::Capability {
            add_capabilities: add.iter().map(|name| (*name).to_owned()).collect(),
            drop_capabilities: drop.iter().map(|name| (*name).to_owned()).collect(),
            add_ambient_capabilities: Vec::new(),
        })
    };

    let bare = v1::LinuxContainerSecurityContext {
        capabilities: capabilities(&["NET_BIND_SERVICE"], &["ALL"]),
        no_new_privs: true,
        readonly_rootfs: true,
        masked_paths: vec!["/proc/cpuinfo".into()],
        readonly_paths: vec!["/proc/sys".into()],
        ..Default::default()
    };
    let line = "grep -E 'CapEff|NoNewPrivs' /proc/self/status | busybox tr -d '\\t'; wc -c < /proc/cpuinfo; \
                touch /here 2>&1; echo 1 > /proc/sys/net/ipv4/ip_forward";
    let line = line.replacen("grep", "busybox grep", 1);
    let config = with_security(container_config("bare", &[]), bare);
    let text = output(&mut cri, ("web", &sandbox), config, &line).await;
    assert!(text.contains("CapEff:0000000000000400\nNoNewPrivs:1\n0\n"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");

    let privileged = v1::LinuxContainerSecurityContext {
        privileged: true,
        ..Default::default()
    };
    let line = "mount -t tmpfs none /tmp && echo mounted; ls -d /dev/kmsg; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written";
    let config = with_security(container_config("privileged", &[]), privileged);
    let text = output(&mut cri, ("web", &sandbox), config, line).await;
    assert!(text.contains("mounted") && text.contains("written"), "{text}");
    let line = "mount -t tmpfs none /tmp";
    let text = output(&mut cri, ("web", &sandbox), container_config("plain", &[]), line).await;
    assert!(text.contains("ermi") || text.contains("denied"), "{text}");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_the_host_are_seen_as_asked() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let host = machine.folder.path().join("volume");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "of the host").unwrap();
    let mount = |to: &str, readonly| v1::Mount {
        container_path: to.into(),
        host_path: host.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    };
    let mut config = container_config("main", &[]);
    config.mounts = vec![mount("/data/rw", false), mount("/data/ro", true)];
    config.mounts.push(v1::Mount {
        container_path: "/made".into(),
        host_path: machine
            .folder
            .path()
            .join("not/there/yet")
            .to_string_lossy()
            .into_owned(),
        ..Default::default()
    });

    let line = "cat /data/ro/file; echo; echo x > /data/rw/new; touch /data/ro/no 2>&1; echo y > /made/file";
    let text = output(&mut cri, ("web", &sandbox), config, line).await;

    assert!(
        text.starts_with("of the host") && text.contains("Read-only file system"),
        "{text}"
    );
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "x\n");
    assert!(machine.folder.path().join("not/there/yet/file").exists());
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_of_the_host_reach_a_running_container_and_back_if_asked() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let shared = machine.folder.path().join("shared");
    std::fs::create_dir_all(shared.join("from-host")).unwrap();
    std::fs::create_dir_all(shared.join("from-container")).unwrap();
    let none = None::<&str>;
    let flags = |flags| flags;
    nix::mount::mount(Some(&shared), &shared, none, flags(nix::mount::MsFlags::MS_BIND), none).unwrap();
    nix::mount::mount(none, &shared, none, flags(nix::mount::MsFlags::MS_SHARED), none).unwrap();
    let config = |name: &str, propagation: v1::MountPropagation| {
        let mut config = with_security(
            sleeping(name),
            v1::LinuxContainerSecurityContext {
                privileged: true,
                ..Default::default()
            },
        );
        config.mounts = vec![v1::Mount {
            container_path: "/shared".into(),
            host_path: shared.to_string_lossy().into_owned(),
            propagation: propagation as i32,
            ..Default::default()
        }];
        config
    };
    let both = cri
        .run(&sandbox, config("both", v1::MountPropagation::PropagationBidirectional))
        .await;
    let slave = cri
        .run(
            &sandbox,
            config("slave", v1::MountPropagation::PropagationHostToContainer),
        )
        .await;
    let private = cri
        .run(&sandbox, config("private", v1::MountPropagation::PropagationPrivate))
        .await;

    let target = shared.join("from-host");
    nix::mount::mount(
        Some("tmpfs"),
        &target,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        none,
    )
    .unwrap();
    std::fs::write(target.join("file"), "x").unwrap();
    let sees = ["test", "-e", "/shared/from-host/file"];
    for (container, code) in [(&both, 0), (&slave, 0), (&private, 1)] {
        let command = ["sh", "-c", &format!("{} {} {}", sees[0], sees[1], sees[2])];
        assert_eq!(cri.exec(container, &command).await.exit_code, code);
    }
    for (container, seen) in [(&slave, false), (&both, true)] {
        let line = "mount -t tmpfs none /shared/from-container && echo y > /shared/from-container/file";
        cri.exec_text(container, &["sh", "-c", line]).await;
        assert_eq!(shared.join("from-container/file").exists(), seen);
    }

    cri.remove_sandbox(&sandbox).await;
    let _ = nix::mount::umount2(&shared.join("from-container"), nix::mount::MntFlags::MNT_DETACH);
    nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH).unwrap();
    nix::mount::umount2(&shared, nix::mount::MntFlags::MNT_DETACH).unwrap();
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_sandbox_share_memory_and_network_and_processes_if_asked() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let mut config = sandbox_config("shared", &cri.logs);
    let linux = config.linux.as_mut().unwrap();
    linux.sysctls = HashMap::from([("net.core.somaxconn".into(), "321".into())]);
    let security = linux.security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = v1::NamespaceMode::Pod as i32;
    let sandbox = cri.sandbox_of(config).await;
    let first = cri.run(&sandbox, sleeping("first")).await;
    let second = cri.run(&sandbox, sleeping("second")).await;

    cri.exec_text(&first, &["sh", "-c", "echo x > /dev/shm/file"]).await;
    assert_eq!(cri.exec_text(&second, &["cat", "/dev/shm/file"]).await, "x");
    assert_eq!(
        cri.exec_text(&first, &["cat", "/proc/sys/net/core/somaxconn"]).await,
        "321"
    );
    let processes = cri.exec_text(&second, &["ps"]).await;
    assert_eq!(processes.matches("sleep 1000").count(), 2, "{processes}");
    // The end of one takes its processes along, not the other's.
    cri.exec(&first, &["sh", "-c", "sleep 2000 >/dev/null 2>&1 &"]).await;
    let request = v1::StopContainerRequest {
        container_id: first,
        timeout: 0,
    };
    cri.runtime.stop_container(request).await.unwrap();
    let processes = cri.exec_text(&second, &["ps"]).await;
    assert_eq!(processes.matches("sleep").count(), 1, "{processes}");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_on_the_hosts_network_has_no_address_of_its_own() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let mut config = sandbox_config("host", &cri.logs);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().network = v1::NamespaceMode::Node as i32;
    let sandbox = cri.sandbox_of(config).await;
    let container = cri.run(&sandbox, sleeping("main")).await;

    assert!(cri.sandbox_status(&sandbox).await.network.is_none());
    let links = cri.exec_text(&container, &["ip", "link"]).await;
    assert!(links.contains(&machine.options.device), "{links}");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_are_changed_and_use_is_measured() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let resources = |memory: i64, quota: i64| v1::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        cpu_quota: quota,
        cpu_period: 100_000,
        cpu_shares: 512,
        ..Default::default()
    };
    let mut config = container_config("main", &["sh", "-c", "while true; do :; done"]);
    config.linux = Some(v1::LinuxContainerConfig {
        resources: Some(resources(64 << 20, 20_000)),
        security_context: None,
    });
    let container = cri.run(&sandbox, config).await;
    let stats = async |cri: &mut Cri| {
        let request = v1::ContainerStatsRequest {
            container_id: container.clone(),
        };
        cri.runtime
            .container_stats(request)
            .await
            .unwrap()
            .into_inner()
            .stats
            .unwrap()
    };

    let first = stats(&mut cri).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let second = stats(&mut cri).await;
    let cpu = |stats: &v1::ContainerStats| stats.cpu.as_ref().unwrap().usage_core_nano_seconds.unwrap().value;
    let used = cpu(&second) - cpu(&first);
    // A fifth of a processor for a second, and some slack; a busy machine may give less, the limit never more.
    assert!((1..350_000_000).contains(&used), "{used}");
    assert!(second.cpu.as_ref().unwrap().usage_nano_cores.is_some());
    let memory = second.memory.as_ref().unwrap();
    assert!(memory.available_bytes.unwrap().value < 64 << 20);

    let request = v1::UpdateContainerResourcesRequest {
        container_id: container.clone(),
        linux: Some(resources(32 << 20, 40_000)),
        ..Default::default()
    };
    cri.runtime.update_container_resources(request).await.unwrap();
    let third = stats(&mut cri).await;
    assert!(third.memory.unwrap().available_bytes.unwrap().value < 32 << 20);
    let kept = cri.status(&container).await.resources.unwrap().linux.unwrap();
    assert_eq!((kept.memory_limit_in_bytes, kept.cpu_quota), (32 << 20, 40_000));

    let request = v1::PodSandboxStatsRequest {
        pod_sandbox_id: sandbox.clone(),
    };
    let of_sandbox = cri
        .runtime
        .pod_sandbox_stats(request)
        .await
        .unwrap()
        .into_inner()
        .stats
        .unwrap();
    let linux = of_sandbox.linux.unwrap();
    assert_eq!(linux.containers.len(), 1);
    assert_eq!(linux.network.unwrap().default_interface.unwrap().name, "eth0");
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_log_goes_on_in_a_new_file_without_loss() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let line = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; sleep 1000";
    let container = cri.run(&sandbox, container_config("main", &["sh", "-c", line])).await;
    let log = cri.logs.join("web/main.log");
    let rotated = cri.logs.join("web/main.log.1");
    while !log.exists() {
        tokio::task::yield_now().await;
    }

    std::fs::rename(&log, &rotated).unwrap();
    let request = v1::ReopenContainerLogRequest {
        container_id: container,
    };
    cri.runtime.reopen_container_log(request).await.unwrap();

    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut all = String::new();
    while !all.contains("F 3000\n") {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        all = read(&rotated) + &read(&log);
    }
    for (index, line) in all.lines().enumerate() {
        assert!(line.ends_with(&format!(" stdout F {}", index + 1)), "{line}");
    }
    assert_eq!(all.lines().count(), 3000);
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_container_makes_only_the_calls_of_its_profile_and_so_do_its_execs() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let localhost = machine.options.root.join("no-mkdir.json");
    let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
    std::fs::write(&localhost, profile.to_string()).unwrap();
    let confined = |kind: v1::security_profile::ProfileType, file: &std::path::Path| {
        Some(v1::SecurityProfile {
            profile_type: kind as i32,
            localhost_ref: file.to_string_lossy().into_owned(),
        })
    };
    use v1::security_profile::ProfileType;
    let none = std::path::Path::new("");
    // A new user namespace takes no right at all: only the filter is in the way.
    let line = "busybox grep -E 'CapBnd|CapEff|CapPrm|Seccomp:' /proc/self/status | busybox tr -d '\\t'; \
                busybox unshare -U true 2>/dev/null && echo unshared; mkdir /tmp/made 2>/dev/null && echo made; rmdir /tmp/made 2>/dev/null; true";
    let default = "00000000a80425fb";

    for (name, security, expected) in [
        (
            "default",
            v1::LinuxContainerSecurityContext {
                seccomp: confined(ProfileType::RuntimeDefault, none),
                ..Default::default()
            },
            format!("CapPrm:{default}\nCapEff:{default}\nCapBnd:{default}\nSeccomp:2\nmade"),
        ),
        (
            "user",
            v1::LinuxContainerSecurityContext {
                seccomp: confined(ProfileType::RuntimeDefault, none),
                run_as_user: Some(v1::Int64Value { value: 1000 }),
                ..Default::default()
            },
            format!("CapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:{default}\nSeccomp:2\nmade"),
        ),
        (
            "bound",
            v1::LinuxContainerSecurityContext {
                seccomp: confined(ProfileType::RuntimeDefault, none),
                no_new_privs: true,
                ..Default::default()
            },
            format!("CapPrm:{default}\nCapEff:{default}\nCapBnd:{default}\nSeccomp:2\nmade"),
        ),
        (
            "localhost",
            v1::LinuxContainerSecurityContext {
                seccomp: confined(ProfileType::Localhost, &localhost),
                ..Default::default()
            },
            format!("CapPrm:{default}\nCapEff:{default}\nCapBnd:{default}\nSeccomp:2\nunshared"),
        ),
        (
            "unconfined",
            v1::LinuxContainerSecurityContext {
                seccomp: confined(ProfileType::Unconfined, none),
                ..Default::default()
            },
            format!("CapPrm:{default}\nCapEff:{default}\nCapBnd:{default}\nSeccomp:0\nunshared\nmade"),
        ),
    ] {
        let config = with_security(container_config(name, &[]), security.clone());
        let text = output(&mut cri, ("web", &sandbox), config, line).await;
        assert_eq!(text, expected, "{name}");

        let config = with_security(sleeping(&format!("{name}-exec")), security);
        let container = cri.run(&sandbox, config).await;
        let text = cri.exec_text(&container, &["sh", "-c", line]).await;
        assert_eq!(text.trim(), expected, "{name}, by exec");
    }
    machine.take_down().await;
}
