//! Feeds the machine's DNS with the names of all planes: Services and EndpointSlices by watch, each plane's under the address
//! of its `kubernetes` Service; and, from super Pods, with who may ask which plane's names.

mod ledger;

use std::{net::Ipv4Addr, sync::Arc};

use api::{Object, PlaneId, resource};
use client::{Change, Informer, InformerOptions, Notice, ObjectKey, Sources, Subscription, Tasks};
use network::dns::{Endpoint, ServiceNames, SliceNames, Zones, zones::ServiceKind};
use serde_json::Value;

use crate::{
    identity::{self, Origin},
    pod_plan,
    provision::{ProvisionError, Provisioner},
};
use ledger::{Former, Ledger};

pub struct NamesOptions {
    /// Tenants' planes.
    pub planes: Sources,
    /// The super plane alone.
    pub super_sources: Sources,
    /// The id by which the super cluster's synced objects name it.
    pub super_id: String,
    pub tenants: Arc<dyn Provisioner>,
    pub zones: Zones,
}

/// Starts feeding the zones; it ends when the returned tasks are stopped or dropped.
pub fn start(options: NamesOptions) -> Tasks {
    let tasks = Tasks::new();
    let labelled = InformerOptions {
        label_selector: Some(identity::PLANE.to_owned()),
        ..InformerOptions::default()
    };
    let services = Informer::start(&options.planes, resource::SERVICES, InformerOptions::default());
    let slices = Informer::start(&options.planes, resource::ENDPOINT_SLICES, InformerOptions::default());
    let pods = Informer::start(&options.super_sources, resource::PODS, labelled);
    let feeder = Feeder {
        super_id: options.super_id,
        tenants: options.tenants,
        zones: options.zones,
        ledger: Ledger::default(),
    };
    tasks.spawn(feeder.run(services, slices, pods));
    tasks
}

/// What a change is about.
#[derive(Clone, Copy)]
enum Told {
    Service,
    Slice,
    Pod,
}

struct Feeder {
    super_id: String,
    tenants: Arc<dyn Provisioner>,
    zones: Zones,
    ledger: Ledger,
}

impl Feeder {
    /// One task for all three, since an address that goes from one plane to another is one state.
    async fn run(mut self, services: Informer, slices: Informer, pods: Informer) {
        let (mut of_services, mut of_slices, mut of_pods) =
            (services.subscribe(), slices.subscribe(), pods.subscribe());
        loop {
            let (told, changes) = tokio::select! {
                changes = next(&mut of_services, &services) => (Told::Service, changes),
                changes = next(&mut of_slices, &slices) => (Told::Slice, changes),
                changes = next(&mut of_pods, &pods) => (Told::Pod, changes),
            };
            let Some(changes) = changes else { return };
            for change in changes {
                match told {
                    Told::Service | Told::Slice => self.take_names(told, &change).await,
                    Told::Pod => self.take_pod(&change).await,
                }
            }
        }
    }

    async fn take_names(&mut self, told: Told, change: &Change) {
        let plane = change.key.plane.plane;
        let address = match self.address_of(plane).await {
            Ok(Some(address)) => address,
            Ok(None) => {
                if let Some(address) = self.ledger.forget(plane) {
                    self.zones.forget(address);
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%plane, %error, "a plane's names can't be fed to DNS");
                return;
            }
        };
        if self.ledger.claim(plane, address) == Former::Stale {
            self.zones.forget(address);
        }
        let (zones, namespace, name) = (&self.zones, &change.key.namespace, &change.key.name);
        match told {
            Told::Service => zones.set_service(address, namespace, name, change.new.as_ref().map(service_names)),
            _ => zones.set_slice(address, namespace, name, change.new.as_ref().and_then(slice_names)),
        }
    }

    async fn take_pod(&mut self, change: &Change) {
        let now = change.new.as_ref().and_then(|pod| self.asker(pod));
        let address = match now {
            // A plane that can't be asked about now is asked about at the Pod's next change; until then it may ask any.
            Some((plane, _)) => self.address_of(plane).await.ok().flatten(),
            None => None,
        };
        let left = match (now, address) {
            (Some((_, ip)), Some(plane)) => {
                let left = self.ledger.set_pod(&change.key, ip);
                self.zones.set_pod(ip, Some(plane));
                left
            }
            _ => self.ledger.remove_pod(&change.key),
        };
        if let Some(left) = left {
            self.zones.set_pod(left, None);
        }
    }

    /// The plane and the address of a super Pod that has an address of its own.
    fn asker(&self, pod: &Object) -> Option<(PlaneId, Ipv4Addr)> {
        let tree = pod.tree();
        // On the host's network the address is the machine's.
        if pod_plan::is_finished(pod) || tree["spec"]["hostNetwork"] == true {
            return None;
        }
        let plane = Origin::of(pod, &self.super_id)?.plane;
        Some((plane, tree["status"]["podIP"].as_str()?.parse().ok()?))
    }

    async fn address_of(&self, plane: PlaneId) -> Result<Option<Ipv4Addr>, ProvisionError> {
        let found = self.tenants.find(plane).await?;
        Ok(found.and_then(|found| found.kubernetes_address.parse().ok()))
    }
}

/// The next changes of an informer; `None` when it has ended.
async fn next(changes: &mut Subscription, informer: &Informer) -> Option<Vec<Change>> {
    let all = |key: ObjectKey, object: Object| Change {
        key,
        old: None,
        new: Some(object),
    };
    Some(match changes.next().await? {
        Notice::Change(change) => vec![change],
        Notice::Synced(_) | Notice::Removed(_) => Vec::new(),
        Notice::Rescan => informer
            .all()
            .into_iter()
            .map(|(key, object)| all(key, object))
            .collect(),
    })
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
