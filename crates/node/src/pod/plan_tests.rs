use super::*;
use serde_json::{Value, json};

const NOW: Nanos = 1_000_000 * SECOND;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "web", "uid": "u"}, "spec": spec,
    }))
    .unwrap()
}

fn one(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "main", "image": "busybox"}]}))
}

fn sandbox(id: &str, attempt: u32, ready: bool) -> super::super::observed::Sandbox {
    super::super::observed::Sandbox {
        id: id.to_owned(),
        attempt,
        ready,
        created_at: NOW - 1000 * SECOND + i64::from(attempt),
        ips: vec![],
    }
}

fn container(id: &str, name: &str, attempt: u32, state: State) -> Container {
    Container {
        id: id.to_owned(),
        sandbox_id: "s0".to_owned(),
        name: name.to_owned(),
        attempt,
        state,
        created_at: NOW - 100 * SECOND + i64::from(attempt),
        started_at: NOW - 100 * SECOND,
        finished_at: NOW - 5 * SECOND,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_id: String::new(),
        hash: String::new(),
        backoff_seconds: 0,
        log_path: String::new(),
        message_file: None,
        message_from_log: false,
    }
}

fn exited(id: &str, name: &str, attempt: u32, exit_code: i32) -> Container {
    Container {
        exit_code,
        ..container(id, name, attempt, State::Exited)
    }
}

fn planned(pod: &Pod, sandboxes: Vec<super::super::observed::Sandbox>, containers: Vec<Container>) -> Plan {
    planned_with(pod, sandboxes, containers, &Health::default())
}

fn planned_with(
    pod: &Pod,
    sandboxes: Vec<super::super::observed::Sandbox>,
    containers: Vec<Container>,
    health: &Health,
) -> Plan {
    plan(&Inputs {
        pod,
        observed: &Observed::new(sandboxes, containers),
        health,
        condemned: &BTreeSet::new(),
        evicted: None,
        started_at: NOW - 1000 * SECOND,
        agent_began: NOW - 500 * SECOND,
        now: NOW,
    })
}

fn start(name: &str, attempt: u32, backoff_seconds: u64) -> Step {
    Step::Start {
        name: name.to_owned(),
        attempt,
        backoff_seconds,
    }
}

#[test]
fn a_new_pod_gets_a_sandbox_then_its_containers() {
    let pod = one("Always");

    assert_eq!(
        planned(&pod, vec![], vec![]).steps,
        [Step::CreateSandbox { attempt: 0 }]
    );
    assert_eq!(
        planned(&pod, vec![sandbox("s0", 0, true)], vec![]).steps,
        [start("main", 0, 0)]
    );
    assert_eq!(
        planned(
            &pod,
            vec![sandbox("s0", 0, true)],
            vec![container("c", "main", 0, State::Running)]
        ),
        Plan::default()
    );
}

#[test]
fn the_restart_policy_decides_what_an_exit_means() {
    for (policy, code, expected) in [
        ("Always", 0, vec![start("main", 1, 10)]),
        ("Always", 1, vec![start("main", 1, 10)]),
        ("OnFailure", 0, vec![Step::Finish]),
        ("OnFailure", 1, vec![start("main", 1, 10)]),
        ("Never", 0, vec![Step::Finish]),
        ("Never", 1, vec![Step::Finish]),
    ] {
        let plan = planned(
            &one(policy),
            vec![sandbox("s0", 0, true)],
            vec![exited("c", "main", 0, code)],
        );

        assert_eq!(plan.steps, expected, "{policy} {code}");
    }
}

#[test]
fn a_crash_loop_waits_and_says_so_in_upstreams_words() {
    let crashed = Container {
        backoff_seconds: 10,
        ..exited("c", "main", 1, 1)
    };

    let plan = planned(&one("Always"), vec![sandbox("s0", 0, true)], vec![crashed]);

    assert_eq!(plan.steps, []);
    assert_eq!(plan.wake_at, Some(NOW + 5 * SECOND));
    assert_eq!(plan.waiting["main"].reason, "CrashLoopBackOff");
    assert_eq!(
        plan.waiting["main"].message,
        "back-off 10s restarting failed container=main pod=p_web(u)"
    );
}

