//! Whom a tenant's Pods may reach, written on super Pods for whoever carries their packets.

use std::collections::BTreeMap;

use network::proxy::Circle;
use serde_json::Value;

use crate::identity::{DOOR, NETWORK, PLANE, Tenant};

/// The value of [`NETWORK`] for tenants that opted out of isolation.
pub const OPEN: &str = "open";

/// Writes on a super Pod what [`circle`] reads. A tenant's own keys of that kind have not crossed.
pub fn mark(tenant: &Tenant, annotations: &mut Value) {
    annotations[DOOR] = tenant.kubernetes_address.as_str().into();
    if tenant.settings.open_network {
        annotations[NETWORK] = OPEN.into();
    }
}

/// Reads a super Pod's annotations. One that is nobody's is of those who run the machines.
pub fn circle(annotations: &BTreeMap<String, String>) -> Circle {
    if !annotations.contains_key(PLANE) {
        return Circle::Trusted;
    }
    let door = annotations.get(DOOR).and_then(|door| door.parse().ok());
    let is_open = annotations.get(NETWORK).map(String::as_str) == Some(OPEN);
    match door {
        Some(door) if is_open => Circle::Open { door },
        Some(door) => Circle::Plane { door },
        None => Circle::Alone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{self, tests::acme};
    use api::Object;
    use serde_json::json;

    fn circle_of(tenant: &Tenant, pod: Value) -> Circle {
        let mut metadata = identity::super_metadata(tenant, &Object::from_tree(pod), "s");
        mark(tenant, &mut metadata["annotations"]);
        circle(&serde_json::from_value(metadata["annotations"].clone()).unwrap())
    }

    #[test]
    fn a_tenants_pod_is_of_its_planes_circle_whatever_it_says_of_itself() {
        let forged = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": {
            DOOR: "10.104.0.99", NETWORK: OPEN}}});
        let door = "10.104.0.7".parse().unwrap();
        let mut open = acme();
        open.settings.open_network = true;

        assert_eq!(circle_of(&acme(), forged.clone()), Circle::Plane { door });
        assert_eq!(circle_of(&open, forged), Circle::Open { door });
    }

    #[test]
    fn who_is_nobodys_is_trusted_and_who_has_no_door_is_alone() {
        assert_eq!(circle(&BTreeMap::new()), Circle::Trusted);
        let unmarked = BTreeMap::from([(PLANE.to_owned(), "acmeacmeacmeacme".to_owned())]);
        assert_eq!(circle(&unmarked), Circle::Alone);
    }
}
