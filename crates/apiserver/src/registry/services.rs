//! Cluster addresses and node ports of Services.
//!
//! The rule for addresses: a tenant's Service is allocated (or claims, if it names one) an address of the tenants'
//! range, in the name of that plane and Service. In the super plane an address of the super plane's own range is
//! allocated likewise; an explicit address of the tenants' ranges is taken as it is and *not* allocated there, since it
//! belongs to the tenant's Service whose image the super plane's Service is. Who may write Services in the super plane
//! is trusted with that. Node ports follow the same rule: one that a tenant owns may be repeated in the super plane.

use std::net::Ipv4Addr;

use api::{Object, Status, status::Cause};
use serde_json::{Value, json};

use super::{Place, claims::Claims, refusals};
use crate::planes::{Planes, addresses::Taken};

/// Claims what the Service needs and does not have, and writes it into the object.
pub(super) async fn allocate(
    planes: &Planes,
    place: &Place<'_>,
    object: Object,
    old: Option<&Value>,
) -> Result<(Object, Claims), Status> {
    let ports = object.tree()["spec"]["ports"].as_array().map_or(0, Vec::len);
    let mut claims = Claims::new(place, ports + 1);
    if !place.kind.is_core("services") {
        return Ok((object, claims));
    }
    let mut tree = object.tree().clone();
    let allocated = async {
        allocate_address(planes, place, &mut tree, old, &mut claims).await?;
        allocate_ports(planes, place, &mut tree, old, &mut claims).await?;
        allocate_health_port(planes, &mut tree, &mut claims).await
    };
    match allocated.await {
        Ok(()) if tree == *object.tree() => Ok((object, claims)),
        Ok(()) => Ok((Object::from_tree(tree), claims)),
        Err(status) => {
            claims.give_back(planes).await;
            Err(status)
        }
    }
}

