use std::time::Duration;

use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Plan, plan};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn job(change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({"metadata": {"name": "sum", "namespace": "n", "uid": "j"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 2, "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed",
            "template": {"metadata": {"labels": {"job-name": "sum"}}, "spec": {"containers": [{"name": "c"}]}}},
        "status": {"startTime": "2026-01-01T00:00:00Z"}});
    change(&mut tree);
    Object::from_tree(tree)
}

fn indexed(tree: &mut Value) {
    tree["spec"]["completionMode"] = json!("Indexed");
}

fn pod(name: &str, phase: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({"metadata": {"name": name, "namespace": "n", "uid": name,
        "creationTimestamp": "2026-01-01T00:00:01Z", "finalizers": ["batch.kubernetes.io/job-tracking"]},
        "status": {"phase": phase}});
    change(&mut tree);
    Object::from_tree(tree)
}

fn at(index: u32) -> impl FnOnce(&mut Value) {
    move |tree| {
        tree["metadata"]["annotations"] = json!({"batch.kubernetes.io/job-completion-index": index.to_string()});
    }
}

fn counted(tree: &mut Value) {
    tree["metadata"]["finalizers"] = json!([]);
}

/// Plans, writes the status, and shows what is left of the finalizers, until nothing changes.
fn settle(mut job: Object, mut pods: Vec<Object>) -> (Object, Plan) {
    for _ in 0..10 {
        let plan = plan(&job, &pods, now());
        if plan.status.is_none() && plan.strip.is_empty() {
            return (job, plan);
        }
        if let Some(status) = &plan.status {
            let mut tree = job.tree().clone();
            for (field, value) in status.as_object().unwrap() {
                tree["status"][field] = value.clone();
            }
            job = Object::from_tree(tree);
        }
        let stripped: Vec<String> = plan.strip.iter().map(|pod| pod.uid().to_owned()).collect();
        for pod in &mut pods {
            if stripped.iter().any(|uid| uid == pod.uid()) {
                let mut tree = pod.tree().clone();
                counted(&mut tree);
                *pod = Object::from_tree(tree);
            }
        }
    }
    panic!("it does not settle: {:?}", plan(&job, &pods, now()));
}

