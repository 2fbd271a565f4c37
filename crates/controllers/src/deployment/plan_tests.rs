use super::*;

const T0: &str = "2026-01-01T00:00:00Z";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(T0.parse::<Timestamp>().unwrap().as_second() + seconds).unwrap()
}

fn deployment(change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1},
        "spec": {
            "replicas": 3, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}},
        },
        "status": {},
    });
    change(&mut tree);
    Object::from_tree(tree)
}

/// A plane of one Deployment: carries plans out as the server and the ReplicaSets' own loop would.
struct Plane {
    deployment: Object,
    sets: Vec<Object>,
    now: i64,
    /// New Pods of these images never become ready.
    broken: Vec<&'static str>,
}

impl Plane {
    fn new(deployment: Object) -> Plane {
        Plane {
            deployment,
            sets: Vec::new(),
            now: 0,
            broken: Vec::new(),
        }
    }

    fn pass(&mut self) -> Plan {
        self.now += 1;
        let observed = Observed {
            sets: self.sets.iter().map(Set::of).collect(),
            old_pods_run: false,
        };
        let plan = plan(&self.deployment, observed, at(self.now));
        for step in &plan.steps {
            match step {
                Step::Create { body } => {
                    let mut set = body.clone();
                    set["metadata"]["uid"] = body["metadata"]["name"].clone();
                    set["metadata"]["creationTimestamp"] = json!(crate::time::text(at(self.now)));
                    set["status"] = json!({});
                    self.sets.push(Object::from_tree(set));
                }
                Step::Renew { set, patch } | Step::Scale { set, patch, .. } => {
                    let place = self.sets.iter().position(|other| other.uid() == set.uid()).unwrap();
                    let mut tree = self.sets[place].tree().clone();
                    json_merge(&mut tree, patch);
                    self.sets[place] = Object::from_tree(tree);
                }
                Step::Forget { set } => self.sets.retain(|other| other.uid() != set.uid()),
            }
        }
        let mut tree = self.deployment.tree().clone();
        if let Some(revision) = plan.revision {
            tree["metadata"]["annotations"][REVISION] = json!(revision.to_string());
        }
        if let Some(status) = &plan.status {
            json_merge(&mut tree["status"], status);
        }
        self.deployment = Object::from_tree(tree);
        plan
    }

    /// Each set gets what it asks for; all Pods work, save those of a broken image.
    fn run_pods(&mut self) {
        for set in &mut self.sets {
            let mut tree = set.tree().clone();
            let replicas = tree["spec"]["replicas"].clone();
            let image = tree["spec"]["template"]["spec"]["containers"][0]["image"]
                .as_str()
                .unwrap();
            let ready = if self.broken.contains(&image) {
                json!(0)
            } else {
                replicas.clone()
            };
            tree["status"] = json!({"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready});
            *set = Object::from_tree(tree);
        }
    }

    fn settle(&mut self) -> Vec<Vec<i64>> {
        let mut history = Vec::new();
        for _ in 0..50 {
            let before = (self.deployment.clone(), self.sets.clone());
            self.pass();
            history.push(self.sizes());
            self.run_pods();
            if before == (self.deployment.clone(), self.sets.clone()) {
                return history;
            }
        }
        panic!("does not settle: {history:?}");
    }

    fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let mut tree = self.deployment.tree().clone();
        change(&mut tree);
        let generation = tree["metadata"]["generation"].as_i64().unwrap();
        tree["metadata"]["generation"] = json!(generation + 1);
        self.deployment = Object::from_tree(tree);
    }

    fn image(&mut self, image: &str) {
        self.change(|tree| tree["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
    }

    fn sizes(&self) -> Vec<i64> {
        self.sets
            .iter()
            .map(|set| set.tree()["spec"]["replicas"].as_i64().unwrap())
            .collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let condition = crate::pods::condition(&self.deployment, kind)
            .cloned()
            .unwrap_or_default();
        (
            condition["status"].as_str().unwrap_or("").into(),
            condition["reason"].as_str().unwrap_or("").into(),
        )
    }

    fn revisions(&self) -> Vec<&str> {
        self.sets
            .iter()
            .map(|set| set.annotation(REVISION).unwrap_or(""))
            .collect()
    }
}

fn json_merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            json_merge(&mut target[key], value);
        }
    }
}

