//! Jobs, CronJobs and DaemonSets in a tenant, as its users see them.

use serde_json::Value;

use crate::platform_with_image;

const JOBS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: mangrove.test/web:1
          command: ["/bin/sh", "-c", "echo index $JOB_COMPLETION_INDEX"]
---
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: main
          image: mangrove.test/web:1
          command: ["/bin/sh", "-c", "exit 3"]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "@every 2s"
  timeZone: Europe/Berlin
  successfulJobsHistoryLimit: 1
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: main
              image: mangrove.test/web:1
              command: ["/bin/sh", "-c", "echo tick"]
"#;

#[test]
fn jobs_end_and_a_cron_job_fires_in_a_tenant() {
    let Some(platform) = platform_with_image() else { return };
    let acme = platform.tenant("acme");

    acme.apply(JOBS);

    acme.run(&["wait", "--for=condition=Complete", "job/sum", "--timeout=100s"]);
    assert_eq!(acme.field(&["job", "sum"], ".status.completedIndexes"), "0-2");
    let logs = acme.run(&["logs", "-l", "batch.kubernetes.io/job-name=sum", "--tail=-1"]);
    let mut said: Vec<&str> = logs.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["index 0", "index 1", "index 2"]);
    acme.run(&["wait", "--for=condition=Failed", "job/bad", "--timeout=100s"]);
    assert_eq!(
        acme.field(&["job", "bad"], ".status.conditions[?(@.type=='Failed')].reason"),
        "BackoffLimitExceeded"
    );

    acme.until("it has fired and succeeded", |acme| {
        let last = acme.field(&["cronjob", "tick"], ".status.lastSuccessfulTime");
        (!last.is_empty()).then_some(())
    });
    acme.run(&["delete", "cronjob/tick", "job/sum", "job/bad"]);
    acme.until("all Pods are gone", |acme| {
        acme.names(&["pods"]).is_empty().then_some(())
    });
    platform.finish();
}

const DAEMON: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: mangrove.test/web:1
          command: ["/bin/sh", "-c", "sleep 100000"]
"#;

#[test]
fn a_daemon_set_runs_on_the_nodes_that_its_tenant_sees() {
    let Some(platform) = platform_with_image() else { return };
    let acme = platform.tenant("acme");

    acme.apply(DAEMON);
    acme.run(&["rollout", "status", "daemonset/agent", "--timeout=100s"]);
    let nodes = acme.names(&["nodes"]);
    let pods = acme.json(&["get", "pods", "-l", "app=agent"]);
    let mut on: Vec<String> = items(&pods)
        .iter()
        .map(|pod| pod["spec"]["nodeName"].as_str().unwrap().to_owned())
        .collect();
    on.sort();
    assert_eq!(on, nodes);

    acme.run(&["set", "env", "daemonset/agent", "COLOUR=blue"]);
    acme.run(&["rollout", "status", "daemonset/agent", "--timeout=100s"]);
    let history = acme.run(&["rollout", "history", "daemonset/agent"]);
    assert_eq!(
        history.lines().filter(|line| line.starts_with(['1', '2'])).count(),
        2,
        "{history}"
    );
    acme.run(&["rollout", "undo", "daemonset/agent"]);
    acme.run(&["rollout", "status", "daemonset/agent", "--timeout=100s"]);
    assert_eq!(
        acme.field(&["daemonset", "agent"], ".spec.template.spec.containers[0].env"),
        ""
    );
    platform.finish();
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}
