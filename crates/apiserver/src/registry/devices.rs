//! `resource.k8s.io/v1beta1` and, as stored, `v1`: what a request asks for exactly has a structure of its own now, and
//! what is known of a device has none any more.

use serde_json::{Map, Value};

/// What is asked of one device, and moved into `exactly`.
const EXACTLY: [&str; 7] = [
    "deviceClassName",
    "selectors",
    "allocationMode",
    "count",
    "adminAccess",
    "tolerations",
    "capacity",
];

pub fn to_storage(plural: &str, tree: &mut Value) {
    each(requests(plural, tree), |request| {
        let moved: Map<String, Value> = EXACTLY
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), request.remove(*field)?)))
            .collect();
        if !moved.is_empty() {
            request.insert("exactly".to_owned(), Value::Object(moved));
        }
    });
    each(devices(plural, tree), |device| spread(device, "basic"));
}

pub fn from_storage(plural: &str, tree: &mut Value) {
    each(requests(plural, tree), |request| spread(request, "exactly"));
    each(devices(plural, tree), |device| {
        let name = device.remove("name");
        let basic = std::mem::take(device);
        device.extend(name.map(|name| ("name".to_owned(), name)));
        device.insert("basic".to_owned(), Value::Object(basic));
    });
}

fn requests<'a>(plural: &str, tree: &'a mut Value) -> Option<&'a mut Vec<Value>> {
    let spec = match plural {
        "resourceclaims" => tree.get_mut("spec"),
        "resourceclaimtemplates" => tree.get_mut("spec").and_then(|spec| spec.get_mut("spec")),
        _ => None,
    };
    spec?.get_mut("devices")?.get_mut("requests")?.as_array_mut()
}

fn devices<'a>(plural: &str, tree: &'a mut Value) -> Option<&'a mut Vec<Value>> {
    if plural != "resourceslices" {
        return None;
    }
    tree.get_mut("spec")?.get_mut("devices")?.as_array_mut()
}

fn each(items: Option<&mut Vec<Value>>, change: impl Fn(&mut Map<String, Value>)) {
    items
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
        .for_each(change);
}

/// Puts the fields of an inner structure into the outer one.
fn spread(outer: &mut Map<String, Value>, inner: &str) {
    if let Some(Value::Object(fields)) = outer.remove(inner) {
        outer.extend(fields);
    }
}
