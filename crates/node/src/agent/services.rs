//! The plane's Services as this node knows them: for Pods' variables, and for the kernel's rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Object, resource};
use client::{Backoff, Client};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::proxy::Proxy;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use world::World;

use crate::container::service_env::{self, KubernetesService};
use crate::services;
use crate::watch::{self as following, Delta, Selection};

type Named<T> = BTreeMap<(String, String), Arc<T>>;

/// Cheap to clone. Its tasks end with the last clone.
#[derive(Clone)]
pub struct ServiceView {
    known: Arc<Known>,
    changed: watch::Receiver<u64>,
    _tasks: Arc<Vec<AbortOnDropHandle<()>>>,
}

struct Known {
    services: Mutex<Option<Named<Service>>>,
    slices: Mutex<Option<Named<EndpointSlice>>>,
}

impl ServiceView {
    pub fn start(client: &Client, world: &World) -> ServiceView {
        let known = Arc::new(Known {
            services: Mutex::new(None),
            slices: Mutex::new(None),
        });
        let (sender, changed) = watch::channel(0);
        let sender = Arc::new(sender);
        let follow = |resource: api::Resource, mut learn: Box<dyn FnMut(Delta) + Send>| {
            let selection = Selection {
                resource,
                namespace: None,
                fields: None,
            };
            let sender = Arc::clone(&sender);
            let task = following::follow(client.clone(), selection, world.clone(), move |delta| {
                learn(delta);
                sender.send_modify(|count| *count += 1);
            });
            AbortOnDropHandle::new(tokio::spawn(task))
        };
        let (services, slices) = (Arc::clone(&known), Arc::clone(&known));
        let tasks = vec![
            follow(
                resource::SERVICES,
                Box::new(move |delta| learn(&services.services, delta)),
            ),
            follow(
                resource::ENDPOINT_SLICES,
                Box::new(move |delta| learn(&slices.slices, delta)),
            ),
        ];
        ServiceView {
            known,
            changed,
            _tasks: Arc::new(tasks),
        }
    }

    /// Completes once all Services have been read.
    pub async fn synced(&self) {
        let mut changed = self.changed.clone();
        let _ = changed.wait_for(|_| lock(&self.known.services).is_some()).await;
    }

    /// What a Pod is told of Services. Without `kubernetes` the plane's own Service of that name says where it is.
    pub fn variables(&self, pod: &Pod, kubernetes: Option<KubernetesService>) -> BTreeMap<String, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let services = lock(&self.known.services);
        let services = services.as_ref();
        let kubernetes = kubernetes.or_else(|| {
            let service = services?.get(&("default".to_owned(), "kubernetes".to_owned()))?;
            let spec = service.spec.as_ref()?;
            Some(KubernetesService {
                ip: spec.cluster_ip.as_deref()?.parse().ok()?,
                port: u16::try_from(spec.ports.as_ref()?.first()?.port).ok()?,
            })
        });
        let own = services
            .into_iter()
            .flat_map(|services| services.iter())
            .filter(|((of, _), _)| of == namespace)
            .map(|(_, service)| &**service);
        service_env::of(pod, kubernetes, own)
    }

    /// Keeps the kernel's rules those of the plane's Services; never ends.
    pub async fn drive(self, proxy: Proxy, node: String, world: World) {
        let mut changed = self.changed.clone();
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            changed.borrow_and_update();
            let rules = {
                let services = lock(&self.known.services);
                let slices = lock(&self.known.slices);
                match (&*services, &*slices) {
                    (Some(services), Some(slices)) => Some(services::rules(
                        services.values().map(|service| &**service),
                        slices.values().map(|slice| &**slice),
                        &node,
                    )),
                    // Rules of an earlier agent go on until all is known.
                    _ => None,
                }
            };
            if let Some(rules) = rules {
                if let Err(error) = proxy.apply(rules).await {
                    tracing::warn!(%error, "the rules for Services were not applied");
                    world.clock.sleep(backoff.next(&*world.random)).await;
                    continue;
                }
                backoff.reset();
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn learn<T: DeserializeOwned>(known: &Mutex<Option<Named<T>>>, delta: Delta) {
    let key = |object: &Object| (object.namespace().to_owned(), object.name().to_owned());
    let read = |object: &Object| match object.view::<T>() {
        Ok(view) => Some(Arc::new(view)),
        Err(error) => {
            tracing::warn!(?object, %error, "an object could not be read");
            None
        }
    };
    let mut known = lock(known);
    match delta {
        Delta::All(objects) => {
            *known = Some(
                objects
                    .iter()
                    .filter_map(|object| Some((key(object), read(object)?)))
                    .collect(),
            );
        }
        Delta::Set(object) => {
            if let (Some(known), Some(view)) = (known.as_mut(), read(&object)) {
                known.insert(key(&object), view);
            }
        }
        Delta::Gone(object) => {
            if let Some(known) = known.as_mut() {
                known.remove(&key(&object));
            }
        }
    }
}
