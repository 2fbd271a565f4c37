use super::*;
use crate::pod::health::ProbeKind;
use crate::pod::observed::{SECOND, Sandbox};
use crate::pod::status_patch::patch;

const NOW: Nanos = 1_700_000_100 * SECOND;

fn pod(spec: Value, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "web", "uid": "u", "generation": 3}, "spec": spec, "status": status,
    }))
    .unwrap()
}

fn container(id: &str, name: &str, attempt: u32, state: State, exit_code: i32) -> Container {
    Container {
        id: id.to_owned(),
        sandbox_id: "s0".to_owned(),
        name: name.to_owned(),
        attempt,
        state,
        created_at: NOW - 50 * SECOND + i64::from(attempt),
        started_at: NOW - 50 * SECOND,
        finished_at: if state == State::Exited { NOW - 10 * SECOND } else { 0 },
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "docker.io/library/busybox:1".to_owned(),
        image_id: "sha256:abc".to_owned(),
        hash: String::new(),
        backoff_seconds: 0,
        log_path: String::new(),
        message_file: None,
        message_from_log: false,
    }
}

struct Case {
    pod: Pod,
    containers: Vec<Container>,
    waiting: BTreeMap<String, Waiting>,
    health: Health,
    ended: bool,
}

impl Case {
    fn new(pod: Pod, containers: Vec<Container>) -> Case {
        Case {
            pod,
            containers,
            waiting: BTreeMap::new(),
            health: Health::default(),
            ended: false,
        }
    }

    fn status(&self) -> Value {
        let sandbox = Sandbox {
            id: "s0".into(),
            attempt: 0,
            ready: true,
            created_at: 1,
            ips: vec![[10, 244, 0, 7].into()],
        };
        status(&Inputs {
            pod: &self.pod,
            observed: &Observed::new(vec![sandbox], self.containers.clone()),
            health: &self.health,
            waiting: &self.waiting,
            failure: None,
            host_ip: [192, 0, 2, 9].into(),
            started_at: NOW - 100 * SECOND,
            now: NOW,
            runtime_name: "mangrove",
            messages: &BTreeMap::new(),
            ended: self.ended,
        })
    }
}

fn condition_of<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let list = status["conditions"].as_array().unwrap();
    list.iter().find(|condition| condition["type"] == kind).unwrap()
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "main", "image": "busybox"}]})
}

#[test]
fn a_running_pod_without_probes_is_ready() {
    let case = Case::new(
        pod(one("Always"), json!({})),
        vec![
            container("c1", "main", 1, State::Running, 0),
            container("c0", "main", 0, State::Exited, 3),
        ],
    );

    let status = case.status();

    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.244.0.7");
    assert_eq!(status["hostIPs"], json!([{"ip": "192.0.2.9"}]));
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(status["qosClass"], "BestEffort");
    let main = &status["containerStatuses"][0];
    assert_eq!(main["containerID"], "mangrove://c1");
    assert_eq!(main["state"], json!({"running": {"startedAt": "2023-11-14T22:14:10Z"}}));
    assert_eq!(
        main["lastState"]["terminated"],
        json!({"exitCode": 3, "reason": "Error", "startedAt": "2023-11-14T22:14:10Z",
            "finishedAt": "2023-11-14T22:14:50Z", "containerID": "mangrove://c0"})
    );
    assert_eq!((&main["ready"], &main["restartCount"]), (&json!(true), &json!(1)));
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition_of(&status, kind)["status"], "True", "{kind}");
    }
}

