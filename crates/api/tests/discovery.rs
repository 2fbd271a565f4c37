//! Our discovery documents are those that upstream's API server publishes.

use std::{collections::BTreeMap, io::Read};

use api::discovery::{self, Aggregated, Served};
use serde_json::{Value, json};

fn upstream() -> BTreeMap<String, Value> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("data/discovery.json.gz")[..])
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn legacy_documents_are_upstreams() {
    for (path, expected) in upstream() {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let served = Served::BUILT_IN;
        let ours = match parts.as_slice() {
            ["aggregated_v2"] => continue,
            ["api"] => Some(discovery::legacy_api("10.10.10.10:8050")),
            ["api", version] => discovery::group_version(&served, "", version),
            ["apis"] => {
                let mut document = discovery::legacy_apis(&served);
                // The published document omits what the served one has.
                if expected.get("kind").is_none() {
                    document.as_object_mut().unwrap().remove("kind");
                }
                Some(document)
            }
            ["apis", group] => discovery::group(&served, group),
            ["apis", group, version] => discovery::group_version(&served, group, version),
            _ => panic!("an unknown path: {path}"),
        };
        assert_eq!(ours, Some(expected), "{path}");
    }
}

#[test]
fn the_aggregated_document_is_upstreams() {
    let expected = &upstream()["aggregated_v2"];

    let mut ours = discovery::aggregated_apis(&Served::BUILT_IN, Aggregated::V2);

    for group in ours["items"].as_array_mut().unwrap() {
        group["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
        let group_name = group["metadata"]["name"].clone();
        for version in group["versions"].as_array_mut().unwrap() {
            let version_name = version["version"].clone();
            for resource in version["resources"].as_array_mut().unwrap() {
                blank_own(&mut resource["responseKind"], &group_name, &version_name);
                for sub in resource
                    .get_mut("subresources")
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    blank_own(&mut sub["responseKind"], &group_name, &version_name);
                }
            }
        }
    }
    assert_eq!(ours["items"], expected["items"]);
}

/// The published document leaves the group and version out where they are the enclosing ones.
fn blank_own(kind: &mut Value, group: &Value, version: &Value) {
    if kind["group"] == *group && kind["version"] == *version {
        kind["group"] = json!("");
        kind["version"] = json!("");
    }
}
