//! Who owns what after creates, updates and applies; what upstream answers for the same.

use super::*;
use crate::Reason;

#[test]
fn a_created_deployment_is_owned_as_upstream_has_it() {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{
                "name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}},
            }]}},
        },
    });
    default::apply(&resource::DEPLOYMENTS, &mut deployment);

    deployments("kubectl-create").created(&mut deployment);

    assert_eq!(
        owners(&deployment),
        [concat!(
            r#"kubectl-create Update {"f:metadata":{"f:labels":{".":{},"f:app":{}}},"#,
            r#""f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"f:revisionHistoryLimit":{},"f:selector":{},"#,
            r#""f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}},"#,
            r#""f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"#,
            r#""f:spec":{"f:containers":{"k:{\"name\":\"nginx\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"#,
            r#""f:livenessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},"f:port":{},"f:scheme":{}},"#,
            r#""f:periodSeconds":{},"f:successThreshold":{},"f:timeoutSeconds":{}},"#,
            r#""f:name":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"#,
            r#""f:resources":{},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"#,
            r#""f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"#,
            r#""f:terminationGracePeriodSeconds":{}}}}}"#
        )]
    );
    let entry = &deployment["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["apiVersion"], &entry["fieldsType"], &entry["time"]),
        (&json!("apps/v1"), &json!("FieldsV1"), &json!(NOW))
    );
}

#[test]
fn who_changes_a_field_owns_it() {
    let mut first = config_map(json!({"a": "1", "b": "1"}));
    config_maps("one").created(&mut first);
    let live = stored(first);
    let mut new = live.clone();
    new["data"] = json!({"a": "2", "c": "1"});
    let later = Write {
        now: LATER,
        ..config_maps("two")
    };

    later.updated(&live, &mut new);

    assert_eq!(
        owners(&new),
        [
            r#"one Update {"f:data":{}}"#,
            r#"two Update {"f:data":{"f:a":{},"f:c":{}}}"#
        ]
    );
    assert_eq!(new["metadata"]["managedFields"][0]["time"], NOW);
    assert_eq!(new["metadata"]["managedFields"][1]["time"], LATER);
}

#[test]
fn an_update_that_changes_nothing_leaves_owners_and_times() {
    let mut first = config_map(json!({"a": "1"}));
    config_maps("one").created(&mut first);
    let live = stored(first);
    let mut new = live.clone();
    let later = Write {
        now: LATER,
        ..config_maps("two")
    };

    later.updated(&live, &mut new);

    assert_eq!(new, live);
}

#[test]
fn what_a_writer_leaves_out_of_the_owners_stays_and_an_empty_entry_resets() {
    let mut first = config_map(json!({"a": "1"}));
    config_maps("one").created(&mut first);
    let live = stored(first);
    let updated = |managed: Value| {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = managed;
        config_maps("two").updated(&live, &mut new);
        new["metadata"]["managedFields"].clone()
    };

    assert_eq!(updated(Value::Null), live["metadata"]["managedFields"]);
    assert_eq!(updated(json!([{"manager": "x"}])), live["metadata"]["managedFields"]);
    assert_eq!(updated(json!([{}])), Value::Null);
    assert_eq!(updated(json!([])), Value::Null);
    let own = json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}}}, "time": NOW}]);
    assert_eq!(updated(own.clone()), own);
}

#[test]
fn an_object_without_owners_gets_some_when_it_is_applied_to() {
    let live = stored(config_map(json!({"a": "1"})));
    let mut updated = live.clone();
    updated["data"]["b"] = "1".into();

    config_maps("one").updated(&live, &mut updated);
    let applied = config_maps("two").applied(Some(&updated), &config_map(json!({"c": "1"})), Force::No);

    assert_eq!(owners(&updated), Vec::<String>::new());
    assert_eq!(
        owners(&applied.unwrap()),
        [
            r#"two Apply {"f:data":{"f:c":{}}}"#,
            r#"before-first-apply Update {"f:data":{".":{},"f:a":{},"f:b":{}}}"#
        ]
    );
}

