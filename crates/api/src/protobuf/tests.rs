use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::*;

/// A field of bytes.
fn bytes(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number << 3 | 2));
    out.extend(varint(content.len() as u64));
    out.extend_from_slice(content);
    out
}

fn number(number: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(number << 3)), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn object(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
}

#[test]
fn a_role_comes_out_as_its_json() {
    let rule = [bytes(1, b"get"), bytes(1, b"list"), bytes(2, b""), bytes(3, b"pods")].concat();
    // As Go writes metadata: empty strings, and an empty creation time.
    let metadata = [
        bytes(1, b"reader"),
        bytes(2, b""),
        bytes(3, b"web"),
        number(7, 0),
        bytes(8, b""),
    ]
    .concat();
    let role = [bytes(1, &metadata), bytes(2, &rule)].concat();

    let tree = decode(&object("rbac.authorization.k8s.io/v1", "Role", &role)).unwrap();

    assert_eq!(
        tree,
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "reader", "namespace": "web"},
            "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}],
        })
    );
}

#[test]
fn a_zero_is_kept_where_it_differs_from_nothing() {
    let spec = |replicas: u64| bytes(2, &[number(1, replicas), number(5, 0)].concat());

    let tree = decode(&object("apps/v1", "Deployment", &spec(0))).unwrap();

    // `replicas` is a pointer in Go, `minReadySeconds` is not.
    assert_eq!(tree["spec"], json!({"replicas": 0}));
}

#[test]
fn inlined_messages_amounts_ports_and_times_take_their_json_form() {
    let empty_dir = bytes(2, &bytes(2, b""));
    let volume = [bytes(1, b"data"), empty_dir].concat();
    let limits = bytes(1, &[bytes(1, b"cpu"), bytes(2, &bytes(1, b"250m"))].concat());
    let probe_port = [number(1, 1), bytes(3, b"http")].concat();
    let handler = bytes(1, &bytes(2, &bytes(2, &probe_port)));
    let container = [bytes(1, b"one"), bytes(8, &limits), bytes(10, &handler)].concat();
    let spec = bytes(2, &[bytes(1, &volume), bytes(2, &container)].concat());
    let metadata = bytes(1, &bytes(9, &number(1, 1_800_000_000)));

    let tree = decode(&object("v1", "Pod", &[metadata, spec].concat())).unwrap();

    assert_eq!(tree["metadata"]["deletionTimestamp"], "2027-01-15T08:00:00Z");
    assert_eq!(tree["spec"]["volumes"], json!([{"name": "data", "emptyDir": {}}]));
    let container = &tree["spec"]["containers"][0];
    assert_eq!(container["resources"], json!({"limits": {"cpu": "250m"}}));
    assert_eq!(container["livenessProbe"], json!({"httpGet": {"port": "http"}}));
}

#[test]
fn secrets_are_base64_and_delete_options_belong_to_every_group() {
    let entry = [bytes(1, b"key"), bytes(2, b"\x00\xff")].concat();
    let secret = decode(&object("v1", "Secret", &bytes(2, &entry))).unwrap();
    let options = decode(&object("apps/v1", "DeleteOptions", &number(1, 0))).unwrap();

    assert_eq!(secret["data"], json!({"key": "AP8="}));
    assert_eq!(options["gracePeriodSeconds"], 0);
}

#[test]
fn rubbish_is_refused_and_nothing_overflows() {
    assert_eq!(decode(b"{}"), Err(Error::NoMagic));
    assert_eq!(decode(b"k8s\0\x0a\xff"), Err(Error::Broken));
    assert!(matches!(
        decode(&object("v1", "Nothing", b"")),
        Err(Error::UnknownKind { .. })
    ));
    assert_eq!(
        decode(&object("v1", "Pod", &bytes(1, &bytes(1, b"\xff")))),
        Err(Error::Broken)
    );
    // `not` of `not` of ...: JSONSchemaProps, field 28.
    let mut schema = Vec::new();
    for _ in 0..1_000 {
        schema = bytes(28, &schema);
    }
    let version = bytes(4, &bytes(1, &schema));
    let spec = bytes(2, &bytes(7, &version));
    let definition = object("apiextensions.k8s.io/v1", "CustomResourceDefinition", &spec);
    assert_eq!(decode(&definition), Err(Error::TooDeep));
}

