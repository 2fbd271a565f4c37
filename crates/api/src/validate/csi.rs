//! Drivers of volumes, what nodes have of them, and classes of what they offer.

use serde_json::Value;

use super::{
    check::{Check, Seen, entries, list, text},
    volume::check_driver_name,
};
use crate::{field::Path, names};

const NODE_ID_BYTES_MAX: usize = 192;

pub fn check_driver(check: &mut Check, driver: &Value) {
    let spec = &driver["spec"];
    let path = Path::ROOT.field("spec");
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity", "seLinuxMount"] {
        if spec[field].is_null() {
            // Upstream misspells the first.
            let shown = if field == "attachRequired" {
                "attachedRequired"
            } else {
                field
            };
            check.required(&path.field(shown), "");
        }
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    check.one_of_or_none(&path.field("fsGroupPolicy"), &spec["fsGroupPolicy"], &policies);
    let tokens_path = path.field("tokenRequests");
    let tokens = list(&spec["tokenRequests"]);
    let mut seen = Seen::default();
    for (at, token) in tokens.iter().enumerate() {
        let path = tokens_path.index(at);
        let audience = text(&token["audience"]);
        if seen.again(audience) {
            check.duplicate(&path.field("audience"), audience);
            continue;
        }
        let expiration = path.field("expirationSeconds");
        match token["expirationSeconds"].as_i64() {
            Some(seconds) if seconds < 600 => {
                let detail = "may not specify a duration less than 10 minutes";
                check.invalid(&expiration, seconds, detail);
            }
            Some(seconds) if seconds > 1 << 32 => {
                let detail = "may not specify a duration larger than 2^32 seconds";
                check.invalid(&expiration, seconds, detail);
            }
            _ => {}
        }
    }
    let modes = path.field("volumeLifecycleModes");
    for mode in list(&spec["volumeLifecycleModes"]) {
        if !matches!(text(mode), "Persistent" | "Ephemeral") {
            check.not_supported(&modes, mode.clone(), &["Persistent", "Ephemeral"]);
        }
    }
}

pub fn check_node_drivers(check: &mut Check, node: &Value) {
    let spec = Path::ROOT.field("spec");
    let drivers_path = spec.field("drivers");
    let drivers = list(&node["spec"]["drivers"]);
    let mut seen = Seen::default();
    for (at, driver) in drivers.iter().enumerate() {
        let path = drivers_path.index(at);
        check_driver_name(check, &path.field("name"), &driver["name"]);
        let id = text(&driver["nodeID"]);
        if id.is_empty() {
            check.required(&path.field("nodeID"), "");
        } else if id.len() > NODE_ID_BYTES_MAX {
            let detail = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            check.invalid(&path.field("nodeID"), id, detail);
        }
        let allocatable = path.field("allocatable");
        check.non_negative(&allocatable.field("count"), &driver["allocatable"]["count"]);
        if seen.again(text(&driver["name"])) {
            check.duplicate(&path.field("name"), text(&driver["name"]));
        }
        for key in list(&driver["topologyKeys"]) {
            check.named(&path, text(key), names::qualified_name(text(key)));
        }
    }
}

pub fn check_attributes_class(check: &mut Check, class: &Value, old: Option<&Value>) {
    let driver = Path::ROOT.field("driverName");
    if let Some(old) = old {
        for field in ["driverName", "parameters"] {
            if class[field] != old[field] {
                let detail = format!("updates to {field} are forbidden.");
                check.forbidden(&Path::ROOT.field(field), detail);
            }
        }
    }
    if check.present(&driver, &class["driverName"]) {
        let name = text(&class["driverName"]);
        check.named(&driver, name, names::qualified_name(&name.to_lowercase()));
    }
    if entries(&class["parameters"]).next().is_none() {
        let detail = "must contain at least one key/value pair";
        check.required(&Path::ROOT.field("parameters"), detail);
    }
}
