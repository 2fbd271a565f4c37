//! Feeds the machine's DNS with the names of all planes: Services and EndpointSlices by watch, each plane's under the address
//! of its `kubernetes` Service.

use std::{net::Ipv4Addr, sync::Arc};

use api::{Object, resource};
use client::{Change, Informer, InformerOptions, Notice, PlaneKey, Sources, Tasks};
use network::dns::{Endpoint, ServiceNames, SliceNames, Zones, zones::ServiceKind};
use serde_json::Value;

use crate::provision::Provisioner;

/// Starts feeding `zones`; it ends when the returned tasks are stopped or dropped.
pub fn start(planes: &Sources, tenants: Arc<dyn Provisioner>, zones: Zones) -> Tasks {
    let tasks = Tasks::new();
    let services = Informer::start(planes, resource::SERVICES, InformerOptions::default());
    let slices = Informer::start(planes, resource::ENDPOINT_SLICES, InformerOptions::default());
    feed(
        &tasks,
        services,
        tenants.clone(),
        zones.clone(),
        |zones, plane, change| {
            let names = change.new.as_ref().map(service_names);
            zones.set_service(plane, &change.key.namespace, &change.key.name, names);
        },
    );
    feed(&tasks, slices, tenants, zones, |zones, plane, change| {
        let names = change.new.as_ref().and_then(slice_names);
        zones.set_slice(plane, &change.key.namespace, &change.key.name, names);
    });
    tasks
}

fn feed(
    tasks: &Tasks,
    informer: Informer,
    tenants: Arc<dyn Provisioner>,
    zones: Zones,
    set: impl Fn(&Zones, Ipv4Addr, &Change) + Send + Sync + 'static,
) {
    tasks.spawn(async move {
        let mut changes = informer.subscribe();
        while let Some(notice) = changes.next().await {
            let changes = match notice {
                Notice::Change(change) => vec![change],
                Notice::Synced(_) | Notice::Removed(_) => continue,
                Notice::Rescan => informer
                    .all()
                    .into_iter()
                    .map(|(key, object)| Change {
                        key,
                        old: None,
                        new: Some(object),
                    })
                    .collect(),
            };
            for change in changes {
                // Of a plane that is no more nobody can ask, since its address is given back.
                if let Some(address) = address_of(&*tenants, &change.key.plane).await {
                    set(&zones, address, &change);
                }
            }
        }
    });
}

async fn address_of(tenants: &dyn Provisioner, plane: &PlaneKey) -> Option<Ipv4Addr> {
    match tenants.find(plane.plane).await {
        Ok(found) => found?.kubernetes_address.parse().ok(),
        Err(error) => {
            tracing::warn!(%plane, %error, "a plane's names can't be fed to DNS");
            None
        }
    }
}

fn service_names(service: &Object) -> ServiceNames {
    let spec = &service.tree()["spec"];
    let kind = match (spec["type"].as_str(), spec["clusterIP"].as_str().unwrap_or("").parse()) {
        (Some("ExternalName"), _) => ServiceKind::External(spec["externalName"].as_str().unwrap_or("").to_owned()),
        (_, Ok(address)) => ServiceKind::Address(address),
        (_, Err(_)) => ServiceKind::Headless,
    };
    ServiceNames {
        kind,
        ports: ports(&spec["ports"]),
    }
}

fn slice_names(slice: &Object) -> Option<SliceNames> {
    let tree = slice.tree();
    let endpoints = tree["endpoints"].as_array().into_iter().flatten();
    // The controller says "ready" of all where the Service publishes addresses that are not.
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    Some(SliceNames {
        service: slice.label("kubernetes.io/service-name")?.to_owned(),
        endpoints: ready
            .flat_map(|endpoint| {
                let hostname = endpoint["hostname"].as_str().map(str::to_owned);
                let addresses = endpoint["addresses"].as_array().into_iter().flatten();
                let addresses = addresses.filter_map(|address| address.as_str()?.parse().ok());
                addresses.map(move |address| Endpoint {
                    address,
                    hostname: hostname.clone(),
                })
            })
            .collect(),
        ports: ports(&tree["ports"]),
    })
}

/// Named ports only: others have no name in DNS.
fn ports(ports: &Value) -> Vec<(String, String, u16)> {
    let port = |port: &Value| {
        let name = port["name"].as_str().filter(|name| !name.is_empty())?;
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
        Some((name.to_owned(), protocol, u16::try_from(port["port"].as_u64()?).ok()?))
    };
    ports.as_array().into_iter().flatten().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_known_by_its_address_its_endpoints_or_another_name() {
        let kind = |spec: Value| service_names(&Object::from_tree(json!({"spec": spec}))).kind;

        assert_eq!(
            kind(json!({"clusterIP": "10.97.0.1"})),
            ServiceKind::Address(Ipv4Addr::new(10, 97, 0, 1))
        );
        assert_eq!(kind(json!({"clusterIP": "None"})), ServiceKind::Headless);
        assert_eq!(
            kind(json!({"type": "ExternalName", "externalName": "example.org"})),
            ServiceKind::External("example.org".to_owned())
        );
    }

    #[test]
    fn endpoints_that_are_not_ready_have_no_name() {
        let slice = Object::from_tree(json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "db"}},
            "endpoints": [
                {"addresses": ["10.244.0.1"], "conditions": {"ready": true}, "hostname": "db-0"},
                {"addresses": ["10.244.0.2"], "conditions": {"ready": false}}],
            "ports": [{"name": "sql", "protocol": "TCP", "port": 5432}, {"port": 1}]}));

        let names = slice_names(&slice).unwrap();

        assert_eq!(names.endpoints.len(), 1);
        assert_eq!(names.endpoints[0].hostname.as_deref(), Some("db-0"));
        assert_eq!(names.ports, vec![("sql".to_owned(), "tcp".to_owned(), 5432)]);
    }
}