/// Upstream's one object of every kind, filled to the last field (`staging/src/k8s.io/api/testdata`), packed by
/// `data/golden.py`.
fn golden() -> Map<String, Value> {
    let packed: &[u8] = include_bytes!("../../data/golden.json.gz");
    let pack = serde_json::from_reader(flate2::read::GzDecoder::new(packed)).unwrap();
    match pack {
        Value::Object(pack) => pack,
        _ => unreachable!("the pack is an object"),
    }
}

/// Kinds that nobody sends to a plane: answers of webhooks, frames of a watch, a group that is long gone.
fn is_never_sent(name: &str) -> bool {
    [
        "admission.k8s.io.",
        "imagepolicy.k8s.io.",
        "extensions.v1beta1.",
        "core.v1.WatchEvent",
    ]
    .into_iter()
    .any(|start| name.starts_with(start))
}

/// Alpha kinds whose Go types were not at hand: that an empty message was a pointer can't be known.
const ALPHA: [&str; 3] = ["StorageVersion", "PodGroup", "Workload"];

#[test]
fn every_golden_object_decodes_to_its_json() {
    let (mut compared, mut wrong) = (0, Vec::new());
    for (name, golden) in golden() {
        let expected = &golden["json"];
        if ALPHA.contains(&expected["kind"].as_str().unwrap_or_default()) || is_never_sent(&name) {
            continue;
        }
        let encoded = STANDARD.decode(golden["pb"].as_str().unwrap()).unwrap();
        match decode(&encoded) {
            Ok(decoded) => differences(&name, &decoded, expected, &mut wrong),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
        compared += 1;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(compared, 171);
}

#[test]
fn every_golden_object_encodes_to_its_bytes() {
    let (mut compared, mut wrong) = (0, Vec::new());
    for (name, golden) in golden() {
        let tree = &golden["json"];
        if is_never_sent(&name) {
            continue;
        }
        let expected = STANDARD.decode(golden["pb"].as_str().unwrap()).unwrap();
        match encode(tree) {
            Ok(encoded) if encoded == expected => {}
            Ok(encoded) => {
                let at = encoded.iter().zip(&expected).position(|(one, other)| one != other);
                wrong.push(format!(
                    "{name}: {} bytes instead of {}, from {at:?} on",
                    encoded.len(),
                    expected.len()
                ));
            }
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
        compared += 1;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(compared, 174);
}

/// What is sent to a plane is of a kind that it serves, so each of those has a message.
#[test]
fn every_kind_that_is_served_has_a_golden_object() {
    let golden = golden();
    let served = crate::table::resources().iter().map(|info| &info.resource);
    let without: Vec<String> = served
        .filter(|resource| {
            let short = match resource.group.split('.').next() {
                None | Some("") => "core",
                _ => &*resource.group,
            };
            let names = [
                format!("{short}.{}.{}", resource.version, resource.kind),
                format!("{}.{}.{}", resource.group, resource.version, resource.kind),
            ];
            names.iter().all(|name| !golden.contains_key(name))
        })
        .map(|resource| format!("{} {}", resource.api_version(), resource.kind))
        .collect();
    // Their Go types lie in repositories of their own, without golden objects.
    assert_eq!(
        without,
        [
            "apiregistration.k8s.io/v1 APIService",
            "apiextensions.k8s.io/v1 CustomResourceDefinition"
        ]
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_the_decoder(kind in "Pod|Role|Secret|Deployment|CustomResourceDefinition", raw: Vec<u8>) {
        let group = match kind.as_str() {
            "Role" => "rbac.authorization.k8s.io/v1",
            "Deployment" => "apps/v1",
            "CustomResourceDefinition" => "apiextensions.k8s.io/v1",
            _ => "v1",
        };
        // What is read of it is an object like any other.
        if let Ok(tree) = decode(&object(group, &kind, &raw)) {
            let again = encode(&tree).unwrap();
            proptest::prop_assert_eq!(decode(&again).unwrap(), tree);
        }
        let _ = decode(&[MAGIC.as_slice(), &raw].concat());
    }
}

fn differences(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys().filter(|key| !one.contains_key(*key))) {
                let get = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}.{key}"), &get(one), &get(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (one, other) in one.iter().zip(other) {
                differences(&format!("{path}[]"), one, other, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("{path}: {one} instead of {other}")),
    }
}
