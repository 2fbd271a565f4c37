//! What a Pod goes through, over CRI's own socket.

mod machine;

use std::time::Duration;

use k8s_cri::v1;
use machine::{Machine, container_config, missing};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_ends_with_its_code() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;

    let script = "echo out; echo err >&2; echo $FROM_IMAGE; exit 3";
    let container = cri.run(&sandbox, container_config("main", &["sh", "-c", script])).await;
    let status = cri.ended(&container).await;

    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at);
    let mut log = cri.log("web", "main");
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out", "stdout F yes"]);

    cri.remove_sandbox(&sandbox).await;
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_has_a_name_an_address_and_a_way_to_its_neighbours() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let first = cri.sandbox("first").await;
    let second = cri.sandbox("second").await;
    let container = cri.run(&first, container_config("main", &["sleep", "1000"])).await;

    let neighbour = cri.address(&second).await;
    assert_eq!(cri.exec_text(&container, &["hostname"]).await, "first");
    assert!(
        cri.exec_text(&container, &["cat", "/etc/hosts"])
            .await
            .contains("first")
    );
    let own = cri.address(&first).await;
    assert!(
        cri.exec_text(&container, &["ip", "addr", "show", "eth0"])
            .await
            .contains(&own)
    );
    cri.exec_text(&container, &["ping", "-c", "1", "-W", "5", &neighbour])
        .await;

    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_it_and_their_codes_and_streams_come_back() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let container = cri.run(&sandbox, container_config("main", &["sleep", "1000"])).await;

    let response = cri.exec(&container, &["sh", "-c", "echo a; echo b >&2; exit 7"]).await;
    assert_eq!((&response.stdout[..], &response.stderr[..]), (&b"a\n"[..], &b"b\n"[..]));
    assert_eq!(response.exit_code, 7);

    let big = cri.exec(&container, &["sh", "-c", "yes | head -c 3000000"]).await;
    assert_eq!(big.stdout.len(), 3_000_000);

    let slow = cri.try_exec(&container, &["sleep", "100"], 1).await.unwrap_err();
    assert_eq!(slow.code(), tonic::Code::DeadlineExceeded);
    let none = cri.try_exec(&container, &["no-such-program"], 5).await.unwrap_err();
    assert!(none.message().contains("no-such-program"), "{none}");
    let unknown = cri.try_exec("0123456789abcdef", &["true"], 5).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_at_once_and_in_order() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let mut events = cri.events().await;
    let sandbox = cri.sandbox("web").await;
    let container = cri.run(&sandbox, container_config("main", &["true"])).await;
    cri.ended(&container).await;
    cri.remove_sandbox(&sandbox).await;

    let mut told = Vec::new();
    while told.len() < 8 {
        let event = tokio::time::timeout(Duration::from_secs(10), events.message())
            .await
            .expect("an event in time")
            .unwrap()
            .unwrap();
        let who = if event.container_id == sandbox {
            "sandbox"
        } else {
            "container"
        };
        told.push((who, event.container_event_type().as_str_name().to_owned()));
        assert_eq!(event.pod_sandbox_status.unwrap().id, sandbox);
    }
    let of = |who: &str| -> Vec<String> {
        let mine = told.iter().filter(|(w, _)| *w == who);
        mine.map(|(_, kind)| {
            kind.trim_end_matches("_EVENT")
                .trim_start_matches("CONTAINER_")
                .to_owned()
        })
        .collect()
    };
    assert_eq!(of("container"), ["CREATED", "STARTED", "STOPPED", "DELETED"]);
    assert_eq!(of("sandbox"), ["CREATED", "STARTED", "STOPPED", "DELETED"]);

    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_asks_first_and_then_insists() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let polite = "trap 'echo bye; exit 5' TERM; echo up; while true; do sleep 0.1; done";
    let polite = cri
        .run(&sandbox, container_config("polite", &["sh", "-c", polite]))
        .await;
    let deaf = "trap '' TERM; while true; do sleep 0.1; done";
    let deaf = cri.run(&sandbox, container_config("deaf", &["sh", "-c", deaf])).await;
    // The trap is set once the first line is out.
    while cri.log("web", "polite").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    for (container, timeout, code) in [(&polite, 20, 5), (&deaf, 1, 137)] {
        let request = v1::StopContainerRequest {
            container_id: container.clone(),
            timeout,
        };
        cri.runtime.stop_container(request).await.unwrap();
        assert_eq!(cri.status(container).await.exit_code, code);
    }
    assert_eq!(cri.log("web", "polite"), ["stdout F up", "stdout F bye"]);

    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_takes_too_much_memory_is_killed_and_says_so() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let mut config = container_config("hog", &["sh", "-c", "x=a; while true; do x=$x$x; done"]);
    config.linux = Some(v1::LinuxContainerConfig {
        resources: Some(v1::LinuxContainerResources {
            memory_limit_in_bytes: 16 << 20,
            memory_swap_limit_in_bytes: 16 << 20,
            ..Default::default()
        }),
        security_context: None,
    });

    let container = cri.run(&sandbox, config).await;
    let status = cri.ended(&container).await;

    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_start_says_why_and_can_be_removed() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let container = cri
        .create(&sandbox, container_config("main", &["/no/such/program"]))
        .await;

    let request = v1::StartContainerRequest {
        container_id: container.clone(),
    };
    let error = cri.runtime.start_container(request).await.unwrap_err();

    assert!(error.message().contains("/no/such/program"), "{error}");
    let status = cri.status(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    let request = v1::RemoveContainerRequest {
        container_id: container,
    };
    cri.runtime.remove_container(request).await.unwrap();
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_may_come_twice_and_for_what_is_not_there() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;

    let first = cri.sandbox("web").await;
    let second = cri.sandbox("web").await;
    assert_eq!(first, second, "the same Pod and attempt is the same sandbox");
    cri.stop_sandbox(&first).await;
    cri.stop_sandbox(&first).await;
    cri.remove_sandbox(&first).await;
    cri.remove_sandbox(&first).await;
    cri.stop_sandbox("no-such-sandbox").await;
    let request = v1::StopContainerRequest {
        container_id: "no-such-container".into(),
        timeout: 1,
    };
    cri.runtime.stop_container(request).await.unwrap();
    let request = v1::PodSandboxStatusRequest {
        pod_sandbox_id: first,
        verbose: false,
    };
    let error = cri.runtime.pod_sandbox_status(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);

    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_come_and_go_at_the_same_time() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    for round in 0..2 {
        let mut pods = tokio::task::JoinSet::new();
        for number in 0..12 {
            let mut cri = machine.cri().await;
            pods.spawn(async move {
                let name = format!("pod-{round}-{number}");
                let sandbox = cri.sandbox(&name).await;
                let config = container_config("main", &["sh", "-c", "echo up; sleep 1000"]);
                let container = cri.run(&sandbox, config).await;
                assert_eq!(cri.exec_text(&container, &["hostname"]).await, name);
                let address = cri.address(&sandbox).await;
                while cri.log(&name, "main") != ["stdout F up"] {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (sandbox, address)
            });
        }
        let pods = pods.join_all().await;
        let addresses: std::collections::HashSet<&String> = pods.iter().map(|(_, address)| address).collect();
        assert_eq!(addresses.len(), 12);
        let mut removals = tokio::task::JoinSet::new();
        for (sandbox, _) in pods {
            let mut cri = machine.cri().await;
            removals.spawn(async move { cri.remove_sandbox(&sandbox).await });
        }
        removals.join_all().await;
    }
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_with_the_right_code() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let sandbox = cri.sandbox("web").await;
    let mut refused = async |config: Option<v1::PodSandboxConfig>, handler: &str| {
        let request = v1::RunPodSandboxRequest {
            config,
            runtime_handler: handler.into(),
        };
        cri.runtime.run_pod_sandbox(request).await.unwrap_err().code()
    };
    let config = |name: &str| machine::sandbox_config(name, machine.folder.path());
    assert_eq!(refused(None, "").await, tonic::Code::InvalidArgument);
    assert_eq!(refused(Some(config("")), "").await, tonic::Code::InvalidArgument);
    assert_eq!(
        refused(Some(config("other")), "no-such-engine").await,
        tonic::Code::InvalidArgument
    );
    let mut on_host = config("sysctl");
    on_host
        .linux
        .as_mut()
        .unwrap()
        .sysctls
        .insert("kernel.panic".into(), "1".into());
    assert_eq!(refused(Some(on_host), "").await, tonic::Code::InvalidArgument);

    let mut refused = async |sandbox: &str, config: v1::ContainerConfig| {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: None,
        };
        cri.runtime.create_container(request).await.unwrap_err().code()
    };
    let main = || container_config("main", &["true"]);
    assert_eq!(refused("no-such-sandbox", main()).await, tonic::Code::NotFound);
    let mut no_image = main();
    no_image.image.as_mut().unwrap().image = "no/such:image".into();
    assert_eq!(refused(&sandbox, no_image).await, tonic::Code::NotFound);
    let mut leaving = main();
    leaving.log_path = "../../elsewhere.log".into();
    assert_eq!(refused(&sandbox, leaving).await, tonic::Code::InvalidArgument);

    let container = cri.create(&sandbox, main()).await;
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(main()),
        sandbox_config: None,
    };
    let code = cri.runtime.create_container(request).await.unwrap_err().code();
    assert_eq!(code, tonic::Code::AlreadyExists);
    let code = cri.try_exec(&container, &["true"], 1).await.unwrap_err().code();
    assert_eq!(code, tonic::Code::FailedPrecondition);
    cri.start(&container).await;
    let request = v1::StartContainerRequest {
        container_id: container,
    };
    let code = cri.runtime.start_container(request).await.unwrap_err().code();
    assert_eq!(code, tonic::Code::FailedPrecondition);
    machine.take_down().await;
}
