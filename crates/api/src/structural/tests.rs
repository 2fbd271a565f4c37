use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn lines(causes: Vec<Cause>) -> Vec<String> {
    causes
        .into_iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn cron_tab() -> Value {
    json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["cronSpec"],
                "properties": {
                    "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
                    "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
                    "mode": {"type": "string", "enum": ["a", "b"]},
                    "note": {"type": "string", "maxLength": 3, "nullable": true},
                    "port": {"x-kubernetes-int-or-string": true},
                    "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "map": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer", "default": 5}}},
                    },
                    "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
                    "choice": {
                        "type": "object",
                        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                        "oneOf": [{"required": ["x"]}, {"required": ["y"]}],
                    },
                },
            },
        },
    })
}

fn checked(spec: Value) -> Vec<String> {
    let schema = Schema::compile(&cron_tab());
    let mut object = json!({"apiVersion": "v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": spec});
    schema.normalize(&mut object);
    lines(schema.validate(&object))
}

#[test]
fn what_is_not_described_is_pruned() {
    let schema = Schema::compile(&cron_tab());
    let mut object = json!({
        "apiVersion": "v1", "kind": "CronTab", "metadata": {"name": "a", "anything": 1},
        "spec": {
            "cronSpec": "x", "foo": 1,
            "labels": {"a": "b"},
            "open": {"x": {"y": 1}, "known": {"a": 1, "b": 2}},
            "map": [{"name": "n", "extra": 1}],
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {}},
        },
        "status": {},
    });

    let dropped = schema.normalize(&mut object);

    assert_eq!(
        dropped,
        [
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.map[0].extra""#,
            r#"unknown field "spec.open.known.b""#,
            r#"unknown field "status""#,
        ]
    );
    assert_eq!(object["spec"]["open"], json!({"x": {"y": 1}, "known": {"a": 1}}));
    assert_eq!(object["metadata"]["anything"], 1);
    assert_eq!(object["spec"]["template"]["spec"], json!({}));
    assert_eq!(object["spec"]["replicas"], 1);
    assert_eq!(object["spec"]["map"][0]["size"], 5);
}

#[test]
fn nulls_are_kept_where_they_may_be() {
    let schema = Schema::compile(&cron_tab());
    let mut object = json!({"spec": {"cronSpec": null, "note": null, "replicas": null}});

    schema.normalize(&mut object);

    assert_eq!(object["spec"], json!({"note": null, "replicas": 1}));
}

