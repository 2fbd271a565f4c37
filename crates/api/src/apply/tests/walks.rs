//! Merging and comparing, rule by rule; expectations are upstream's for the same values.

use super::*;
use crate::apply::{
    compare::compare,
    fieldset::{fields_of, with_named_fields},
    merge::merge,
    remove::remove,
};

fn schema() -> structural::Schema {
    structural::Schema::compile(&json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"x-kubernetes-int-or-string": true}},
        "list": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key", "id"],
            "items": {"type": "object", "properties": {
                "key": {"type": "string"}, "id": {"type": "integer", "default": 7}, "value": {"type": "string"},
            }},
        },
        "atomic": {"type": "array", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}))
}

#[test]
fn a_set_takes_the_order_of_what_is_applied() {
    let schema = schema();
    for (live, config, merged) in [
        ("a b", "b a", "b a"),
        ("a b c", "", "a b c"),
        ("a b c", "d e f", "a b c d e f"),
        ("a b c", "c d e f", "a b c d e f"),
        ("a b c g f", "c d e f", "a b c g d e f"),
        ("c d e f", "a c e", "a c d e f"),
        ("a b c x y z", "d e f x y z", "a b c d e f x y z"),
        ("c a g f", "c f a g", "c f a g"),
        ("a b c d", "d e f a", "b c d e f a"),
        ("c d e f g h i j", "2 h 3 e 4 k l", "c d f g 2 h i j 3 e 4 k l"),
        ("a b b", "c", "a b b c"),
        ("a b b", "b", "a b"),
        ("a b c d e c", "1 b 2 e d", "a 1 b c 2 e c d"),
        ("a b c d e c", "1 b 2 c e d", "a 1 b 2 c e d"),
        ("a a b b", "b c d", "a a b c d"),
        ("c a g f c a", "c f a g", "c f a g"),
    ] {
        let object = |text: &str| json!({"set": text.split_whitespace().collect::<Vec<_>>()});

        let result = merge(Shape::of_schema(&schema), &object(live), &object(config)).unwrap();

        assert_eq!(result, object(merged), "{live} + {config}");
    }
}

#[test]
fn maps_and_keyed_lists_merge_and_wholes_are_replaced() {
    let schema = schema();
    let live = json!({
        "list": [{"key": "a", "id": 1, "value": "x"}, {"key": "b", "value": "y"}],
        "atomic": ["1", "2"], "whole": {"a": "1"}, "map": {"x": {"a": 1}}, "any": {"l": [1], "m": {"n": 1}},
    });
    let config = json!({
        "list": [{"key": "b", "id": 7, "value": "z"}, {"key": "c", "id": 1}],
        "atomic": ["3"], "whole": {"b": "2"}, "map": {"y": {"a": 2}}, "any": {"l": [2], "m": {"o": 1}},
    });

    let merged = merge(Shape::of_schema(&schema), &live, &config).unwrap();

    assert_eq!(
        merged,
        json!({
            "list": [{"key": "a", "id": 1, "value": "x"}, {"key": "b", "id": 7, "value": "z"}, {"key": "c", "id": 1}],
            "atomic": ["3"], "whole": {"b": "2"}, "map": {"x": {"a": 1}, "y": {"a": 2}},
            "any": {"l": [2], "m": {"n": 1, "o": 1}},
        })
    );
}

#[test]
fn a_configuration_speaks_of_its_leaves_and_elements() {
    let schema = schema();
    let config = json!({
        "set": ["a", 1], "list": [{"key": "a", "value": "x"}], "atomic": [], "whole": {"a": "1"},
        "map": {"x": {"a": 1}, "y": {}}, "any": {"l": [1], "m": {"n": null}},
    });

    let set = fields_of(Shape::of_schema(&schema), &config);

    assert_eq!(
        fields::to_json(&set),
        concat!(
            r#"{"f:any":{"f:l":{},"f:m":{".":{},"f:n":{}}},"f:atomic":{},"#,
            r#""f:list":{"k:{\"id\":7,\"key\":\"a\"}":{".":{},"f:key":{},"f:value":{}}},"#,
            r#""f:map":{"f:x":{".":{},"f:a":{}},"f:y":{}},"f:set":{"v:1":{},"v:\"a\"":{}},"f:whole":{}}"#
        )
    );
}

