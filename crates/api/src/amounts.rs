//! Amounts of many resources, and what a whole Pod asks for: `requests` and `limits` of its containers, added up as
//! upstream does (KEP-753 for sidecars, KEP-2837 for resources of the Pod itself).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// By resource name, in the order in which messages list them.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a resource list; what is no quantity is left out.
pub fn amounts(list: &Value) -> Amounts {
    list.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::from_json(amount)?)))
        .collect()
}

/// `cpu=1,memory=2Gi`, as messages show them.
pub fn shown(amounts: &Amounts) -> String {
    let pairs: Vec<String> = amounts
        .iter()
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    pairs.join(",")
}

pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = *entry + *amount;
    }
}

fn raise(sum: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        let entry = sum.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

/// What is added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    Requests,
    Limits,
}

impl Bound {
    fn field(self) -> &'static str {
        match self {
            Bound::Requests => "requests",
            Bound::Limits => "limits",
        }
    }
}

/// All containers together, or the largest init container with the sidecars started before it, where that is more.
/// What the Pod says of itself goes over that.
pub fn of_containers(spec: &Value, bound: Bound) -> Amounts {
    let field = bound.field();
    let list = |name: &str| spec[name].as_array().map_or(&[][..], Vec::as_slice);
    let mut running = Amounts::new();
    for container in list("containers") {
        add(&mut running, &amounts(&container["resources"][field]));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let own = amounts(&container["resources"][field]);
        let mut at_once = sidecars.clone();
        add(&mut at_once, &own);
        raise(&mut starting, &at_once);
        if container["restartPolicy"] == "Always" {
            sidecars = at_once;
            add(&mut running, &own);
        }
    }
    raise(&mut running, &starting);
    for (name, amount) in amounts(&spec["resources"][field]) {
        if is_of_pods(&name) {
            running.insert(name, amount);
        }
    }
    running
}

/// As [`of_containers`], and what it takes to run a Pod at all (`overhead`).
pub fn of_pod(spec: &Value, bound: Bound) -> Amounts {
    let mut sum = of_containers(spec, bound);
    let overhead = amounts(&spec["overhead"]);
    match bound {
        Bound::Requests => add(&mut sum, &overhead),
        // A limit that is not there is no limit, with or without overhead.
        Bound::Limits => {
            let bounded = overhead
                .into_iter()
                .filter(|(name, _)| sum.get(name).is_some_and(|limit| !limit.is_zero()))
                .collect();
            add(&mut sum, &bounded);
        }
    }
    sum
}

/// Resources that a Pod may have as a whole.
pub fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asks(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_asks_for_all_its_containers_or_its_largest_start() {
        let mut sidecar = asks("200m");
        sidecar["restartPolicy"] = json!("Always");
        for (spec, sum) in [
            (json!({"containers": [asks("100m"), asks("200m")]}), "cpu=300m"),
            (
                json!({"containers": [asks("100m")], "initContainers": [asks("1")]}),
                "cpu=1",
            ),
            (
                json!({"containers": [asks("100m")], "initContainers": [sidecar, asks("500m")]}),
                "cpu=700m",
            ),
            (
                json!({"containers": [asks("100m")], "overhead": {"cpu": "50m", "memory": "1Mi"}}),
                "cpu=150m,memory=1Mi",
            ),
            (
                json!({"containers": [asks("100m")], "resources": {"requests": {"cpu": "2"}}}),
                "cpu=2",
            ),
        ] {
            assert_eq!(shown(&of_pod(&spec, Bound::Requests)), sum, "{spec}");
        }
    }

    #[test]
    fn overhead_bounds_only_what_is_bounded() {
        let spec = json!({
            "containers": [{"resources": {"limits": {"cpu": "1"}}}],
            "overhead": {"cpu": "100m", "memory": "1Mi"},
        });

        assert_eq!(shown(&of_pod(&spec, Bound::Limits)), "cpu=1100m");
    }
}
