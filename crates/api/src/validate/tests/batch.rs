//! Jobs and CronJobs.

use serde_json::{Value, json};

use super::{created, updated};
use crate::resource::{CRON_JOBS, JOBS};

fn job(spec: Value) -> Value {
    let mut whole = json!({
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {
            "metadata": {"labels": {"batch.kubernetes.io/controller-uid": "u"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]},
        },
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": whole})
}

#[test]
fn a_job_is_refused_in_upstreams_words() {
    let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}, "podReplacementPolicy": "Failed"});
    let indexed = |mut spec: Value| {
        spec["completionMode"] = json!("Indexed");
        spec
    };
    let first = "spec.podFailurePolicy.rules[0]";
    for (spec, expected) in [
        (json!({}), vec![]),
        (
            json!({"parallelism": -1}),
            vec!["spec.parallelism: Invalid value: -1: must be greater than or equal to 0".to_owned()],
        ),
        (
            json!({"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}, "selector": {}}),
            vec![
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"".to_owned(),
                "spec.selector: Invalid value: {}: `selector` not auto-generated".to_owned(),
            ],
        ),
        (
            json!({"completionMode": "Indexed", "parallelism": 2}),
            vec!["spec.completions: Required value: when completion mode is Indexed".to_owned()],
        ),
        (
            indexed(json!({"completions": 2, "parallelism": 200_000})),
            vec![
                "spec.parallelism: Invalid value: 200000: must be less than or equal to 100000 when completion mode is \
                 Indexed"
                    .to_owned(),
            ],
        ),
        (
            json!({"maxFailedIndexes": 1}),
            vec![
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified".to_owned(),
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode".to_owned(),
            ],
        ),
        (
            rule(json!({"action": "Retry", "onExitCodes": {"operator": "In", "values": [1]}})),
            vec![format!(
                "{first}.action: Unsupported value: \"Retry\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \
                 \"Ignore\""
            )],
        ),
        (
            rule(json!({"action": "FailIndex"})),
            vec![
                format!("{first}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
                format!("{first}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
            ],
        ),
        (
            rule(
                json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 0, 2], "containerName": "x"}}),
            ),
            vec![
                format!(
                    "{first}.onExitCodes.containerName: Invalid value: \"x\": must be one of the container or \
                     initContainer names in the pod template"
                ),
                format!("{first}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator"),
                format!("{first}.onExitCodes.values[2]: Duplicate value: 2"),
                format!("{first}.onExitCodes.values: Invalid value: [2,0,2]: must be ordered"),
            ],
        ),
        (
            indexed(json!({"completions": 5, "successPolicy": {"rules": [{"succeededIndexes": "3-1"}]}})),
            vec![
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"3-1\": error parsing succeededIndexes: \
                 non-increasing order, previous: 3, current: 1"
                    .to_owned(),
            ],
        ),
        (
            indexed(
                json!({"completions": 5, "successPolicy": {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 4}]}}),
            ),
            vec![
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the \
                 number of indexes in the specified succeededIndexes field)"
                    .to_owned(),
            ],
        ),
    ] {
        assert_eq!(created(&JOBS, job(spec.clone())), expected, "{spec}");
    }
}

#[test]
fn a_job_that_runs_stays_as_it_is() {
    let mut template = job(json!({}))["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = json!("c");

    let changed = updated(&JOBS, job(json!({"template": template})), job(json!({})));
    let grown = updated(&JOBS, job(json!({"completions": 3})), job(json!({"completions": 2})));
    let parallel = updated(
        &JOBS,
        job(json!({"completions": 2, "parallelism": 2})),
        job(json!({"completions": 2})),
    );

    assert_eq!(changed.len(), 1);
    assert!(changed[0].starts_with("spec.template: Invalid value: {"), "{changed:?}");
    assert!(changed[0].ends_with(": field is immutable"), "{changed:?}");
    assert_eq!(grown, ["spec.completions: Invalid value: 3: field is immutable"]);
    assert_eq!(parallel, Vec::<String>::new());
}

#[test]
fn a_suspended_job_goes_on_and_may_be_placed_elsewhere() {
    let suspended = job(json!({"suspend": true}));
    let mut elsewhere = job(json!({"suspend": false}));
    elsewhere["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "fast"});
    elsewhere["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    let mut another = elsewhere.clone();
    another["spec"]["template"]["spec"]["containers"][0]["image"] = json!("c");
    let refusals = |new: Value| updated(&JOBS, new, suspended.clone());

    assert_eq!(refusals(job(json!({"suspend": false}))), Vec::<String>::new());
    assert_eq!(refusals(elsewhere), Vec::<String>::new());
    assert_eq!(refusals(another).len(), 1);
}

#[test]
fn a_cron_jobs_time_is_checked() {
    let cron = |spec: Value| {
        let mut whole =
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": job(json!({}))["spec"]["template"]}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        created(
            &CRON_JOBS,
            json!({"metadata": {"name": "c", "namespace": "n"}, "spec": whole}),
        )
    };

    assert_eq!(cron(json!({})), Vec::<String>::new());
    assert_eq!(cron(json!({"timeZone": "Europe/Zurich"})), Vec::<String>::new());
    assert_eq!(
        cron(json!({"timeZone": "../etc/passwd"})),
        ["spec.timeZone: Invalid value: \"../etc/passwd\": unknown time zone ../etc/passwd"]
    );
    assert_eq!(
        cron(json!({"schedule": "every day", "concurrencyPolicy": "Sometimes"})),
        [
            "spec.schedule: Invalid value: \"every day\": expected exactly 5 fields, found 2: [every day]",
            "spec.concurrencyPolicy: Unsupported value: \"Sometimes\": supported values: \"Allow\", \"Forbid\", \
             \"Replace\""
        ]
    );
}
