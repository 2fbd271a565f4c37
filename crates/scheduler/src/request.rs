//! What a Pod asks a node for.

use api::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource name: `cpu` in thousandths, all others in their own unit.
pub type Amounts = BTreeMap<String, i64>;

/// The sum that the node has to set aside: containers together, or the largest init container (with the sidecars started
/// before it) where that is more, plus overhead. KEP-753 for sidecars.
pub fn requested(spec: &Value) -> Amounts {
    let mut running = Amounts::new();
    for container in list(&spec["containers"]) {
        add(&mut running, &of_container(container));
    }
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for container in list(&spec["initContainers"]) {
        let asks = of_container(container);
        let mut at_once = sidecars.clone();
        add(&mut at_once, &asks);
        raise(&mut starting, &at_once);
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, &asks);
        }
    }
    add(&mut running, &sidecars);
    raise(&mut running, &starting);
    add(&mut running, &amounts(&spec["overhead"]));
    running
}

/// What a container that asks for nothing is taken to need, for scoring alone; upstream's numbers.
const ASSUMED: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 << 20)];

/// As [`requested`], with [`ASSUMED`] for what the containers leave open.
pub fn assumed(spec: &Value) -> Amounts {
    let mut all = requested(spec);
    for container in list(&spec["containers"]) {
        let asks = of_container(container);
        for (name, amount) in ASSUMED {
            if !asks.contains_key(name) {
                *all.entry(name.to_owned()).or_default() += amount;
            }
        }
    }
    all
}

fn of_container(container: &Value) -> Amounts {
    amounts(&container["resources"]["requests"])
}

/// Reads a resource list. What is not a quantity was refused when it was written.
pub fn amounts(list: &Value) -> Amounts {
    let read = |(name, value): (&String, &Value)| {
        let quantity = Quantity::from_json(value)?;
        Some((
            name.clone(),
            if name == "cpu" {
                quantity.milli()
            } else {
                quantity.value()
            },
        ))
    };
    list.as_object().into_iter().flatten().filter_map(read).collect()
}

pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

pub fn subtract(sum: &mut Amounts, less: &Amounts) {
    for (name, amount) in less {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_sub(*amount);
    }
}

fn raise(sum: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        let entry = sum.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// Ports of the node itself that the Pod binds: (address, protocol, port).
pub fn host_ports(spec: &Value) -> Vec<(String, String, i64)> {
    let of_port = |port: &Value| {
        let number = port["hostPort"].as_i64().filter(|number| *number > 0)?;
        let address = port["hostIP"]
            .as_str()
            .filter(|address| !address.is_empty())
            .unwrap_or("0.0.0.0");
        Some((
            address.to_owned(),
            port["protocol"].as_str().unwrap_or("TCP").to_owned(),
            number,
        ))
    };
    list(&spec["containers"])
        .iter()
        .flat_map(|container| list(&container["ports"]).iter().filter_map(of_port))
        .collect()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asks(cpu: &str) -> Value {
        json!({"requests": {"cpu": cpu}})
    }

    #[test]
    fn containers_add_up_and_a_larger_init_container_counts_instead() {
        let spec = json!({
            "containers": [{"resources": asks("100m")}, {"resources": asks("1")}],
            "initContainers": [{"resources": asks("2")}], "overhead": {"cpu": "50m"}});

        assert_eq!(requested(&spec)["cpu"], 2050);
    }

    #[test]
    fn a_sidecar_runs_beside_the_containers_and_beside_later_init_containers() {
        let spec = json!({
            "containers": [{"resources": asks("100m")}],
            "initContainers": [{"resources": asks("200m"), "restartPolicy": "Always"}, {"resources": asks("500m")}]});

        assert_eq!(requested(&spec)["cpu"], 700);
    }
}
