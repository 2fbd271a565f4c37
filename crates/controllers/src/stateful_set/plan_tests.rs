use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Observed, Step, Which, plan, status};

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

fn set(replicas: i64, change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({"metadata": {"name": "web", "namespace": "n", "uid": "s", "generation": 3}, "spec": {
        "replicas": replicas, "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {"spec": {}}}});
    change(&mut tree);
    Object::from_tree(tree)
}

#[derive(Clone, Copy, PartialEq)]
enum Is {
    Ready,
    Pending,
    Failed,
    Leaving,
}

fn pod(ordinal: i64, revision: &str, is: Is) -> Object {
    let name = format!("web-{ordinal}");
    let (phase, ready) = match is {
        Is::Ready | Is::Leaving => ("Running", "True"),
        Is::Pending => ("Pending", "False"),
        Is::Failed => ("Failed", "False"),
    };
    let mut tree = json!({
        "metadata": {"name": name, "uid": format!("{name}-{revision}"), "labels": {
            "controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": ordinal.to_string()}},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:55Z"}]}});
    if is == Is::Leaving {
        tree["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:59Z");
    }
    Object::from_tree(tree)
}

fn observe<'a>(set: &'a Object, pods: &'a [Object]) -> Observed<'a> {
    Observed {
        set,
        pods,
        current: "one",
        update: "two",
    }
}

/// The steps in short: `+2 two`, `-1 Update`.
fn steps(set: &Object, pods: &[Object]) -> Vec<String> {
    let plan = plan(&observe(set, pods), now());
    let short = |step: &Step| match step {
        Step::Create { ordinal, which } => {
            format!("+{ordinal} {}", if *which == Which::Current { "one" } else { "two" })
        }
        Step::Delete { pod, why } => format!("-{} {why:?}", &pod.name()[4..]),
        Step::Mend { pod, .. } => format!("~{}", &pod.name()[4..]),
    };
    plan.steps.iter().map(short).collect()
}

fn parallel(tree: &mut Value) {
    tree["spec"]["podManagementPolicy"] = json!("Parallel");
}

#[test]
fn pods_are_made_one_after_the_other_when_the_one_before_is_ready() {
    let set = set(3, |_| {});

    assert_eq!(steps(&set, &[]), ["+0 two"]);
    assert!(steps(&set, &[pod(0, "two", Is::Pending)]).is_empty());
    assert_eq!(steps(&set, &[pod(0, "two", Is::Ready)]), ["+1 two"]);
    assert_eq!(
        steps(&set, &[pod(0, "two", Is::Ready), pod(2, "two", Is::Ready)]),
        ["+1 two"]
    );
}

#[test]
fn in_parallel_all_are_made_at_once() {
    let set = set(3, parallel);

    assert_eq!(steps(&set, &[pod(1, "two", Is::Pending)]), ["+0 two", "+2 two"]);
}

#[test]
fn numbers_begin_where_the_set_says() {
    let set = set(2, |tree| tree["spec"]["ordinals"] = json!({"start": 5}));

    assert_eq!(steps(&set, &[pod(0, "two", Is::Ready)]), ["+5 two"]);
    let pods = [
        pod(0, "two", Is::Ready),
        pod(5, "two", Is::Ready),
        pod(6, "two", Is::Ready),
    ];
    assert_eq!(steps(&set, &pods), ["-0 Scale"]);
}

#[test]
fn the_highest_number_goes_first_and_alone() {
    let ready = [0, 1, 2].map(|ordinal| pod(ordinal, "two", Is::Ready));

    assert_eq!(steps(&set(1, |_| {}), &ready), ["-2 Scale"]);
    assert_eq!(steps(&set(1, parallel), &ready), ["-2 Scale", "-1 Scale"]);
    let leaving = [
        pod(0, "two", Is::Ready),
        pod(1, "two", Is::Ready),
        pod(2, "two", Is::Leaving),
    ];
    assert!(steps(&set(1, |_| {}), &leaving).is_empty());
    let broken = [pod(0, "two", Is::Pending), pod(1, "two", Is::Ready)];
    assert!(
        steps(&set(1, |_| {}), &broken).is_empty(),
        "what stays has to work first"
    );
}

#[test]
fn a_pod_that_is_over_is_made_anew() {
    assert_eq!(steps(&set(2, |_| {}), &[pod(0, "two", Is::Failed)]), ["-0 Over"]);
}

#[test]
fn an_update_goes_from_the_highest_number_down_waiting_for_each() {
    let set = set(3, |_| {});
    let old = [0, 1, 2].map(|ordinal| pod(ordinal, "one", Is::Ready));

    assert_eq!(steps(&set, &old), ["-2 Update"]);
    let underway = [old[0].clone(), old[1].clone(), pod(2, "two", Is::Pending)];
    assert!(steps(&set, &underway).is_empty());
    let next = [old[0].clone(), old[1].clone(), pod(2, "two", Is::Ready)];
    assert_eq!(steps(&set, &next), ["-1 Update"]);
}

#[test]
fn what_is_below_the_partition_keeps_its_revision_even_if_made_anew() {
    let set = set(3, |tree| {
        tree["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(2)
    });

    let old = [0, 1, 2].map(|ordinal| pod(ordinal, "one", Is::Ready));
    assert_eq!(steps(&set, &old), ["-2 Update"]);
    let mixed = [old[0].clone(), pod(2, "two", Is::Ready)];
    assert_eq!(steps(&set, &mixed), ["+1 one"]);
    let done = [old[0].clone(), old[1].clone(), pod(2, "two", Is::Ready)];
    assert!(steps(&set, &done).is_empty());
}

#[test]
fn on_delete_nothing_is_updated_but_what_is_made_is_new() {
    let set = set(2, |tree| tree["spec"]["updateStrategy"] = json!({"type": "OnDelete"}));

    assert_eq!(steps(&set, &[pod(0, "one", Is::Ready)]), ["+1 two"]);
    assert!(steps(&set, &[pod(0, "one", Is::Ready), pod(1, "one", Is::Ready)]).is_empty());
}

#[test]
fn several_may_be_unavailable_if_the_set_allows_it() {
    let set = set(4, |tree| {
        tree["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!("50%");
    });
    let old = [0, 1, 2, 3].map(|ordinal| pod(ordinal, "one", Is::Ready));

    assert_eq!(steps(&set, &old), ["-3 Update", "-2 Update"]);
}

#[test]
fn a_pod_counts_when_it_has_been_ready_for_long_enough() {
    let set = set(2, |tree| tree["spec"]["minReadySeconds"] = json!(30));
    let pods = [pod(0, "two", Is::Ready)];

    let plan = plan(&observe(&set, &pods), now());

    assert!(plan.steps.is_empty());
    assert_eq!(plan.look_again, Some(std::time::Duration::from_secs(25)));
}

#[test]
fn a_finished_rollout_makes_the_new_revision_the_current_one() {
    let set = set(2, |_| {});
    let pods = [pod(0, "two", Is::Ready), pod(1, "two", Is::Ready)];

    let told = status(&observe(&set, &pods), None, now()).unwrap();

    assert_eq!(told["currentRevision"], "two");
    assert_eq!(
        (&told["currentReplicas"], &told["updatedReplicas"]),
        (&json!(2), &json!(2))
    );
    let half = [pod(0, "one", Is::Ready), pod(1, "two", Is::Ready)];
    let told = status(&observe(&set, &half), None, now()).unwrap();
    assert_eq!(told["currentRevision"], "one");
    assert_eq!(
        (&told["currentReplicas"], &told["updatedReplicas"]),
        (&json!(1), &json!(1))
    );
    let mut tree = set.tree().clone();
    tree["status"] = told;
    assert_eq!(status(&observe(&Object::from_tree(tree), &half), None, now()), None);
}
