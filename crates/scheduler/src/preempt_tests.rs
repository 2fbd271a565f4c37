use serde_json::{Value, json};

use crate::{
    filter::tests::{asks, node, pod, snapshot},
    place::{Decision, place},
    pod_info::PodInfo,
    preempt::{Budget, Outcome, preempt},
    snapshot::Snapshot,
};

fn ranked(name: &str, cpu: &str, priority: i64) -> PodInfo {
    pod(name, |tree| {
        asks(cpu)(tree);
        tree["spec"]["priority"] = json!(priority);
    })
}

fn outcome(pod: &PodInfo, snapshot: &Snapshot, budgets: &[Budget]) -> Outcome {
    match place(pod, snapshot) {
        Decision::Nowhere(nowhere) => preempt(pod, &nowhere, snapshot, budgets),
        Decision::Node(node) => panic!("it fits on {node}"),
    }
}

fn found(pod: &PodInfo, snapshot: &Snapshot, budgets: &[Budget]) -> (String, Vec<String>) {
    match outcome(pod, snapshot, budgets) {
        Outcome::Found(found) => {
            let victims = found.victims.iter().map(|victim| victim.uid().to_owned());
            (found.node, victims.collect())
        }
        other => panic!("{other:?}"),
    }
}

fn protecting(labels: Value, allowed: i64) -> Budget {
    Budget {
        namespace: "n".to_owned(),
        selector: api::selector::LabelSelector::from_map(&labels),
        allowed,
    }
}

#[test]
fn as_few_as_needed_go_and_the_least_important_of_them() {
    let cluster = snapshot(vec![(
        node("a", |_| {}),
        vec![
            ranked("low", "400m", 1),
            ranked("lower", "400m", 0),
            ranked("high", "200m", 50),
        ],
    )]);

    assert_eq!(
        found(&ranked("p", "300m", 10), &cluster, &[]),
        ("a".to_owned(), vec!["lower".to_owned()])
    );
}

#[test]
fn the_node_is_chosen_where_least_is_lost() {
    let cluster = snapshot(vec![
        (node("a", |_| {}), vec![ranked("x", "1", 5)]),
        (node("b", |_| {}), vec![ranked("y", "1", 1)]),
        (
            node("c", |_| {}),
            vec![ranked("z1", "500m", 1), ranked("z2", "500m", 1)],
        ),
    ]);

    assert_eq!(found(&ranked("p", "1", 10), &cluster, &[]).0, "b");
}

#[test]
fn budgets_are_kept_where_there_is_a_choice() {
    let labelled = |name: &str| {
        pod(name, |tree| {
            asks("1")(tree);
            tree["metadata"]["labels"] = json!({"app": name});
        })
    };
    let cluster = snapshot(vec![
        (node("a", |_| {}), vec![labelled("x")]),
        (node("b", |_| {}), vec![labelled("y")]),
    ]);
    let pod = ranked("p", "1", 10);

    assert_eq!(found(&pod, &cluster, &[]).0, "a");
    assert_eq!(found(&pod, &cluster, &[protecting(json!({"app": "x"}), 0)]).0, "b");
    assert_eq!(found(&pod, &cluster, &[protecting(json!({"app": "x"}), 1)]).0, "a");
}

#[test]
fn what_no_going_helps_says_so() {
    let cluster = snapshot(vec![
        (node("a", |_| {}), vec![ranked("x", "1", 20)]),
        (
            node("b", |n| n["spec"]["unschedulable"] = json!(true)),
            vec![ranked("y", "1", 0)],
        ),
    ]);

    match outcome(&ranked("p", "500m", 10), &cluster, &[]) {
        Outcome::Nothing(why) => assert_eq!(
            why,
            "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, \
             1 Preemption is not helpful for scheduling."
        ),
        other => panic!("{other:?}"),
    }
    let polite = pod("p", |tree| {
        asks("1")(tree);
        tree["spec"]["priority"] = json!(30);
        tree["spec"]["preemptionPolicy"] = json!("Never");
    });
    assert!(matches!(outcome(&polite, &cluster, &[]), Outcome::Nothing(_)));
}

#[test]
fn while_room_is_being_made_nobody_else_has_to_go() {
    let leaving = pod("x", |tree| {
        asks("1")(tree);
        tree["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    let cluster = snapshot(vec![
        (node("a", |_| {}), vec![leaving]),
        (node("b", |_| {}), vec![ranked("y", "1", 0)]),
    ]);
    let waiting = pod("p", |tree| {
        asks("1")(tree);
        tree["spec"]["priority"] = json!(10);
        tree["status"]["nominatedNodeName"] = json!("a");
    });

    assert!(matches!(outcome(&waiting, &cluster, &[]), Outcome::UnderWay));
}