#[test]
fn a_configuration_creates_and_owns_what_it_says() {
    let config = config_map(json!({"a": "1"}));

    let applied = config_maps("one").applied(None, &config, Force::No).unwrap();

    assert_eq!(owners(&applied), [r#"one Apply {"f:data":{"f:a":{}}}"#]);
    assert_eq!(applied["data"], json!({"a": "1"}));
}

#[test]
fn a_field_of_somebody_else_is_a_conflict_unless_forced() {
    let mut live = config_map(json!({"a": "1"}));
    config_maps("creator").created(&mut live);
    let live = stored(live);
    let config = config_map(json!({"a": "2"}));

    let refused = config_maps("one").applied(Some(&live), &config, Force::No).unwrap_err();
    let forced = config_maps("one").applied(Some(&live), &config, Force::Yes).unwrap();

    assert_eq!(refused.reason, Reason::Conflict);
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"creator\" using v1: .data.a"
    );
    assert_eq!(forced["data"]["a"], "2");
    assert_eq!(
        owners(&forced),
        [r#"one Apply {"f:data":{"f:a":{}}}"#, r#"creator Update {"f:data":{}}"#]
    );
}

#[test]
fn the_same_value_is_owned_together() {
    let config = config_map(json!({"a": "1"}));
    let live = stored(config_maps("one").applied(None, &config, Force::No).unwrap());

    let shared = config_maps("two").applied(Some(&live), &config, Force::No).unwrap();
    let given_up = config_maps("two")
        .applied(Some(&shared), &config_map(json!({})), Force::No)
        .unwrap();

    assert_eq!(
        owners(&shared),
        [
            r#"two Apply {"f:data":{"f:a":{}}}"#,
            r#"one Apply {"f:data":{"f:a":{}}}"#
        ]
    );
    assert_eq!(given_up["data"], json!({"a": "1"}), "the other still wants it");
}

#[test]
fn what_is_applied_is_checked() {
    let problem = |config: Value| {
        config_maps("one")
            .applied(None, &config, Force::No)
            .unwrap_err()
            .message
    };
    let mut owned = config_map(json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    let mut unknown = config_map(json!({"a": "1"}));
    unknown["dato"] = json!({});
    let mut other = config_map(json!({}));
    other["apiVersion"] = "apps/v1".into();

    assert_eq!(problem(owned), "metadata.managedFields must be nil");
    assert_eq!(
        problem(unknown),
        "failed to create typed patch object (default/c; /v1, Kind=ConfigMap): .dato: field not declared in schema"
    );
    assert_eq!(problem(other), "invalid object type: apps/v1, Kind=ConfigMap");
    assert_eq!(
        problem(config_map(json!({"a": 1}))),
        "failed to create typed patch object (default/c; /v1, Kind=ConfigMap): .data.a: expected string, got \
         &value.valueUnstructured{Value:1}"
    );
}

#[test]
fn elements_are_there_once_and_have_keys() {
    let deployment = |containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": containers}}}})
    };
    let problem = |containers: Value| {
        let refused = deployments("one").applied(None, &deployment(containers), Force::No);
        let message = refused.unwrap_err().message;
        message.split_once("): ").unwrap().1.to_owned()
    };

    assert_eq!(
        problem(json!([{"name": "a"}, {"name": "a"}])),
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
    assert_eq!(
        problem(json!([{"name": "a", "env": [{"name": "A", "valu": "1"}]}])),
        ".spec.template.spec.containers[name=\"a\"].env[name=\"A\"].valu: field not declared in schema"
    );
    assert_eq!(
        problem(json!(["a"])),
        ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements"
    );
}

#[test]
fn kubectl_takes_over_what_its_client_side_apply_wrote() {
    let mut live = config_map(json!({"a": "1", "b": "1"}));
    let last = config_map(json!({"a": "1", "b": "1"}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    config_maps("kubectl-client-side-apply").created(&mut live);
    let live = stored(live);
    let mut touched = live.clone();
    touched["data"]["b"] = "2".into();
    config_maps("somebody").updated(&live, &mut touched);
    let config = config_map(json!({"a": "2", "b": "3"}));

    let taken = config_maps("kubectl").applied(Some(&live), &config, Force::No).unwrap();
    let refused = config_maps("kubectl").applied(Some(&touched), &config, Force::No);
    let other = config_maps("other").applied(Some(&live), &config, Force::No);

    assert_eq!(taken["data"], json!({"a": "2", "b": "3"}));
    assert_eq!(
        taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
        format!("{config}\n")
    );
    assert_eq!(
        refused.unwrap_err().message,
        "Apply failed with 1 conflict: conflict with \"somebody\" using v1: .data.b"
    );
    assert_eq!(other.unwrap_err().causes.len(), 2);
}

#[test]
fn there_are_not_more_than_ten_updaters() {
    let mut live = config_map(json!({}));
    live["metadata"]["uid"] = "1".into();
    for at in 0..14 {
        let mut new = live.clone();
        new["data"][format!("k{at:02}")] = "1".into();
        let (manager, now) = (format!("m{at:02}"), format!("2026-01-01T00:00:{at:02}Z"));
        let write = Write {
            now: &now,
            ..config_maps(&manager)
        };
        if at == 0 {
            new["metadata"].as_object_mut().unwrap().remove("uid");
            write.created(&mut new);
            new = stored(new);
        } else {
            write.updated(&live, &mut new);
        }
        live = new;
    }

    let owners = owners(&live);

    assert_eq!(owners.len(), 10);
    assert_eq!(
        owners[0],
        r#"ancient-changes Update {"f:data":{".":{},"f:k00":{},"f:k01":{},"f:k02":{},"f:k03":{},"f:k04":{}}}"#
    );
    assert!(owners[9].starts_with("m13 "));
}

#[test]
fn a_door_owns_what_it_takes() {
    let filter = Filter::of(&resource::DEPLOYMENTS, true, "status");
    let mut live =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1}});
    deployments("one").created(&mut live);
    let live = stored(live);
    let mut new = live.clone();
    new["spec"]["replicas"] = 5.into();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    // Owners can't be set by way of a subresource.
    new["metadata"]["managedFields"] = json!([{}]);
    let write = Write {
        filter: &filter,
        subresource: "status",
        ..deployments("controller")
    };

    write.updated(&live, &mut new);

    assert_eq!(
        owners(&new),
        [
            r#"controller Update/status {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}"#,
            r#"one Update {"f:spec":{"f:replicas":{}}}"#
        ]
    );
}

#[test]
fn times_alone_are_no_change() {
    let mut first = config_map(json!({"a": "1"}));
    config_maps("one").created(&mut first);
    let old = stored(first);
    let mut same = old.clone();
    same["metadata"]["managedFields"][0]["time"] = LATER.into();
    let mut changed = same.clone();
    changed["data"]["a"] = "2".into();

    keep_times(&old, &mut same);
    keep_times(&old, &mut changed);

    assert_eq!(same, old);
    assert_eq!(changed["metadata"]["managedFields"][0]["time"], LATER);
}

#[test]
fn a_manager_is_named_by_the_first_word_of_its_user_agent() {
    assert_eq!(manager_of_user_agent("kubectl/v1.32.0 (linux/amd64)"), "kubectl");
    assert_eq!(manager_of_user_agent("plain"), "plain");
    assert_eq!(manager_of_user_agent(&"x".repeat(200)).len(), 128);
}

#[test]
fn replicas_are_owned_through_their_scale() {
    use crate::apply::scale::{ReplicasPaths, to_parent, to_scale};

    struct Paths;
    impl ReplicasPaths for Paths {
        fn path(&self, api_version: &str) -> Option<Vec<Element>> {
            (api_version == "apps/v1").then(|| vec![Element::field("spec"), Element::field("replicas")])
        }
    }
    let owned = |fields: Value| Owned {
        api_version: "apps/v1".to_owned(),
        set: fields::read(&fields).unwrap(),
        time: None,
    };
    let one = Manager::new("one", Operation::Apply, "apps/v1", "");
    let mut parent = Managed::default();
    parent.insert(
        one.clone(),
        owned(json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})),
    );
    let mut scale = to_scale(&parent, &Paths);
    let seen = scale.get(&one).cloned();
    scale.remove(&one);
    let scaler = Manager::new("scaler", Operation::Update, "autoscaling/v1", "scale");
    scale.insert(scaler.clone(), owned(json!({"f:spec": {"f:replicas": {}}})));

    let after = to_parent(&parent, scale, "apps/v1", &Paths);

    assert_eq!(seen.unwrap().api_version, "autoscaling/v1");
    assert_eq!(
        fields::to_json(&after.get(&one).unwrap().set),
        r#"{"f:spec":{"f:paused":{}}}"#
    );
    assert_eq!(
        fields::to_json(&after.get(&scaler).unwrap().set),
        r#"{"f:spec":{"f:replicas":{}}}"#
    );
}
