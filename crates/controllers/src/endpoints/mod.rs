//! Where a Service's Pods are: EndpointSlices, and the older Endpoints.

mod backend;
mod legacy;
mod mirror;
mod slices;

use std::sync::Arc;

use api::{
    Object,
    resource::{ENDPOINT_SLICES, ENDPOINTS, SERVICES},
    selector::LabelSelector,
};
use client::{Client, DeleteOptions, Error, Informer, ObjectKey, Outcome, Patch, Sources, Tasks};
use world::World;

use crate::{expectations::Expectations, fairness, informers::Informers};

const WORKERS: usize = 5;
/// Found by the Service's name.
pub const BY_SERVICE: &str = "service";

struct Ends {
    sources: Sources,
    services: Informer,
    pods: Informer,
    slices: Informer,
    endpoints: Informer,
    expectations: Expectations,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let (services, slices, endpoints) = (&informers.services, &informers.endpoint_slices, &informers.endpoints);
    let pods = &informers.pods;
    let shared = Arc::new(Ends {
        sources: sources.clone(),
        services: services.clone(),
        pods: pods.clone(),
        slices: slices.clone(),
        endpoints: endpoints.clone(),
        expectations: Expectations::default(),
        world: world.clone(),
    });
    client::enqueue(tasks, services, &queue, |key, _| vec![key.clone()], Vec::new);
    let all = |services: &Informer| {
        let services = services.clone();
        move || services.keys()
    };
    let concerned = services.clone();
    let of_pod = move |key: &ObjectKey, pod: &Object| services_of(&concerned, key, pod);
    client::enqueue(tasks, pods, &queue, of_pod, all(services));
    let of_slice = |key: &ObjectKey, slice: &Object| service_of(key, slice).into_iter().collect();
    client::enqueue(tasks, slices, &queue, of_slice, all(services));
    client::enqueue(tasks, endpoints, &queue, |key, _| vec![key.clone()], all(services));
    client::run(tasks, "endpoints", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

/// The Service of a slice that is ours.
pub fn service_of(key: &ObjectKey, slice: &Object) -> Option<ObjectKey> {
    slice
        .label(slices::MANAGED_BY)
        .filter(|manager| [slices::MANAGER, mirror::MANAGER].contains(manager))?;
    slice.label(slices::SERVICE_NAME).map(|service| key.sibling(service))
}

fn services_of(services: &Informer, key: &ObjectKey, pod: &Object) -> Vec<ObjectKey> {
    let services = services.list(&key.plane, key.namespace()).into_iter();
    let matching = services.filter(|service| selector(service).is_some_and(|selector| selector.matches_object(pod)));
    matching.map(|service| key.sibling(service.name())).collect()
}

/// `None` for Services whose ends are someone else's business.
fn selector(service: &Object) -> Option<LabelSelector> {
    let spec = &service.tree()["spec"];
    let selects = spec["selector"].as_object().is_some_and(|labels| !labels.is_empty());
    (selects && spec["type"] != "ExternalName").then(|| LabelSelector::from_map(&spec["selector"]))
}

impl Ends {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        let informers = [&self.services, &self.pods, &self.slices, &self.endpoints];
        if !informers.iter().all(|informer| informer.synced(source)) {
            return Ok(Outcome::Done);
        }
        let client = self.sources.client(&key.plane)?;
        let Some(service) = self.services.get(key).filter(|service| !service.is_deleting()) else {
            self.expectations.forget(key);
            return self.clean(&client, key).await.map(|()| Outcome::Done);
        };
        let now = self.world.clock.monotonic();
        if let Some(delay) = self
            .expectations
            .unmet(key, &self.slices, &ENDPOINT_SLICES, &self.sources, now)
            .await?
        {
            return Ok(Outcome::After(delay));
        }
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let slices = slices.into_iter().map(|(_, slice)| slice);
        let (mirrored, slices): (Vec<Object>, Vec<Object>) =
            slices.partition(|slice| slice.label(slices::MANAGED_BY) == Some(mirror::MANAGER));
        let selector = selector(&service);
        // Of a Service that selects for itself nothing is mirrored (any more).
        let by_hand = self.endpoints.get(key).filter(|_| selector.is_none());
        for step in mirror::plan(&service, by_hand.as_ref(), &mirrored) {
            self.take(&client, key, step).await?;
        }
        let Some(selector) = selector else {
            return Ok(Outcome::Done);
        };
        let pods = self
            .pods
            .list(&key.plane, key.namespace())
            .into_iter()
            .filter(|pod| selector.matches_object(pod));
        let backends = backend::backends(&service, pods);
        for step in slices::plan(&service, &backends, &slices) {
            self.take(&client, key, step).await?;
        }
        let there = self.endpoints.get(key);
        let step = legacy::plan(&service, &backends, there.as_ref());
        tell(&client, key, step).await?;
        Ok(Outcome::Done)
    }

    async fn take(&self, client: &Client, key: &ObjectKey, step: slices::Step) -> Result<(), Error> {
        match step {
            slices::Step::Create(body) => match client.create(&ENDPOINT_SLICES, key.namespace(), &body).await {
                Ok(slice) => self.expectations.made(key, &slice, self.world.clock.monotonic()),
                Err(error) if error.is_namespace_terminating() => {}
                Err(error) => return Err(error),
            },
            slices::Step::Change { slice, patch } => {
                let patch = Patch::Merge(patch);
                client
                    .patch(&ENDPOINT_SLICES, key.namespace(), slice.name(), &patch)
                    .await?;
            }
            slices::Step::Delete(slice) => {
                let options = DeleteOptions::of_uid(slice.uid());
                match client
                    .delete(&ENDPOINT_SLICES, key.namespace(), slice.name(), &options)
                    .await
                {
                    Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                    _ => self.expectations.deleted(key, &slice, self.world.clock.monotonic()),
                }
            }
        }
        Ok(())
    }

    /// Endpoints have no owner: they go with the Service of their name. (Slices are garbage without it.)
    async fn clean(&self, client: &Client, key: &ObjectKey) -> Result<(), Error> {
        let Some(endpoints) = self.endpoints.get(key) else {
            return Ok(());
        };
        // What a plane only renders is in no stream: the plane itself is asked whether the Service is gone.
        match client.get(&SERVICES, key.namespace(), &key.name).await {
            Err(error) if error.is_not_found() => {}
            there => return there.map(drop),
        }
        let options = DeleteOptions::of_uid(endpoints.uid());
        match client.delete(&ENDPOINTS, key.namespace(), &key.name, &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            done => done,
        }
    }
}

async fn tell(client: &Client, key: &ObjectKey, step: legacy::Step) -> Result<(), Error> {
    let told = match step {
        legacy::Step::Nothing => return Ok(()),
        legacy::Step::Create(body) => client.create(&ENDPOINTS, key.namespace(), &body).await,
        legacy::Step::Change(patch) => {
            client
                .patch(&ENDPOINTS, key.namespace(), &key.name, &Patch::Merge(patch))
                .await
        }
    };
    match told {
        // The cache lags: what is there brings us back when it is seen.
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(()),
        done => done.map(drop),
    }
}
