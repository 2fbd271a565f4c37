//! Between the version that is asked for and the one that is stored. Most kinds have one; of the others most have the
//! same shape in both, so that only `apiVersion` differs.

use serde_json::{Map, Value, json};

use super::{Kind, devices};

/// From the served version to the stored one.
pub fn to_storage(kind: &Kind, tree: &mut Value) {
    let (served, storage) = (kind.resource(), kind.storage());
    if served == storage {
        return;
    }
    match (&*served.group, &*served.version, &*served.plural) {
        ("events.k8s.io", _, "events") => rename(tree, EVENT_FIELDS, Direction::ToStorage),
        ("autoscaling", "v1", "horizontalpodautoscalers") => autoscaler_to_v2(tree),
        ("resource.k8s.io", "v1beta1", _) => devices::to_storage(&served.plural, tree),
        _ => {}
    }
    tree["apiVersion"] = storage.api_version().into();
    tree["kind"] = storage.kind.clone().into();
}

/// From the stored version to the served one.
pub fn from_storage(kind: &Kind, tree: &mut Value) {
    let (served, storage) = (kind.resource(), kind.storage());
    if served == storage {
        return;
    }
    match (&*served.group, &*served.version, &*served.plural) {
        ("events.k8s.io", _, "events") => rename(tree, EVENT_FIELDS, Direction::FromStorage),
        ("autoscaling", "v1", "horizontalpodautoscalers") => autoscaler_to_v1(tree),
        ("resource.k8s.io", "v1beta1", _) => devices::from_storage(&served.plural, tree),
        _ => {}
    }
    tree["apiVersion"] = served.api_version().into();
    tree["kind"] = served.kind.clone().into();
}

#[derive(Clone, Copy)]
enum Direction {
    ToStorage,
    FromStorage,
}

/// `events.k8s.io/v1` and, as stored, `v1`.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn rename(tree: &mut Value, fields: &[(&str, &str)], direction: Direction) {
    let Some(tree) = tree.as_object_mut() else { return };
    for (served, stored) in fields {
        let (from, to) = match direction {
            Direction::ToStorage => (served, stored),
            Direction::FromStorage => (stored, served),
        };
        if let Some(value) = tree.remove(*from) {
            tree.insert((*to).to_owned(), value);
        }
    }
}

/// `autoscaling/v1` knows CPU alone; other metrics of a v2 object are not shown in it.
fn autoscaler_to_v2(tree: &mut Value) {
    if let Some(spec) = tree["spec"].as_object_mut()
        && let Some(target) = spec.remove("targetCPUUtilizationPercentage")
    {
        spec.insert(
            "metrics".to_owned(),
            json!([{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": target},
            }}]),
        );
    }
    if let Some(status) = tree.get_mut("status").and_then(Value::as_object_mut)
        && let Some(current) = status.remove("currentCPUUtilizationPercentage")
    {
        status.insert(
            "currentMetrics".to_owned(),
            json!([{"type": "Resource", "resource": {
                "name": "cpu", "current": {"averageUtilization": current},
            }}]),
        );
    }
}

fn autoscaler_to_v1(tree: &mut Value) {
    let cpu = |metrics: Option<Value>, field: &str| -> Option<Value> {
        let metrics = metrics?;
        let metric = metrics
            .as_array()?
            .iter()
            .find(|metric| metric["type"] == "Resource" && metric["resource"]["name"] == "cpu")?;
        metric["resource"][field].get("averageUtilization").cloned()
    };
    if let Some(spec) = tree["spec"].as_object_mut() {
        let metrics = spec.remove("metrics");
        spec.remove("behavior");
        if let Some(target) = cpu(metrics, "target") {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
        }
    }
    if let Some(status) = tree.get_mut("status").and_then(Value::as_object_mut) {
        let metrics = status.remove("currentMetrics");
        status.remove("conditions");
        if let Some(current) = cpu(metrics, "current") {
            status.insert("currentCPUUtilizationPercentage".to_owned(), current);
        }
        default_count(status);
    }
}

/// Both counts are required in v1.
fn default_count(status: &mut Map<String, Value>) {
    for field in ["currentReplicas", "desiredReplicas"] {
        status.entry(field).or_insert_with(|| json!(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, version: &str, plural: &str) -> Kind {
        Kind::BuiltIn(api::table::find(group, version, plural).unwrap())
    }

    #[test]
    fn both_kinds_of_events_are_one_in_storage() {
        let kind = kind("events.k8s.io", "v1", "events");
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod"}, "note": "hello", "reportingController": "c", "reason": "R",
        });
        let mut stored = event.clone();

        to_storage(&kind, &mut stored);
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(stored["message"], "hello");

        from_storage(&kind, &mut stored);
        assert_eq!(stored, event);
    }

    #[test]
    fn old_claims_and_slices_keep_what_they_say() {
        let claims = kind("resource.k8s.io", "v1beta1", "resourceclaims");
        let claim = json!({
            "apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceClaim", "metadata": {"name": "c"},
            "spec": {"devices": {"requests": [
                {"name": "one", "deviceClassName": "gpu", "count": 2},
                {"name": "any", "firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]},
            ]}},
        });
        let slices = kind("resource.k8s.io", "v1beta1", "resourceslices");
        let slice = json!({
            "apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceSlice", "metadata": {"name": "s"},
            "spec": {"driver": "d", "devices": [{"name": "gpu0", "basic": {"capacity": {"memory": {"value": "1Gi"}}}}]},
        });
        let (mut stored_claim, mut stored_slice) = (claim.clone(), slice.clone());

        to_storage(&claims, &mut stored_claim);
        to_storage(&slices, &mut stored_slice);
        let requests = &stored_claim["spec"]["devices"]["requests"];
        assert_eq!(
            requests[0],
            json!({"name": "one", "exactly": {"deviceClassName": "gpu", "count": 2}})
        );
        assert!(requests[1].get("exactly").is_none());
        let device = json!({"name": "gpu0", "capacity": {"memory": {"value": "1Gi"}}});
        assert_eq!(stored_slice["spec"]["devices"][0], device);

        from_storage(&claims, &mut stored_claim);
        from_storage(&slices, &mut stored_slice);
        assert_eq!((stored_claim, stored_slice), (claim, slice));
    }

    #[test]
    fn an_old_autoscaler_keeps_its_target() {
        let kind = kind("autoscaling", "v1", "horizontalpodautoscalers");
        let old = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80},
        });
        let mut tree = old.clone();

        to_storage(&kind, &mut tree);
        assert_eq!(
            tree["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            80
        );

        from_storage(&kind, &mut tree);
        assert_eq!(tree, old);
    }
}
