use serde_json::json;

use super::*;
use crate::{resource, table};

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "A tab.",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size", "maybe"],
                "properties": {
                    "size": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "maybe": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}},
                    "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "list": {"type": "array", "items": {"type": "integer", "maximum": 5}, "default": [1]},
                },
            },
        },
    })
}

fn info() -> ResourceInfo {
    let mut info = table::find("coordination.k8s.io", "v1", "leases").unwrap().clone();
    info.resource.group = "stable.example.com".into();
    info.resource.kind = "CronTab".into();
    info.resource.plural = "crontabs".into();
    info
}

fn with_custom(test: impl FnOnce(&[Custom])) {
    let (info, schema) = (info(), schema());
    test(&[Custom {
        info: &info,
        list_kind: "CronTabList",
        schema: &schema,
    }]);
}

#[test]
fn v2_has_upstreams_definitions_and_the_planes() {
    with_custom(|custom| {
        let base: Value = serde_json::from_slice(&v2_json(&[])).unwrap();
        let document: Value = serde_json::from_slice(&v2_json(custom)).unwrap();

        let definitions = document["definitions"].as_object().unwrap();
        assert_eq!(definitions.len(), base["definitions"].as_object().unwrap().len() + 2);
        assert_eq!(
            document["paths"].as_object().unwrap().len(),
            base["paths"].as_object().unwrap().len() + 3
        );
        let own = &definitions["com.example.stable.v1.CronTab"];
        assert_eq!(own["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
        let spec = &own["properties"]["spec"];
        assert_eq!(spec["required"], json!(["size"]));
        assert_eq!(spec["properties"]["size"], json!({"x-kubernetes-int-or-string": true}));
        assert_eq!(spec["properties"]["maybe"], json!({}));
        assert_eq!(
            spec["properties"]["open"],
            json!({"x-kubernetes-preserve-unknown-fields": true})
        );
        let patch = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "CronTab");
    });
}

#[test]
fn v3_has_a_document_a_group_version() {
    with_custom(|custom| {
        let served = Served::BUILT_IN;
        let index = v3_index(&served, custom, "/planes/x");

        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/planes/x/openapi/v3/apis/apps/v1?hash="), "{url}");
        let own = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap();
        let document = v3_document(&served, custom, "apis/stable.example.com/v1").unwrap();
        assert!(own.ends_with(&hash(&document)));
        let document: Value = serde_json::from_slice(&document).unwrap();
        let schemas = &document["components"]["schemas"];
        assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
        assert_eq!(
            schemas["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]["maybe"]["nullable"],
            true
        );
        assert!(v3_document(&served, custom, "apis/none/v1").is_none());
        let apps: Value = serde_json::from_slice(&v3_document(&served, &[], "apis/apps/v1").unwrap()).unwrap();
        assert!(apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    });
}

#[test]
fn a_group_that_is_not_served_is_not_described() {
    let served = Served {
        group: &|group| group != "apps",
        custom: &[],
    };

    assert!(v3_index(&served, &[], "")["paths"].get("apis/apps/v1").is_none());
    assert!(v3_document(&served, &[], "apis/apps/v1").is_none());
    assert!(v3_document(&served, &[], "api/v1").is_some());
}

/// Reads a message's fields, to check what was written.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => varint(&mut bytes).to_string().into_bytes(),
            1 => {
                let (value, rest) = bytes.split_at(8);
                bytes = rest;
                value.to_vec()
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                value.to_vec()
            }
            other => panic!("an unknown wire type: {other}"),
        };
        found.push((tag >> 3, value));
    }
    found
}

fn field(bytes: &[u8], number: u64) -> Vec<u8> {
    let found = fields(bytes).into_iter().find(|(field, _)| *field == number);
    found.unwrap_or_else(|| panic!("no field {number}")).1
}

/// The value of an entry of a map.
fn entry(bytes: &[u8], number: u64, name: &str) -> Vec<u8> {
    let found = fields(bytes)
        .into_iter()
        .filter(|(field, _)| *field == number)
        .find(|(_, entry)| field(entry, 1) == name.as_bytes());
    field(&found.unwrap_or_else(|| panic!("no entry {name}")).1, 2)
}

#[test]
fn the_protobuf_form_says_what_the_json_form_says() {
    with_custom(|custom| {
        let bytes = v2_protobuf(custom);

        assert_eq!(field(&bytes, 1), b"2.0");
        let parts = fields(&bytes);
        let definitions: Vec<&Vec<u8>> = parts
            .iter()
            .filter(|(field, _)| *field == 9)
            .map(|(_, value)| value)
            .collect();
        assert_eq!(definitions.len(), 2, "upstream's and the plane's, which readers merge");
        let json: Value = serde_json::from_slice(&v2_json(&[])).unwrap();
        assert_eq!(
            fields(definitions[0]).len(),
            json["definitions"].as_object().unwrap().len()
        );

        let pod_spec = entry(definitions[0], 1, "io.k8s.api.core.v1.PodSpec");
        let containers = entry(&field(&pod_spec, 25), 1, "containers");
        let items = field(&field(&containers, 23), 1);
        assert_eq!(field(&items, 1), b"#/definitions/io.k8s.api.core.v1.Container");
        assert_eq!(field(&field(&containers, 22), 1), b"array");
        let key = entry(&containers, 31, "x-kubernetes-patch-merge-key");
        assert_eq!(field(&key, 2), b"\"name\"\n");

        let own = entry(definitions[1], 1, "com.example.stable.v1.CronTab");
        let list = entry(&field(&entry(&field(&own, 25), 1, "spec"), 25), 1, "list");
        assert_eq!(field(&field(&field(&list, 23), 1), 7), 5.0f64.to_le_bytes());
        assert_eq!(field(&field(&list, 5), 2), b"[1]\n");

        let paths: Vec<&Vec<u8>> = parts
            .iter()
            .filter(|(field, _)| *field == 8)
            .map(|(_, value)| value)
            .collect();
        let pod = entry(paths[0], 2, "/api/v1/namespaces/{namespace}/pods/{name}");
        let patch = field(&pod, 8);
        assert_eq!(field(&patch, 5), b"patchCoreV1NamespacedPod");
        let dry_run = fields(&patch)
            .into_iter()
            .filter(|(number, _)| *number == 8)
            .filter_map(|(_, item)| fields(&item).into_iter().find(|(number, _)| *number == 1))
            .map(|(_, parameter)| field(&field(&parameter, 2), 3))
            .find(|query| field(query, 4) == b"dryRun")
            .unwrap();
        assert_eq!(field(&dry_run, 6), b"string");
    });
}

#[test]
fn a_resource_of_our_own_is_described_too() {
    let definition = table::virtual_cluster_definition();
    let version = &definition["spec"]["versions"][0];
    let mut info = info();
    info.resource = resource::VIRTUAL_CLUSTERS;
    let custom = [Custom {
        info: &info,
        list_kind: "VirtualClusterList",
        schema: &version["schema"]["openAPIV3Schema"],
    }];

    let document: Value = serde_json::from_slice(&v2_json(&custom)).unwrap();

    assert!(document["definitions"]["io.mangrove.tenancy.v1alpha1.VirtualCluster"]["properties"]["spec"].is_object());
}