#[test]
fn a_new_deployment_makes_its_set_and_is_complete_when_all_pods_work() {
    let mut plane = Plane::new(deployment(|_| {}));

    plane.pass();
    assert_eq!(plane.sizes(), [3]);
    assert_eq!(
        plane.condition("Progressing"),
        ("True".into(), "NewReplicaSetCreated".into())
    );
    assert_eq!(plane.condition("Available").0, "False");
    plane.settle();

    assert_eq!(plane.deployment.annotation(REVISION), Some("1"));
    assert_eq!(
        plane.condition("Progressing"),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
    assert_eq!(
        plane.condition("Available"),
        ("True".into(), "MinimumReplicasAvailable".into())
    );
    let status = &plane.deployment.tree()["status"];
    assert_eq!(
        (&status["updatedReplicas"], &status["availableReplicas"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(status["unavailableReplicas"], Value::Null);
}

#[test]
fn a_rollout_never_has_more_or_fewer_pods_than_allowed() {
    for (surge, unavailable) in [(json!(1), json!(0)), (json!(0), json!(1)), (json!("50%"), json!("50%"))] {
        let mut plane = Plane::new(deployment(|tree| {
            tree["spec"]["replicas"] = json!(5);
            tree["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        }));
        plane.settle();
        plane.image("two");

        let spec = Spec::of(&plane.deployment);
        for sizes in plane.settle() {
            let total: i64 = sizes.iter().sum();
            assert!(
                total <= spec.most() && total >= 5 - spec.unavailable(),
                "{surge} {unavailable}: {sizes:?}"
            );
        }
        assert_eq!(plane.sizes(), [0, 5]);
        assert_eq!(plane.revisions(), ["1", "2"]);
    }
}

#[test]
fn an_undo_takes_the_old_set_back_under_a_new_revision() {
    let mut plane = Plane::new(deployment(|_| {}));
    plane.settle();
    plane.image("two");
    plane.settle();

    plane.image("one");
    plane.settle();

    assert_eq!(plane.sizes(), [3, 0]);
    assert_eq!(plane.revisions(), ["3", "2"]);
    assert_eq!(plane.sets[0].annotation(super::super::set::HISTORY), Some("1"));
    assert_eq!(plane.deployment.annotation(REVISION), Some("3"));
}

#[test]
fn a_broken_image_stops_the_rollout_and_misses_its_deadline() {
    let mut plane = Plane::new(deployment(|_| {}));
    plane.settle();
    plane.broken.push("bad");
    plane.image("bad");
    plane.settle();
    assert_eq!(plane.sizes(), [3, 1], "the old ones stay");
    assert_eq!(plane.condition("Available").0, "True");

    let plan = plane.pass();
    assert!(
        plan.look_again.is_some_and(|delay| delay.as_secs() <= 601),
        "{:?}",
        plan.look_again
    );
    plane.now += 602;
    plane.pass();

    assert_eq!(
        plane.condition("Progressing"),
        ("False".into(), "ProgressDeadlineExceeded".into())
    );
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_proportions() {
    let mut plane = Plane::new(deployment(|tree| {
        tree["spec"]["replicas"] = json!(10);
        tree["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 3, "maxUnavailable": 2});
    }));
    plane.settle();
    plane.broken.push("bad");
    plane.image("bad");
    plane.settle();
    assert_eq!(plane.sizes(), [8, 5]);

    plane.change(|tree| tree["spec"]["replicas"] = json!(15));
    plane.pass();

    assert_eq!(plane.sizes(), [11, 7], "upstream's example of proportional scaling");
}

#[test]
fn recreate_ends_all_old_pods_before_the_first_new_one() {
    let mut plane = Plane::new(deployment(|tree| {
        tree["spec"]["strategy"] = json!({"type": "Recreate"})
    }));
    plane.settle();
    plane.image("two");

    plane.pass();
    assert_eq!(plane.sizes(), [0]);
    plane.pass();
    assert_eq!(plane.sizes(), [0], "the old Pods are still there");
    plane.run_pods();
    plane.pass();

    assert_eq!(plane.sizes(), [0, 3]);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut plane = Plane::new(deployment(|_| {}));
    plane.settle();
    plane.change(|tree| {
        tree["spec"]["paused"] = json!(true);
        tree["spec"]["replicas"] = json!(5);
    });
    plane.image("two");
    plane.settle();
    assert_eq!(plane.sizes(), [5]);
    assert_eq!(
        plane.condition("Progressing"),
        ("Unknown".into(), "DeploymentPaused".into())
    );

    plane.change(|tree| tree["spec"]["paused"] = json!(false));
    plane.settle();
    assert_eq!(plane.sizes(), [0, 5]);
}

#[test]
fn revisions_beyond_the_limit_are_forgotten_oldest_first() {
    let mut plane = Plane::new(deployment(|tree| tree["spec"]["revisionHistoryLimit"] = json!(1)));
    for image in ["one", "two", "three", "four"] {
        plane.image(image);
        plane.settle();
    }

    assert_eq!(plane.revisions(), ["3", "4"]);
}

#[test]
fn a_deployment_that_is_being_deleted_changes_nothing_but_its_status() {
    let mut plane = Plane::new(deployment(|tree| tree["metadata"]["deletionTimestamp"] = json!(T0)));

    assert_eq!(plane.pass().steps, []);
}