#[test]
fn values_are_refused_in_upstreams_words() {
    for (change, expected) in [
        (json!({}), vec![]),
        (
            json!({"cronSpec": "x"}),
            vec![
                r#"spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
            ],
        ),
        (
            json!({"replicas": 11}),
            vec!["spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"],
        ),
        (
            json!({"replicas": 0}),
            vec!["spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"],
        ),
        (
            json!({"replicas": "1"}),
            vec![r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#],
        ),
        (
            json!({"replicas": 1.5}),
            vec![r#"spec.replicas: Invalid value: "number": spec.replicas in body must be of type integer: "number""#],
        ),
        (
            json!({"mode": "c"}),
            vec![r#"spec.mode: Unsupported value: "c": supported values: "a", "b""#],
        ),
        (
            json!({"note": "long"}),
            vec!["spec.note: Too long: may not be more than 3 bytes"],
        ),
        (json!({"port": 80}), vec![]),
        (json!({"port": "http"}), vec![]),
        (
            json!({"port": true}),
            vec![r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#],
        ),
        (
            json!({"labels": {"a": 1}}),
            vec![r#"spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer""#],
        ),
        (
            json!({"set": ["a", "b", "a", "a"]}),
            vec![r#"spec.set[2]: Duplicate value: "a""#],
        ),
        (
            json!({"map": [{"name": "a"}, {"name": "a"}]}),
            vec![r#"spec.map[1]: Duplicate value: {"name":"a"}"#],
        ),
        (json!({"map": [{}]}), vec!["spec.map[0].name: Required value"]),
        (
            json!({"template": {"kind": "Pod"}}),
            vec!["spec.template.apiVersion: Required value: must not be empty"],
        ),
        (json!({"choice": {"x": 1}}), vec![]),
        (
            json!({"choice": {"x": 1, "y": 1}}),
            vec![
                r#"<nil>: Invalid value: "": "spec.choice" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
    ] {
        let mut spec = json!({"cronSpec": "* * * * *"});
        for (name, value) in change.as_object().unwrap() {
            spec[name] = value.clone();
        }
        assert_eq!(checked(spec), expected, "{change}");
    }
    assert_eq!(checked(json!({})), ["spec.cronSpec: Required value"]);
}

fn definition(schema: Value) -> Value {
    let mut definition = json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    crate::default::apply(&crate::resource::CUSTOM_RESOURCE_DEFINITIONS, &mut definition);
    definition
}

fn refused(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut definition = definition(cron_tab());
    change(&mut definition);
    lines(check_definition(&definition, None))
}

#[test]
fn a_definition_is_accepted() {
    assert_eq!(refused(|_| {}), Vec::<String>::new());
    let mut own = crate::table::virtual_cluster_definition();
    crate::default::apply(&crate::resource::CUSTOM_RESOURCE_DEFINITIONS, &mut own);
    assert_eq!(lines(check_definition(&own, None)), Vec::<String>::new());
}

#[test]
fn a_definition_is_refused_in_upstreams_words() {
    assert_eq!(
        refused(|d| d["metadata"]["name"] = json!("x")),
        [r#"metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group"#]
    );
    assert_eq!(
        refused(|d| {
            d["spec"]["versions"][0]["storage"] = json!(false);
        })[0],
        format!(
            "spec.versions: Invalid value: {}: must have exactly one version marked as storage version",
            {
                let mut d = definition(cron_tab());
                d["spec"]["versions"][0]["storage"] = json!(false);
                d["spec"]["versions"].clone()
            }
        )
    );
    assert_eq!(
        refused(|d| d["spec"]["scope"] = json!("World")),
        [r#"spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced""#]
    );
    assert_eq!(
        refused(|d| d["spec"]["versions"][0]["schema"] = Value::Null),
        ["spec.versions[0].schema.openAPIV3Schema: Required value"]
    );
    assert_eq!(
        refused(|d| d["status"]["storedVersions"] = json!(["v1", "v0"]))[0]
            .split(';')
            .next()
            .unwrap(),
        r#"status.storedVersions[1]: Invalid value: "v0": missing from spec.versions"#
    );
    assert!(
        refused(|d| {
            d["spec"]["group"] = json!("x.k8s.io");
            d["metadata"]["name"] = json!("crontabs.x.k8s.io");
        })[0]
            .starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups")
    );
}

#[test]
fn a_schema_must_be_structural() {
    const ROOT: &str = "spec.versions[0].schema.openAPIV3Schema";
    for (schema, expected) in [
        (json!({}), "type: Required value: must not be empty at the root"),
        (
            json!({"type": "string"}),
            "type: Invalid value: \"string\": must be object at the root",
        ),
        (
            json!({"type": "object", "properties": {"spec": {}}}),
            "properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            "properties[a].items: Required value: must be specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "anyOf": [{"type": "string"}]}}}),
            "properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
            "properties[b]: Required value: because it is defined in spec.versions[0].schema.openAPIV3Schema.anyOf[0].properties[b]",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            "properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}),
            "properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "#/x", "type": "object"}}}),
            "properties[a].$ref: Forbidden: $ref is not supported",
        ),
    ] {
        let found = lines(check_definition(&definition(schema.clone()), None));
        assert_eq!(found, [format!("{ROOT}.{expected}")], "{schema}");
    }
    let with_rules = json!({"type": "object", "properties": {"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 1"}]}}});
    assert_eq!(
        lines(check_definition(&definition(with_rules), None)),
        Vec::<String>::new()
    );
}

#[test]
fn an_established_definition_keeps_its_kind_and_scope() {
    let mut old = definition(cron_tab());
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");

    assert_eq!(
        lines(check_definition(&new, Some(&old))),
        [r#"spec.scope: Invalid value: "Cluster": field is immutable"#]
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("spec|cronSpec|open|known|map|name|set|choice|x|foo", inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn normalizing_twice_changes_nothing(spec in any_json()) {
        let schema = Schema::compile(&cron_tab());
        let mut once = json!({"spec": spec});
        schema.normalize(&mut once);
        schema.validate(&once);
        let mut twice = once.clone();
        let dropped = schema.normalize(&mut twice);

        prop_assert_eq!(once, twice);
        prop_assert!(dropped.is_empty());
    }

    #[test]
    fn any_schema_is_answered(schema in any_json()) {
        check_definition(&definition(json!({"type": "object", "properties": schema})), None);
        Schema::compile(&schema);
    }
}
