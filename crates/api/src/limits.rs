//! LimitRanges: what is filled in where containers say nothing, and which amounts are refused.

use serde_json::{Value, json};

use crate::{
    amounts::{Amounts, Bound, amounts, of_containers},
    quantity::Quantity,
};

/// Where upstream notes what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn limits(range: &Value) -> &[Value] {
    list(&range["spec"], "limits")
}

/// Fills in requests and limits of a Pod's containers.
pub fn fill_in(range: &Value, pod: &mut Value) {
    let (mut requests, mut bounds) = (Amounts::new(), Amounts::new());
    for limit in limits(range).iter().filter(|limit| limit["type"] == "Container") {
        requests.extend(amounts(&limit["defaultRequest"]));
        bounds.extend(amounts(&limit["default"]));
    }
    if requests.is_empty() && bounds.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (kind, called) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.pointer_mut(&format!("/spec/{kind}")).and_then(Value::as_array_mut);
        for container in containers
            .into_iter()
            .flatten()
            .filter(|container| container.is_object())
        {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, what, defaults) in [("requests", "request", &requests), ("limits", "limit", &bounds)] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() && pod["metadata"].is_object() {
        let annotations = &mut pod["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

fn fill(container: &mut Value, field: &str, defaults: &Amounts) -> Vec<String> {
    let missing: Vec<(&String, &Quantity)> = defaults
        .iter()
        .filter(|(name, _)| container["resources"][field].get(name.as_str()).is_none())
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let resources = &mut container["resources"];
    if !resources.is_object() {
        *resources = json!({});
    }
    if !resources[field].is_object() {
        resources[field] = json!({});
    }
    for (name, amount) in &missing {
        container["resources"][field][name.as_str()] = amount.to_string().into();
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

/// What of a Pod is out of bounds, in upstream's words.
pub fn refuse_pod(range: &Value, pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for limit in limits(range) {
        match limit["type"].as_str().unwrap_or_default() {
            "Container" => {
                for container in ["containers", "initContainers"]
                    .into_iter()
                    .flat_map(|kind| list(&pod["spec"], kind))
                {
                    let resources = &container["resources"];
                    let (requests, bounds) = (amounts(&resources["requests"]), amounts(&resources["limits"]));
                    check(&mut found, limit, "Container", &requests, &bounds);
                }
            }
            "Pod" => {
                let requests = of_containers(&pod["spec"], Bound::Requests);
                let bounds = of_containers(&pod["spec"], Bound::Limits);
                check(&mut found, limit, "Pod", &requests, &bounds);
            }
            _ => {}
        }
    }
    found
}

/// What of a claim is out of bounds. A claim has requests only.
pub fn refuse_claim(range: &Value, claim: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let mut found = Vec::new();
    for limit in limits(range).iter().filter(|limit| limit["type"] == KIND) {
        for (name, min) in amounts(&limit["min"]) {
            found.extend(below(&name, KIND, min, requests.get(&name), None));
        }
        for (name, max) in amounts(&limit["max"]) {
            let bound = format!("maximum {name} usage per {KIND} is {max}");
            match requests.get(&name) {
                None => found.push(format!("{bound}.  No request is specified")),
                Some(request) if *request > max => found.push(format!("{bound}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    found
}

fn check(found: &mut Vec<String>, limit: &Value, kind: &str, requests: &Amounts, bounds: &Amounts) {
    for (name, min) in amounts(&limit["min"]) {
        found.extend(below(&name, kind, min, requests.get(&name), bounds.get(&name)));
    }
    for (name, max) in amounts(&limit["max"]) {
        found.extend(above(&name, kind, max, requests.get(&name), bounds.get(&name)));
    }
    for (name, ratio) in amounts(&limit["maxLimitRequestRatio"]) {
        found.extend(apart(&name, kind, ratio, requests.get(&name), bounds.get(&name)));
    }
}

fn below(
    name: &str,
    kind: &str,
    min: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("minimum {name} usage per {kind} is {min}");
    match (request, limit) {
        (None, _) => Some(format!("{bound}.  No request is specified")),
        (Some(request), _) if *request < min => Some(format!("{bound}, but request is {request}")),
        (_, Some(limit)) if *limit < min => Some(format!("{bound}, but limit is {limit}")),
        _ => None,
    }
}

fn above(
    name: &str,
    kind: &str,
    max: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("maximum {name} usage per {kind} is {max}");
    match (request, limit) {
        (_, None) => Some(format!("{bound}.  No limit is specified")),
        (_, Some(limit)) if *limit > max => Some(format!("{bound}, but limit is {limit}")),
        (Some(request), _) if *request > max => Some(format!("{bound}, but request is {request}")),
        _ => None,
    }
}

fn apart(
    name: &str,
    kind: &str,
    ratio: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("{name} max limit to request ratio per {kind} is {ratio}");
    let some = |amount: Option<&Quantity>| amount.copied().filter(|amount| !amount.is_zero());
    let Some(request) = some(request) else {
        return Some(format!("{bound}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(limit) else {
        return Some(format!("{bound}, but no limit is specified or limit is 0"));
    };
    // As far as whole units go the thousandths are exact enough; beyond them they would overflow.
    let (limit, request) = match (limit.milli(), request.milli()) {
        (i64::MAX, _) | (_, i64::MAX) => (limit.value() as f64, request.value() as f64),
        (limit, request) => (limit as f64, request as f64),
    };
    let has = limit / request;
    (has * 1000.0 > ratio.milli() as f64).then(|| format!("{bound}, but provided ratio is {has:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limit: Value) -> Value {
        json!({"spec": {"limits": [limit]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    #[test]
    fn what_containers_leave_out_is_filled_in_and_noted() {
        let range = range(json!({
            "type": "Container",
            "default": {"cpu": "1", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"},
        }));
        let mut bare = pod(json!({}));
        bare["spec"]["initContainers"] = json!([{"name": "i"}]);
        let mut own = pod(json!({"limits": {"cpu": "2", "memory": "2Gi"}, "requests": {"cpu": "2"}}));
        let before = own.clone();

        fill_in(&range, &mut bare);
        fill_in(&range, &mut own);

        assert_eq!(
            bare["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            bare["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; cpu request for \
             init container i; cpu, memory limit for init container i"
        );
        assert_eq!(own, before);
    }

    #[test]
    fn what_is_out_of_bounds_is_told_in_upstreams_words() {
        let container = |mut limit: Value| {
            limit["type"] = json!("Container");
            range(limit)
        };
        let both = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        for (range, resources, expected) in [
            (
                container(json!({"max": {"cpu": "1"}})),
                both("2"),
                vec!["maximum cpu usage per Container is 1, but limit is 2"],
            ),
            (
                container(json!({"max": {"memory": "1Gi"}})),
                both("2"),
                vec!["maximum memory usage per Container is 1Gi.  No limit is specified"],
            ),
            (
                container(json!({"min": {"cpu": "200m"}})),
                both("100m"),
                vec!["minimum cpu usage per Container is 200m, but request is 100m"],
            ),
            (
                container(json!({"min": {"cpu": "200m"}, "max": {"cpu": "1"}})),
                json!({}),
                vec![
                    "minimum cpu usage per Container is 200m.  No request is specified",
                    "maximum cpu usage per Container is 1.  No limit is specified",
                ],
            ),
            (
                container(json!({"maxLimitRequestRatio": {"cpu": "2"}})),
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}),
                vec!["cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000"],
            ),
            (
                container(json!({"maxLimitRequestRatio": {"cpu": "2"}})),
                both("1"),
                vec![],
            ),
            (
                range(json!({"type": "Pod", "max": {"cpu": "1"}})),
                both("2"),
                vec!["maximum cpu usage per Pod is 1, but limit is 2"],
            ),
        ] {
            assert_eq!(
                refuse_pod(&range, &pod(resources.clone())),
                expected,
                "{range} {resources}"
            );
        }
    }

    #[test]
    fn claims_have_bounds_of_their_own() {
        let range =
            range(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}}));
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});

        assert_eq!(refuse_claim(&range, &claim("2Gi")), Vec::<String>::new());
        assert_eq!(
            refuse_claim(&range, &claim("10Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi"]
        );
        assert_eq!(
            refuse_claim(&range, &claim("1Mi")),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]
        );
    }
}
