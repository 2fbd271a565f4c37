use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::resource::{DEPLOYMENTS, PODS, SERVICES};

fn check(name: &str, resource: &Resource, original: Value, patch: Value, expected: Value) {
    let patched = strategic(resource, &original, &patch).unwrap_or_else(|status| panic!("{name}: {status}"));
    assert_eq!(patched, expected, "{name}");
}

#[test]
fn lists_of_objects_merge_by_key() {
    check(
        "a container is changed and one is added at the front, as the patch has it",
        &PODS,
        json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}]}}),
        json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "3"}]}}),
        json!({"spec": {"containers": [
            {"name": "b", "image": "2"},
            {"name": "a", "image": "3", "env": [{"name": "X", "value": "1"}]},
        ]}}),
    );
    check(
        "an element is deleted",
        &PODS,
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
        json!({"spec": {"containers": [{"name": "b"}]}}),
    );
    check(
        "a list is replaced",
        &PODS,
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}}),
        json!({"spec": {"containers": [{"name": "c"}]}}),
    );
    check(
        "ports merge by number",
        &SERVICES,
        json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}),
        json!({"spec": {"ports": [{"port": 443, "name": "https"}, {"port": 80, "targetPort": 8080}]}}),
        json!({"spec": {"ports": [
            {"port": 443, "name": "https"},
            {"port": 80, "name": "http", "targetPort": 8080},
        ]}}),
    );
}

#[test]
fn maps_merge_and_are_replaced_or_emptied_on_demand() {
    check(
        "labels",
        &PODS,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
    );
    check(
        "$patch: replace",
        &PODS,
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
        json!({"metadata": {"labels": {"c": "3"}}}),
    );
    check(
        "$patch: delete",
        &PODS,
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
        json!({"metadata": {"labels": {}}}),
    );
    check(
        "nulls of a new map are dropped",
        &PODS,
        json!({"metadata": {}}),
        json!({"metadata": {"labels": {"a": null, "b": "1"}}}),
        json!({"metadata": {"labels": {"b": "1"}}}),
    );
}

#[test]
fn retained_keys_clear_the_others() {
    check(
        "a strategy of another type",
        &DEPLOYMENTS,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        "a volume of another source",
        &PODS,
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
    );
    let refused = strategic(
        &DEPLOYMENTS,
        &json!({"spec": {"strategy": {"type": "RollingUpdate"}}}),
        &json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
    );
    assert_eq!(refused.unwrap_err().code(), 400);
}

#[test]
fn what_was_absent_is_taken_without_directives() {
    check(
        "directives are not data",
        &PODS,
        json!({"spec": {}}),
        json!({"spec": {
            "volumes": [{"name": "v", "emptyDir": {"medium": null}, "$retainKeys": ["name", "emptyDir"]}, {"$patch": "replace"}],
            "nodeSelector": {"$patch": "delete"},
        }}),
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
    );
}

#[test]
fn lists_of_scalars_merge_and_lose_elements() {
    check(
        "added",
        &PODS,
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["c", "a"]}}),
        json!({"metadata": {"finalizers": ["c", "a", "b"]}}),
    );
    check(
        "$deleteFromPrimitiveList",
        &PODS,
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}}),
        json!({"metadata": {"finalizers": ["c", "a"]}}),
    );
    check(
        "a list without a merge strategy is replaced",
        &PODS,
        json!({"spec": {"containers": [{"name": "a", "args": ["x"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["y"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["y"]}]}}),
    );
}

#[test]
fn an_order_is_kept_with_the_servers_own_elements_between() {
    check(
        "reordered, one added, one only the server has",
        &PODS,
        json!({"spec": {"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]}}),
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}, {"name": "b"}],
            "containers": [{"name": "c", "image": "1"}],
        }}),
        json!({"spec": {"containers": [
            {"name": "a"}, {"name": "c", "image": "1"}, {"name": "sidecar"}, {"name": "b"},
        ]}}),
    );
    check(
        "order alone",
        &PODS,
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
    );
    let refused = strategic(
        &PODS,
        &json!({"spec": {"containers": []}}),
        &json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
    );
    assert_eq!(refused.unwrap_err().code(), 422);
}

#[test]
fn what_is_wrong_is_named() {
    let pod = json!({"spec": {"containers": [{"name": "a"}]}});
    for (patch, words) in [
        (
            json!({"spec": {"containers": [{"image": "a"}]}}),
            "does not contain declared merge key: name",
        ),
        (json!({"spec": {"$patch": "explode"}}), "unknown patch type: explode"),
        (
            json!({"spec": {"containers": [[1]]}}),
            "lists of lists are not supported",
        ),
        (json!([]), "invalid JSON document"),
    ] {
        let status = strategic(&PODS, &pod, &patch).unwrap_err();
        assert!(status.message.contains(words), "{}", status.message);
    }
}

#[test]
fn a_custom_resource_has_no_strategic_patch() {
    let status = strategic(&crate::resource::VIRTUAL_CLUSTERS, &json!({}), &json!({})).unwrap_err();

    assert_eq!(status.code(), 415);
}

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing(names in proptest::collection::btree_set("[a-z]{1,3}", 0..5)) {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let pod = json!({"spec": {"containers": containers}});

        prop_assert_eq!(strategic(&PODS, &pod, &json!({})).unwrap(), pod);
    }

    #[test]
    fn an_order_of_all_elements_is_the_order(names in proptest::collection::vec("[a-z]{1,2}", 1..6), swap in 0usize..6) {
        let mut names = names;
        names.sort();
        names.dedup();
        let old: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "x"})).collect();
        let rotated = swap % names.len();
        names.rotate_left(rotated);
        let order: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();

        let patch = json!({"spec": {"$setElementOrder/containers": order}});
        let patched = strategic(&PODS, &json!({"spec": {"containers": old}}), &patch).unwrap();

        let found: Vec<&str> = patched["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        prop_assert_eq!(found, names);
    }

    #[test]
    fn any_patch_is_answered(key in "\\$patch|\\$retainKeys|\\$setElementOrder/containers|\\$deleteFromPrimitiveList/containers|containers|volumes", value in prop_oneof![
        Just(json!(null)), Just(json!("delete")), Just(json!([])), Just(json!([1])), Just(json!([{"name": "a"}])), Just(json!([{"$patch": "replace"}])), Just(json!({"a": 1})),
    ]) {
        let pod = json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}});
        let mut spec = serde_json::Map::new();
        spec.insert(key, value);
        let _ = strategic(&PODS, &pod, &json!({"spec": spec}));
    }
}