fn condition(job: &Object, kind: &str) -> Option<String> {
    let conditions = job.tree()["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some(found["reason"].as_str().unwrap_or("").to_owned())
}

#[test]
fn as_many_run_at_once_as_may_and_are_still_needed() {
    assert_eq!(plan(&job(|_| {}), &[], now()).create.len(), 2);
    let done = |name: &str| pod(name, "Succeeded", counted);
    let two = job(|tree| tree["status"]["succeeded"] = json!(2));
    assert_eq!(plan(&two, &[done("a"), done("b")], now()).create.len(), 1);
    let running = [pod("c", "Running", |_| {})];
    assert!(plan(&two, &running, now()).create.is_empty());
}

#[test]
fn each_pod_is_counted_once_and_only_after_the_status_knows_it() {
    let pods = vec![pod("a", "Succeeded", |_| {})];

    let first = plan(&job(|_| {}), &pods, now());
    let status = first.status.unwrap();
    assert_eq!(status["uncountedTerminatedPods"]["succeeded"], json!(["a"]));
    assert_eq!((&status["succeeded"], first.strip.len()), (&Value::Null, 1));

    let (settled, _) = settle(job(|_| {}), pods);
    assert_eq!(settled.tree()["status"]["succeeded"], 1);
    assert_eq!(
        settled.tree()["status"]["uncountedTerminatedPods"]["succeeded"],
        Value::Null
    );
}

#[test]
fn a_job_is_complete_when_enough_have_succeeded() {
    let pods = ["a", "b", "c"].map(|name| pod(name, "Succeeded", |_| {}));

    let (done, plan) = settle(job(|_| {}), pods.to_vec());

    assert_eq!(condition(&done, "Complete").as_deref(), Some("CompletionsReached"));
    assert_eq!(done.tree()["status"]["succeeded"], 3);
    assert!(done.tree()["status"]["completionTime"].is_string());
    assert!(plan.create.is_empty());
}

#[test]
fn one_success_is_enough_without_completions() {
    let open = |tree: &mut Value| tree["spec"]["completions"] = Value::Null;

    let (done, _) = settle(job(open), vec![pod("a", "Succeeded", |_| {})]);
    assert_eq!(condition(&done, "Complete").as_deref(), Some("CompletionsReached"));
    let (waits, _) = settle(
        job(open),
        vec![pod("a", "Succeeded", |_| {}), pod("b", "Running", |_| {})],
    );
    assert_eq!(condition(&waits, "Complete"), None);
}

#[test]
fn too_many_failures_end_it_and_what_runs_goes_first() {
    let mut pods: Vec<Object> = ["a", "b", "c"].map(|name| pod(name, "Failed", |_| {})).to_vec();
    pods.push(pod("d", "Running", |_| {}));

    let (failing, last) = settle(job(|_| {}), pods.clone());
    assert_eq!(
        condition(&failing, "FailureTarget").as_deref(),
        Some("BackoffLimitExceeded")
    );
    assert_eq!((condition(&failing, "Failed"), last.kill.len()), (None, 1));

    let (failed, _) = settle(
        failing,
        pods[..3]
            .iter()
            .map(|pod| {
                let mut tree = pod.tree().clone();
                counted(&mut tree);
                Object::from_tree(tree)
            })
            .collect(),
    );
    assert_eq!(condition(&failed, "Failed").as_deref(), Some("BackoffLimitExceeded"));
}

#[test]
fn the_successor_of_a_failed_pod_waits() {
    let failed = |at: &'static str| {
        move |tree: &mut Value| {
            counted(tree);
            tree["status"]["containerStatuses"] = json!([{"state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]);
        }
    };
    let told = |tree: &mut Value| tree["status"]["failed"] = json!(2);
    let pods = [
        pod("a", "Failed", failed("2026-01-01T00:09:30Z")),
        pod("b", "Failed", failed("2026-01-01T00:09:55Z")),
    ];

    let plan = plan(&job(told), &pods, now());

    assert!(plan.create.is_empty());
    assert_eq!(
        plan.look_again,
        Some(Duration::from_secs(15)),
        "twenty seconds after the second failure"
    );
}

#[test]
fn a_deadline_ends_it_and_is_looked_at_in_time() {
    let within = |seconds: i64| job(move |tree| tree["spec"]["activeDeadlineSeconds"] = json!(seconds));

    assert_eq!(
        plan(&within(900), &[], now()).look_again,
        Some(Duration::from_secs(300))
    );
    let (late, _) = settle(within(600), vec![]);
    assert_eq!(condition(&late, "Failed").as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_suspended_job_runs_nothing_and_its_pods_are_no_failures() {
    let suspended = |tree: &mut Value| tree["spec"]["suspend"] = json!(true);
    let pods = [pod("a", "Running", |_| {})];

    let first = plan(&job(suspended), &pods, now());

    assert_eq!((first.remove.len(), first.create.len(), first.kill.len()), (1, 0, 0));
    let status = first.status.unwrap();
    assert_eq!(
        (&status["startTime"], &status["conditions"][0]["type"]),
        (&Value::Null, &json!("Suspended"))
    );
    let resumed = job(|tree| tree["status"] = json!({"conditions": [{"type": "Suspended", "status": "True"}]}));
    let plan = plan(&resumed, &[], now());
    assert_eq!(plan.create.len(), 2);
    assert_eq!(plan.status.unwrap()["conditions"][0]["reason"], "JobResumed");
}

#[test]
fn indexes_are_each_done_once() {
    let pods = vec![pod("a", "Succeeded", at(1)), pod("b", "Running", at(0))];

    let (half, last) = settle(job(indexed), pods);

    assert_eq!(half.tree()["status"]["completedIndexes"], "1");
    assert_eq!(half.tree()["status"]["succeeded"], 1);
    let made = &last.create[0]["metadata"];
    assert_eq!(made["generateName"], "sum-2-");
    assert_eq!(made["annotations"]["batch.kubernetes.io/job-completion-index"], "2");
    assert_eq!(last.create[0]["spec"]["hostname"], "sum-2");
    assert_eq!(
        last.create[0]["spec"]["containers"][0]["env"][0]["name"],
        "JOB_COMPLETION_INDEX"
    );
}

#[test]
fn of_two_pods_with_one_index_the_more_useful_stays() {
    let old = pod("old", "Running", |tree| {
        at(0)(tree);
        tree["spec"]["nodeName"] = json!("n");
    });

    let plan = plan(&job(indexed), &[old, pod("new", "Pending", at(0))], now());

    assert_eq!(plan.remove.iter().map(Object::name).collect::<Vec<_>>(), ["new"]);
}

#[test]
fn an_index_fails_for_itself_where_failures_are_counted_by_index() {
    let per_index = |tree: &mut Value| {
        indexed(tree);
        tree["spec"]["backoffLimitPerIndex"] = json!(1);
        tree["spec"]["backoffLimit"] = json!(i32::MAX);
        tree["spec"]["completions"] = json!(2);
    };
    let again = |tree: &mut Value| {
        at(0)(tree);
        tree["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = json!("1");
    };

    let (first, last) = settle(
        job(per_index),
        vec![pod("a", "Failed", at(0)), pod("b", "Running", at(1))],
    );
    assert_eq!(first.tree()["status"]["failedIndexes"], "");
    assert_eq!(
        last.create[0]["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"],
        "1"
    );
    let (second, _) = settle(first, vec![pod("c", "Failed", again), pod("b", "Running", at(1))]);
    assert_eq!(second.tree()["status"]["failedIndexes"], "0");
    let (over, _) = settle(second, vec![pod("b", "Succeeded", at(1))]);
    assert_eq!(condition(&over, "Failed").as_deref(), Some("FailedIndexes"));
    assert_eq!(over.tree()["status"]["completedIndexes"], "1");
}

#[test]
fn a_rule_can_end_the_job_or_ignore_a_failure() {
    let policy = |tree: &mut Value| {
        tree["spec"]["podReplacementPolicy"] = json!("Failed");
        tree["spec"]["podFailurePolicy"] = json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    };
    let evicted = |tree: &mut Value| {
        tree["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    };
    let broken = |tree: &mut Value| {
        tree["status"]["containerStatuses"] = json!([{"name": "c", "state": {"terminated": {"exitCode": 42}}}]);
    };

    let (ignored, _) = settle(job(policy), vec![pod("a", "Failed", evicted)]);
    assert_eq!(ignored.tree()["status"]["failed"], Value::Null);
    let (failed, _) = settle(job(policy), vec![pod("a", "Failed", broken)]);
    assert_eq!(condition(&failed, "Failed").as_deref(), Some("PodFailurePolicy"));
}

#[test]
fn some_indexes_may_be_enough() {
    let policy = |tree: &mut Value| {
        indexed(tree);
        tree["spec"]["successPolicy"] = json!({"rules": [{"succeededIndexes": "0"}]});
    };

    let (met, plan) = settle(
        job(policy),
        vec![pod("a", "Succeeded", at(0)), pod("b", "Running", at(1))],
    );

    assert_eq!(condition(&met, "SuccessCriteriaMet").as_deref(), Some("SuccessPolicy"));
    assert_eq!(plan.kill.len(), 1);
    let (done, _) = settle(met, vec![]);
    assert_eq!(condition(&done, "Complete").as_deref(), Some("SuccessPolicy"));
}

#[test]
fn a_finished_job_goes_after_its_time_to_live() {
    let finished = |ttl: i64| {
        job(move |tree| {
            tree["spec"]["ttlSecondsAfterFinished"] = json!(ttl);
            tree["status"]["conditions"] = json!([{"type": "Complete", "status": "True",
                "lastTransitionTime": "2026-01-01T00:09:00Z"}]);
        })
    };

    assert!(plan(&finished(60), &[], now()).expired);
    let waits = plan(&finished(90), &[], now());
    assert!(!waits.expired);
    assert_eq!(waits.look_again, Some(Duration::from_secs(30)));
}