fn with_init() -> Pod {
    pod(json!({"restartPolicy": "Always",
        "initContainers": [
            {"name": "first", "image": "busybox"},
            {"name": "side", "image": "busybox", "restartPolicy": "Always"},
            {"name": "second", "image": "busybox"},
        ],
        "containers": [{"name": "main", "image": "busybox"}]}))
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let first = exited("a", "first", 0, 0);
    let side = container("b", "side", 0, State::Running);
    let second = exited("c", "second", 0, 0);
    for (containers, expected) in [
        (vec![], vec![start("first", 0, 0)]),
        (vec![container("a", "first", 0, State::Running)], vec![]),
        (vec![exited("a", "first", 0, 7)], vec![start("first", 1, 10)]),
        (vec![first.clone()], vec![start("side", 0, 0)]),
        (vec![first.clone(), side.clone()], vec![start("second", 0, 0)]),
        (
            vec![first.clone(), side.clone(), second.clone()],
            vec![start("main", 0, 0)],
        ),
        (
            vec![
                first.clone(),
                exited("b", "side", 0, 1),
                second.clone(),
                container("d", "main", 0, State::Running),
            ],
            vec![start("side", 1, 10)],
        ),
    ] {
        let plan = planned(&with_init(), vec![sandbox("s0", 0, true)], containers.clone());

        assert_eq!(plan.steps, expected, "{containers:?}");
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut pod = with_init();
    pod.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());

    let plan = planned(&pod, vec![sandbox("s0", 0, true)], vec![exited("a", "first", 0, 1)]);

    assert_eq!(plan.steps, [Step::Finish]);
}

#[test]
fn a_lost_sandbox_is_replaced_and_init_containers_run_again() {
    let containers = vec![exited("a", "first", 0, 0), exited("d", "main", 0, 137)];

    let before = planned(&with_init(), vec![sandbox("s0", 0, false)], containers.clone());
    let after = planned(
        &with_init(),
        vec![sandbox("s0", 0, false), sandbox("s1", 1, true)],
        containers,
    );

    assert_eq!(
        before.steps,
        [
            Step::StopSandbox { id: "s0".to_owned() },
            Step::CreateSandbox { attempt: 1 }
        ]
    );
    assert_eq!(after.steps, [start("first", 1, 10)]);
}

#[test]
fn a_container_lost_with_its_sandbox_backs_off_unless_nobody_was_here() {
    let sandboxes = || vec![sandbox("s0", 0, false), sandbox("s1", 1, true)];
    let lost = Container {
        backoff_seconds: 10,
        ..exited("c", "main", 1, 137)
    };
    let while_down = Container {
        finished_at: NOW - 501 * SECOND,
        created_at: NOW - 600 * SECOND,
        backoff_seconds: 300,
        ..lost.clone()
    };

    let waits = planned(&one("Always"), sandboxes(), vec![lost]);
    let starts = planned(&one("Always"), sandboxes(), vec![while_down]);

    assert_eq!(waits.steps, []);
    assert_eq!(waits.waiting["main"].reason, "CrashLoopBackOff");
    assert_eq!(starts.steps, [start("main", 2, 300)]);
}

#[test]
fn a_lost_sandbox_ends_a_pod_that_never_restarts() {
    let mut main = container("c", "main", 0, State::Running);
    main.sandbox_id = "s0".to_owned();

    let plan = planned(&one("Never"), vec![sandbox("s0", 0, false)], vec![main]);

    assert_eq!(plan.steps, [Step::Finish]);
    assert_eq!(plan.failure.unwrap().reason, "SandboxLost");
}

#[test]
fn a_condemned_container_is_stopped_and_then_replaced_even_if_it_exits_well() {
    let pod = one("OnFailure");
    let mut health = Health::default();
    health.record("c", ProbeKind::Liveness, false);

    let running = planned_with(
        &pod,
        vec![sandbox("s0", 0, true)],
        vec![container("c", "main", 0, State::Running)],
        &health,
    );
    let ended = plan(&Inputs {
        pod: &pod,
        observed: &Observed::new(vec![sandbox("s0", 0, true)], vec![exited("c", "main", 0, 0)]),
        health: &health,
        condemned: &BTreeSet::from(["c".to_owned()]),
        evicted: None,
        started_at: NOW,
        agent_began: NOW,
        now: NOW,
    });

    assert_eq!(
        running.steps,
        [Step::Kill {
            id: "c".to_owned(),
            name: "main".to_owned(),
            why: Why::Probe(ProbeKind::Liveness)
        }]
    );
    assert_eq!(ended.steps, [start("main", 1, 10)]);
}