#[test]
fn a_comparison_tells_added_modified_and_removed() {
    let schema = schema();
    let compared = |old: Value, new: Value| {
        let found = compare(Shape::of_schema(&schema), &old, &new).unwrap();
        [found.removed, found.modified, found.added].map(|set| fields::to_json(&set))
    };

    assert_eq!(
        compared(
            json!({"set": ["a", "b"], "map": {"x": {"a": 1}, "y": {"a": 1}}, "atomic": ["1"]}),
            json!({"set": ["b", "c"], "map": {"x": {"a": 2}, "z": {"a": 1}}, "atomic": ["2"]}),
        ),
        [
            r#"{"f:map":{"f:y":{".":{},"f:a":{}}},"f:set":{"v:\"a\"":{}}}"#,
            r#"{"f:atomic":{},"f:map":{"f:x":{"f:a":{}}}}"#,
            r#"{"f:map":{"f:z":{".":{},"f:a":{}}},"f:set":{"v:\"c\"":{}}}"#,
        ]
    );
    assert_eq!(
        compared(json!({"any": {"x": {"a": 1}}}), json!({"any": {"x": 5}})),
        [r#"{"f:any":{"f:x":{"f:a":{}}}}"#, r#"{"f:any":{"f:x":{}}}"#, "{}"]
    );
    assert_eq!(
        compared(json!({"set": ["a", "a"]}), json!({"set": ["a", "a", "b", "b"]})),
        ["{}", "{}", r#"{"f:set":{"v:\"b\"":{}}}"#]
    );
    assert_eq!(
        compared(json!({"any": {"x": 1}}), json!({"any": {"x": 1.0}})),
        ["{}", "{}", "{}"]
    );
}

#[test]
fn removing_leaves_nothing_of_what_is_empty() {
    let schema = schema();
    let shape = Shape::of_schema(&schema);
    let object = json!({"set": ["a"], "list": [{"key": "a", "id": 1, "value": "x"}], "map": {"x": {"a": 1}}});
    let gone = fields::read(&json!({
        "f:set": {r#"v:"a""#: {}},
        "f:list": {r#"k:{"id":1,"key":"a"}"#: {"f:value": {}}},
        "f:map": {"f:x": {}},
    }))
    .unwrap();

    let left = remove(shape, &object, &gone);

    assert_eq!(left, json!({"set": null, "list": [{"key": "a", "id": 1}], "map": null}));
}

#[test]
fn fields_of_structures_are_named_on_the_way_and_keys_of_maps_are_not() {
    let schema = schema();
    let set = fields::read(&json!({"f:map": {"f:x": {"f:a": {}}}})).unwrap();

    let named = with_named_fields(&set, Some(Shape::of_schema(&schema)));

    assert_eq!(fields::to_json(&named), r#"{"f:map":{".":{},"f:x":{"f:a":{}}}}"#);
}

#[test]
fn built_in_lists_and_maps_are_of_the_kind_that_they_are_marked_as() {
    let of = |group: &str, kind: &str, object: Value| {
        let kind = schema::of_kind(group, "v1", kind).unwrap();
        fields::to_json(&fields_of(Shape::of_type(kind), &object))
    };

    assert_eq!(
        of(
            "",
            "Service",
            json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})
        ),
        r#"{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}},"f:selector":{}}}"#
    );
    assert_eq!(
        of(
            "",
            "PersistentVolume",
            json!({"spec": {"claimRef": {"name": "c"}, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}})
        ),
        r#"{"f:spec":{"f:accessModes":{},"f:capacity":{"f:storage":{}},"f:claimRef":{"f:name":{}}}}"#
    );
    assert_eq!(
        of(
            "apps",
            "ControllerRevision",
            json!({"data": {"a": {"b": 1}}, "revision": 1})
        ),
        r#"{"f:data":{},"f:revision":{}}"#
    );
    assert_eq!(
        of(
            "",
            "Pod",
            json!({"metadata": {"finalizers": ["a/b"], "ownerReferences": [{"uid": "1", "name": "x"}]}})
        ),
        concat!(
            r#"{"f:metadata":{"f:finalizers":{"v:\"a/b\"":{}},"#,
            r#""f:ownerReferences":{"k:{\"uid\":\"1\"}":{}}}}"#
        )
    );
}
