//! What a configuration no longer says goes, if nobody else wants it; versions and schemas that change.

use super::*;

fn cron_tabs() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "list": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "value": {"type": "string"},
                }},
            },
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "struct": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
    }})
}

fn atomic_struct() -> Value {
    let mut schema = cron_tabs();
    schema["properties"]["spec"]["properties"]["struct"]["x-kubernetes-map-type"] = "atomic".into();
    schema
}

static RESOURCE: Resource = Resource::built_in("s.io", "v1", "crontabs", "CronTab", crate::resource::Scope::Namespaced);

fn cron_tab(spec: Value) -> Value {
    json!({"apiVersion": "s.io/v1", "kind": "CronTab", "metadata": {"name": "c"}, "spec": spec})
}

/// Applies one configuration after another, each by its manager, and shows what there is.
fn applied(versions: &Defined, configs: &[(&str, Value)]) -> Value {
    let mut live: Option<Value> = None;
    for (manager, spec) in configs {
        let config = cron_tab(spec.clone());
        let write = write(versions, &Filter::All, &RESOURCE, manager);
        live = Some(stored(write.applied(live.as_ref(), &config, Force::Yes).unwrap()));
    }
    live.unwrap()
}

#[test]
fn what_is_no_longer_applied_goes() {
    let versions = Defined::of([("s.io/v1", cron_tabs())]);
    let object = applied(
        &versions,
        &[
            (
                "one",
                json!({"list": [{"name": "a", "value": "1"}, {"name": "b"}], "set": ["x", "y"], "plain": ["p"],
                    "struct": {"a": "1", "b": "1"}, "open": {"k": {"l": 1}, "m": [1]}}),
            ),
            (
                "one",
                json!({"list": [{"name": "a"}], "set": ["y"], "struct": {"b": "1"}, "open": {"k": {}}}),
            ),
        ],
    );

    assert_eq!(
        object["spec"],
        // As upstream has it: what was emptied says null until it is read as an object of its kind.
        json!({"list": [{"name": "a"}], "set": ["y"], "struct": {"b": "1"}, "open": {"k": null}})
    );
    assert_eq!(
        owners(&object),
        [concat!(
            r#"one Apply {"f:spec":{"f:list":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}},"#,
            r#""f:open":{"f:k":{}},"f:set":{"v:\"y\"":{}},"f:struct":{"f:b":{}}}}"#
        )]
    );
}

#[test]
fn what_others_apply_stays() {
    let versions = Defined::of([("s.io/v1", cron_tabs())]);
    let object = applied(
        &versions,
        &[
            (
                "one",
                json!({"list": [{"name": "a", "value": "1"}, {"name": "b"}], "set": ["x", "y"]}),
            ),
            (
                "two",
                json!({"list": [{"name": "a"}, {"name": "c"}], "set": ["y", "z"]}),
            ),
            ("one", json!({"struct": {"a": "1"}})),
        ],
    );

    assert_eq!(
        object["spec"],
        json!({"list": [{"name": "a"}, {"name": "c"}], "set": ["y", "z"], "struct": {"a": "1"}})
    );
}

#[test]
fn what_an_updater_put_into_a_structure_stays() {
    let versions = Defined::of([("s.io/v1", cron_tabs())]);
    let live = applied(
        &versions,
        &[("one", json!({"list": [{"name": "a"}], "struct": {"a": "1"}}))],
    );
    let mut touched = live.clone();
    touched["spec"]["list"][0]["value"] = "2".into();
    touched["spec"]["struct"]["b"] = "2".into();
    write(&versions, &Filter::All, &RESOURCE, "two").updated(&live, &mut touched);

    let write = write(&versions, &Filter::All, &RESOURCE, "one");
    let object = write.applied(Some(&touched), &cron_tab(json!({"set": ["x"]})), Force::No);

    // A structure stays while somebody owns a field of it; an element stays with those who own itself.
    let object = object.unwrap();
    assert_eq!(object["spec"]["struct"], json!({"b": "2"}));
    assert_eq!(object["spec"]["set"], json!(["x"]));
    assert_eq!(object["spec"]["list"], Value::Null);
}

#[test]
fn owners_of_other_versions_are_asked_in_theirs() {
    let versions = Defined::of([("s.io/v1", cron_tabs()), ("s.io/v1beta1", cron_tabs())]);
    let mut live = cron_tab(json!({"struct": {"a": "1"}}));
    live["apiVersion"] = "s.io/v1beta1".into();
    let beta = Resource {
        version: "v1beta1".into(),
        ..RESOURCE.clone()
    };
    write(&versions, &Filter::All, &beta, "old").created(&mut live);
    let live = versions.convert(&stored(live), "s.io/v1").unwrap();
    let config = cron_tab(json!({"struct": {"a": "2"}}));
    let current = write(&versions, &Filter::All, &RESOURCE, "new");

    let refused = current.applied(Some(&live), &config, Force::No).unwrap_err();
    let only = Defined::of([("s.io/v1", cron_tabs())]);
    let gone = write(&only, &Filter::All, &RESOURCE, "new")
        .applied(Some(&live), &config, Force::No)
        .unwrap();

    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"old\" using s.io/v1beta1: .spec.struct.a"
    );
    assert_eq!(owners(&gone), [r#"new Apply {"f:spec":{"f:struct":{"f:a":{}}}}"#]);
}

#[test]
fn a_structure_that_became_a_whole_is_owned_as_one() {
    let before = Defined::of([("s.io/v1", cron_tabs())]);
    let after = Defined::of([("s.io/v1", atomic_struct())]);
    let live = applied(&before, &[("one", json!({"struct": {"a": "1"}}))]);
    let config = cron_tab(json!({"struct": {"a": "1", "b": "2"}}));

    let refused = write(&after, &Filter::All, &RESOURCE, "two")
        .applied(Some(&live), &config, Force::No)
        .unwrap_err();
    let own = write(&after, &Filter::All, &RESOURCE, "one")
        .applied(Some(&live), &config, Force::No)
        .unwrap();

    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"one\": .spec.struct"
    );
    assert_eq!(owners(&own), [r#"one Apply {"f:spec":{"f:struct":{}}}"#]);
}

#[test]
fn a_created_custom_object_owns_its_containers() {
    let versions = Defined::of([("s.io/v1", cron_tabs())]);
    let mut object = cron_tab(json!({"set": ["x"], "struct": {"a": "1"}, "plain": ["p", "q"]}));

    write(&versions, &Filter::All, &RESOURCE, "kubectl-create").created(&mut object);

    assert_eq!(
        owners(&object),
        [concat!(
            r#"kubectl-create Update {"f:spec":{".":{},"f:plain":{},"f:set":{".":{},"v:\"x\"":{}},"#,
            r#""f:struct":{".":{},"f:a":{}}}}"#
        )]
    );
}