#[test]
fn phases_follow_upstreams_table() {
    let exited = |code| container("c", "main", 0, State::Exited, code);
    let backing_off = BTreeMap::from([(
        "main".to_owned(),
        Waiting {
            reason: "CrashLoopBackOff".into(),
            message: "m".into(),
        },
    )]);
    for (policy, containers, waiting, ended, expected) in [
        ("Always", vec![], BTreeMap::new(), false, "Pending"),
        ("Always", vec![exited(1)], BTreeMap::new(), false, "Running"),
        ("Always", vec![exited(1)], backing_off.clone(), false, "Running"),
        ("Always", vec![exited(0)], BTreeMap::new(), true, "Succeeded"),
        ("Always", vec![exited(137)], BTreeMap::new(), true, "Failed"),
        ("OnFailure", vec![exited(0)], BTreeMap::new(), false, "Succeeded"),
        ("OnFailure", vec![exited(1)], backing_off, false, "Running"),
        ("Never", vec![exited(0)], BTreeMap::new(), false, "Succeeded"),
        ("Never", vec![exited(2)], BTreeMap::new(), false, "Failed"),
    ] {
        let mut case = Case::new(pod(one(policy), json!({})), containers);
        case.waiting = waiting;
        case.ended = ended;

        assert_eq!(case.status()["phase"], expected, "{policy} {:?}", case.containers);
    }
}

#[test]
fn a_crash_loop_shows_the_reason_and_the_last_exit() {
    let mut case = Case::new(
        pod(one("Always"), json!({})),
        vec![container("c", "main", 4, State::Exited, 1)],
    );
    case.waiting.insert(
        "main".to_owned(),
        Waiting {
            reason: "CrashLoopBackOff".into(),
            message: "back-off".into(),
        },
    );

    let status = case.status();

    let main = &status["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(main["restartCount"], 4);
    assert_eq!(
        condition_of(&status, "Ready")["message"],
        "containers with unready status: [main]"
    );
}

#[test]
fn init_containers_hold_the_others_back() {
    let spec = json!({"initContainers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}],
        "containers": [{"name": "main", "image": "busybox"}]});
    let case = Case::new(
        pod(spec, json!({})),
        vec![
            container("a", "a", 0, State::Exited, 0),
            container("b", "b", 0, State::Running, 0),
        ],
    );

    let status = case.status();

    assert_eq!(status["phase"], "Pending");
    assert_eq!(
        condition_of(&status, "Initialized")["message"],
        "containers with incomplete status: [b]"
    );
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
}

#[test]
fn probes_and_gates_decide_readiness() {
    let spec = json!({
        "readinessGates": [{"conditionType": "example.com/lb"}],
        "containers": [{"name": "main", "image": "x", "readinessProbe": {"tcpSocket": {"port": 80}}}]});
    let running = || vec![container("c", "main", 0, State::Running, 0)];
    let mut case = Case::new(pod(spec.clone(), json!({})), running());

    assert_eq!(condition_of(&case.status(), "ContainersReady")["status"], "False");

    case.health.record("c", ProbeKind::Readiness, true);
    let status = case.status();
    assert_eq!(condition_of(&status, "ContainersReady")["status"], "True");
    assert_eq!(condition_of(&status, "Ready")["reason"], "ReadinessGatesNotReady");

    case.pod = pod(
        spec,
        json!({"conditions": [{"type": "example.com/lb", "status": "True"}]}),
    );
    assert_eq!(condition_of(&case.status(), "Ready")["status"], "True");
}

#[test]
fn a_status_that_the_plane_has_is_not_written_again() {
    let mut case = Case::new(
        pod(one("Always"), json!({})),
        vec![container("c", "main", 0, State::Running, 0)],
    );
    let first = case.status();

    let patch_of_all = patch(&case.pod, &json!({"phase": "Pending"}), &first).unwrap();
    assert_eq!(patch_of_all["metadata"]["uid"], "u");
    assert_eq!(patch_of_all["status"]["podIPs"][1], json!({"$patch": "replace"}));

    case.pod.status = serde_json::from_value(first.clone()).unwrap();
    let stored: Value = serde_json::to_value(&case.pod).unwrap();
    assert_eq!(patch(&case.pod, &stored["status"], &case.status()), None);

    case.containers[0].state = State::Exited;
    let delta = patch(&case.pod, &stored["status"], &case.status()).unwrap();
    let keys: Vec<&String> = delta["status"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["conditions", "containerStatuses"]);
}