async fn allocate_address(
    planes: &Planes,
    place: &Place<'_>,
    tree: &mut Value,
    old: Option<&Value>,
    claims: &mut Claims,
) -> Result<(), Status> {
    let spec = &mut tree["spec"];
    if spec["type"] == "ExternalName" {
        return Ok(());
    }
    let asked = match spec["clusterIP"].as_str().unwrap_or_default() {
        "" => spec["clusterIPs"][0].as_str().unwrap_or_default().to_owned(),
        asked => asked.to_owned(),
    };
    let ranges = planes.ranges();
    let (range, foreign) = if place.plane.is_root() {
        (&ranges.root, Some([&ranges.tenants, &ranges.pods_door]))
    } else {
        (&ranges.tenants, None)
    };
    let address = match asked.as_str() {
        "None" => "None".to_owned(),
        "" => match claims.any_address(planes, range).await? {
            Ok(address) => address.to_string(),
            Err(_) => {
                return Err(Status::new(
                    api::Reason::InternalError,
                    "failed to allocate a serviceIP: range is full",
                ));
            }
        },
        asked if old.is_some_and(|old| old["spec"]["clusterIP"] == asked) => asked.to_owned(),
        asked => {
            let refuse = |why: String| {
                let message = format!(
                    "Invalid value: {:?}: failed to allocate IP {asked}: {why}",
                    json!([asked]).to_string()
                );
                let cause = Cause {
                    reason: "FieldValueInvalid",
                    message,
                    field: "spec.clusterIPs".to_owned(),
                };
                Err(refusals::invalid(place.kind, place.name, vec![cause]))
            };
            let Ok(address) = asked.parse::<Ipv4Addr>() else {
                return refuse("it is not an IPv4 address".to_owned());
            };
            // A tenant's `kubernetes` made anew after its deletion has its own address back.
            let own = address == place.plane.record.kubernetes_service_ip && claims.owner.name == "kubernetes";
            if foreign.is_some_and(|foreign| foreign.iter().any(|range| range.contains(&address))) {
                // The tenant's own; see above.
            } else if range.contains(&address) || own {
                if claims.address(planes, address).await?.is_err() {
                    return refuse("provided IP is already allocated".to_owned());
                }
                if own {
                    claims.keep(address);
                }
            } else {
                return refuse(format!(
                    "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {} to {}",
                    range.start(),
                    range.end()
                ));
            }
            asked.to_owned()
        }
    };
    let spec = &mut tree["spec"];
    spec["clusterIP"] = address.clone().into();
    spec["clusterIPs"] = json!([address]);
    if !spec["ipFamilies"].is_array() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if !spec["ipFamilyPolicy"].is_string() {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    Ok(())
}

fn wants_ports(spec: &Value) -> bool {
    match spec["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

async fn allocate_ports(
    planes: &Planes,
    place: &Place<'_>,
    tree: &mut Value,
    old: Option<&Value>,
    claims: &mut Claims,
) -> Result<(), Status> {
    let wants = wants_ports(&tree["spec"]);
    let has: Vec<u16> = old.map(node_ports).unwrap_or_default();
    let range = &planes.ranges().node_ports;
    let Some(ports) = tree["spec"]["ports"].as_array_mut() else {
        return Ok(());
    };
    for (at, port) in ports.iter_mut().enumerate() {
        let asked = port["nodePort"]
            .as_u64()
            .and_then(|asked| u16::try_from(asked).ok())
            .unwrap_or(0);
        if asked == 0 {
            if wants {
                match claims.any_port(planes, range).await? {
                    Ok(allocated) => port["nodePort"] = allocated.into(),
                    Err(_) => {
                        return Err(Status::new(
                            api::Reason::InternalError,
                            "failed to allocate a nodePort: range is full",
                        ));
                    }
                }
            }
            continue;
        }
        if has.contains(&asked) || claims.ports.contains(&asked) {
            continue;
        }
        let refuse = |why: String| {
            let cause = Cause {
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {asked}: {why}"),
                field: format!("spec.ports[{at}].nodePort"),
            };
            Err(refusals::invalid(place.kind, place.name, vec![cause]))
        };
        if !range.contains(&asked) {
            return refuse(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            ));
        }
        match claims.port(planes, asked).await? {
            Ok(()) => {}
            Err(Taken::By(other)) if place.plane.is_root() && other.plane != place.plane.id => {}
            Err(_) => return refuse("provided port is already allocated".to_owned()),
        }
    }
    Ok(())
}

/// The port by which a balancer learns which nodes have Pods of the Service.
async fn allocate_health_port(planes: &Planes, tree: &mut Value, claims: &mut Claims) -> Result<(), Status> {
    let spec = &mut tree["spec"];
    if !api::validate::needs_health_check(spec) || spec["healthCheckNodePort"].as_u64().unwrap_or(0) != 0 {
        return Ok(());
    }
    match claims.any_port(planes, &planes.ranges().node_ports).await? {
        Ok(port) => {
            spec["healthCheckNodePort"] = port.into();
            Ok(())
        }
        Err(_) => Err(Status::new(
            api::Reason::InternalError,
            "failed to allocate a healthCheckNodePort: range is full",
        )),
    }
}

/// The one address and the list of addresses say the same; older clients write the one alone (upstream's
/// `NormalizeClusterIPs`).
pub(super) fn complete(tree: &mut Value) {
    let spec = &mut tree["spec"];
    if !spec.is_object() {
        return;
    }
    let one = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    let first = spec["clusterIPs"][0].as_str().unwrap_or_default().to_owned();
    match (one.as_str(), first.as_str()) {
        ("", "") => {}
        ("", first) => spec["clusterIP"] = first.into(),
        (one, "") => spec["clusterIPs"] = json!([one]),
        _ => return,
    }
    if let Some(spec) = spec.as_object_mut() {
        // Looking may have left nulls behind.
        spec.retain(|_, value| !value.is_null());
    }
}

/// An update that leaves out what was allocated means to keep it.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    let (spec, had) = (&mut new["spec"], &old["spec"]);
    if spec.is_object() {
        drop_of_other_type(spec, had);
    }
    if !spec.is_object() || spec["type"] == "ExternalName" || had["type"] == "ExternalName" {
        return;
    }
    if spec["clusterIP"].as_str().unwrap_or_default().is_empty() && had["clusterIP"].is_string() {
        spec["clusterIP"] = had["clusterIP"].clone();
    }
    if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) && spec["clusterIP"] == had["clusterIP"] {
        spec["clusterIPs"] = had["clusterIPs"].clone();
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if spec[field].is_null() && !had[field].is_null() {
            spec[field] = had[field].clone();
        }
    }
    let health = |spec: &Value| api::validate::needs_health_check(spec);
    if health(spec) && health(had) && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
        spec["healthCheckNodePort"] = had["healthCheckNodePort"].clone();
    }
    if !wants_ports(spec) {
        return;
    }
    let had = had["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if port["nodePort"].as_u64().unwrap_or(0) == 0
            && let Some(same) = had
                .iter()
                .find(|it| it["port"] == port["port"] && it["protocol"] == port["protocol"])
            && same["nodePort"].is_number()
        {
            port["nodePort"] = same["nodePort"].clone();
        }
    }
}

/// What only the former type has goes with it, if it was not changed at the same time (upstream's
/// `dropTypeDependentFields`).
fn drop_of_other_type(spec: &mut Value, had: &Value) {
    let is_external = |spec: &Value| matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    let mut dropped: Vec<&str> = Vec::new();
    if had["type"] != "ExternalName" && spec["type"] == "ExternalName" {
        dropped.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    if had["type"] == "ExternalName" && spec["type"] != "ExternalName" {
        dropped.push("externalName");
    }
    if is_external(had) && !is_external(spec) {
        dropped.extend(["externalTrafficPolicy", "healthCheckNodePort"]);
        if node_ports_of(spec) == node_ports_of(had) {
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                if let Some(port) = port.as_object_mut() {
                    port.remove("nodePort");
                }
            }
        }
    }
    if had["type"] == "LoadBalancer" && spec["type"] != "LoadBalancer" {
        dropped.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|field, value| !dropped.contains(&field.as_str()) || *value != had[field]);
    }
}

pub(crate) fn cluster_addresses(service: &Value) -> Vec<Ipv4Addr> {
    let list = service["spec"]["clusterIPs"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect()
}

pub(crate) fn node_ports(service: &Value) -> Vec<u16> {
    let mut ports = node_ports_of(&service["spec"]);
    let health = service["spec"]["healthCheckNodePort"].as_u64();
    ports.extend(
        health
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0),
    );
    ports
}

fn node_ports_of(spec: &Value) -> Vec<u16> {
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    ports
        .iter()
        .filter_map(|port| u16::try_from(port["nodePort"].as_u64()?).ok())
        .collect()
}
