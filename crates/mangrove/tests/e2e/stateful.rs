//! A StatefulSet with volumes: its data and its names outlive its Pods, the node agent and the machine.

use nix::sys::signal::Signal;
use testkit::kubectl::Kubectl;

use crate::platform_with_image;

const STATEFUL: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: mangrove.test/web:1
          command: ["/bin/sh", "-c", "hostname >> /data/starts; exec busybox httpd -f -p 8080 -h /data"]
          readinessProbe: {httpGet: {path: /starts, port: 8080}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: mangrove.test/web:1
      command: ["sleep", "100000"]
"#;

#[test]
fn a_stateful_sets_data_and_names_outlive_its_pods_the_agent_and_the_machine() {
    let Some(platform) = platform_with_image() else { return };
    let planes = [
        Side::of(platform.root(), Reached::ByAddress),
        Side::of(platform.tenant("acme"), Reached::ByName),
    ];
    for plane in &planes {
        plane.apply(STATEFUL);
    }
    planes.iter().for_each(|plane| has_started(plane, [1, 1, 1]));
    for plane in &planes {
        assert_eq!(plane.names(&["pods", "-l", "app=db"]), ["db-0", "db-1", "db-2"]);
        let before = plane.field(&["pod", "db-1"], ".metadata.uid");
        plane.run(&["delete", "pod", "db-1"]);
        plane.until("it is made anew", |plane| {
            let now = plane
                .said(&["get", "pod", "db-1", "-o", "jsonpath={.metadata.uid}"])
                .out;
            (!now.is_empty() && now != before).then_some(())
        });
    }
    planes.iter().for_each(|plane| has_started(plane, [1, 2, 1]));

    // With the server ends the node agent; Pods don't notice.
    platform.end_server(Signal::SIGKILL);
    platform.up();
    planes.iter().for_each(|plane| has_started(plane, [1, 2, 1]));

    platform.down();
    platform.up();
    planes.iter().for_each(|plane| has_started(plane, [2, 3, 2]));

    platform.lose_power();
    platform.up();
    planes.iter().for_each(|plane| has_started(plane, [3, 4, 3]));

    for plane in &planes {
        plane.run(&["scale", "statefulset/db", "--replicas=1"]);
        plane.until("two go", |plane| {
            (plane.names(&["pods", "-l", "app=db"]) == ["db-0"]).then_some(())
        });
        plane.run(&["scale", "statefulset/db", "--replicas=2"]);
    }
    for plane in &planes {
        plane.run(&["rollout", "status", "statefulset/db", "--timeout=120s"]);
        assert_eq!(
            starts(plane, "db-1").as_deref(),
            Some("db-1\n".repeat(5).as_str()),
            "its claim was kept"
        );
        plane.run(&["delete", "statefulset/db", "pod/client"]);
        plane.run(&["delete", "pvc", "--all"]);
        plane.until("the claims are gone", |plane| {
            plane.names(&["pvc"]).is_empty().then_some(())
        });
    }
    planes[0].until("all volumes and their directories are gone", |root| {
        let volumes = platform.data_dir().join("node/volumes");
        let directories = std::fs::read_dir(volumes).map_or(0, Iterator::count);
        (root.names(&["pv"]).is_empty() && directories == 0).then_some(())
    });
    platform.finish();
}

/// How another Pod reaches one. The super cluster's own Pods have no names.
#[derive(Clone, Copy)]
enum Reached {
    ByName,
    ByAddress,
}

struct Side {
    kubectl: Kubectl,
    reached: Reached,
}

impl Side {
    fn of(kubectl: Kubectl, reached: Reached) -> Side {
        Side { kubectl, reached }
    }
}

impl std::ops::Deref for Side {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

/// Waits until every Pod is ready and has been started so often on its volume, as another Pod reads it.
#[track_caller]
fn has_started(plane: &Side, times: [usize; 3]) {
    plane.run(&["rollout", "status", "statefulset/db", "--timeout=120s"]);
    plane.run(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]);
    for (number, times) in times.into_iter().enumerate() {
        let pod = format!("db-{number}");
        let wanted = format!("{pod}\n").repeat(times);
        plane.until(&format!("{pod} has started {times} times"), |_| {
            (starts(plane, &pod)? == wanted).then_some(())
        });
    }
}

/// What a Pod has written at its starts, each its name; `None` while it is not reached.
fn starts(plane: &Side, pod: &str) -> Option<String> {
    let place = match plane.reached {
        Reached::ByName => format!("{pod}.db"),
        Reached::ByAddress => plane.said(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).out,
    };
    let url = format!("http://{place}:8080/starts");
    let said = plane.said(&["exec", "client", "--", "timeout", "3", "wget", "-q", "-O", "-", &url]);
    said.succeeded().then_some(said.out)
}