#[test]
fn a_changed_image_replaces_the_container() {
    let pod = one("Always");
    let mut old = container("c", "main", 0, State::Running);
    old.hash = "other".to_owned();
    let mut same = old.clone();
    same.hash = hash(&pod.spec.as_ref().unwrap().containers[0]);

    let changed = planned(&pod, vec![sandbox("s0", 0, true)], vec![old]);
    let unchanged = planned(&pod, vec![sandbox("s0", 0, true)], vec![same]);

    assert!(matches!(
        &changed.steps[..],
        [Step::Kill {
            why: Why::SpecChanged,
            ..
        }]
    ));
    assert_eq!(unchanged.steps, []);
}

#[test]
fn a_container_that_was_created_and_not_started_is_made_anew_without_counting() {
    let plan = planned(
        &one("Always"),
        vec![sandbox("s0", 0, true)],
        vec![container("c", "main", 3, State::Created)],
    );

    assert_eq!(
        plan.steps,
        [Step::RemoveContainer { id: "c".to_owned() }, start("main", 3, 0)]
    );
}

#[test]
fn only_the_last_dead_instance_is_kept() {
    let containers = (0..4)
        .map(|attempt| exited(&format!("c{attempt}"), "main", attempt, 1))
        .chain([container("c4", "main", 4, State::Running)])
        .collect();

    let plan = planned(&one("Always"), vec![sandbox("s0", 0, true)], containers);

    let removed = ["c2", "c1", "c0"].map(|id| Step::RemoveContainer { id: id.to_owned() });
    assert_eq!(plan.steps, removed);
}

#[test]
fn the_active_deadline_ends_the_pod_and_is_waited_for() {
    let mut pod = one("Always");
    let running = || vec![container("c", "main", 0, State::Running)];

    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(1000);
    let late = planned(&pod, vec![sandbox("s0", 0, true)], running());
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(1001);
    let early = planned(&pod, vec![sandbox("s0", 0, true)], running());

    assert_eq!(late.steps, [Step::Finish]);
    assert_eq!(late.failure.unwrap().reason, "DeadlineExceeded");
    assert_eq!(early.steps, []);
    assert_eq!(early.wake_at, Some(NOW + SECOND));
}

#[test]
fn a_pod_that_the_plane_knows_as_ended_never_starts_again() {
    let mut pod = one("Always");
    pod.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();

    assert_eq!(planned(&pod, vec![], vec![]).steps, []);
    assert_eq!(
        planned(&pod, vec![sandbox("s0", 0, true)], vec![]).steps,
        [Step::Finish]
    );
}

#[test]
fn sidecars_are_stopped_after_the_main_containers_last_first() {
    let pod = pod(json!({
        "initContainers": [
            {"name": "one", "image": "x", "restartPolicy": "Always"},
            {"name": "two", "image": "x", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}));
    let observed = Observed::new(
        vec![],
        ["one", "two", "a", "b"]
            .map(|name| container(name, name, 0, State::Running))
            .to_vec(),
    );

    let order: Vec<Vec<&str>> = shutdown_order(Some(&pod), &observed)
        .into_iter()
        .map(|group| group.into_iter().map(|container| container.name.as_str()).collect())
        .collect();

    assert_eq!(
        order,
        [vec!["one", "two", "a", "b"][2..].to_vec(), vec!["two"], vec!["one"]]
    );
}

#[test]
fn an_evicted_pod_fails_and_ends() {
    let failure = Failure {
        reason: "Evicted",
        message: "The node was low on resource: memory. ".to_owned(),
    };

    let plan = plan(&Inputs {
        pod: &one("Always"),
        observed: &Observed::new(
            vec![sandbox("s0", 0, true)],
            vec![container("c", "main", 0, State::Running)],
        ),
        health: &Health::default(),
        condemned: &BTreeSet::new(),
        evicted: Some(&failure),
        started_at: NOW,
        agent_began: NOW,
        now: NOW,
    });

    assert_eq!(plan.steps, [Step::Finish]);
    assert_eq!(plan.failure, Some(failure));
}
