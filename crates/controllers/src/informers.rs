//! What several loops look at, watched once for all of them.

use api::{Object, resource};
use client::{Informer, InformerOptions, ObjectKey, Sources};

use crate::{endpoints, ownership};

pub struct Informers {
    pub namespaces: Informer,
    pub pods: Informer,
    pub replica_sets: Informer,
    pub deployments: Informer,
    pub services: Informer,
    pub endpoints: Informer,
    pub endpoint_slices: Informer,
}

impl Informers {
    pub fn start(sources: &Sources) -> Informers {
        let owned = || ownership::owners(InformerOptions::default());
        let claimed = || ownership::indexes(owned());
        let by_service = |key: &ObjectKey, slice: &Object| {
            let service = endpoints::service_of(key, slice);
            service.into_iter().map(|service| service.to_string()).collect()
        };
        Informers {
            namespaces: Informer::start(sources, resource::NAMESPACES, owned()),
            pods: Informer::start(sources, resource::PODS, claimed()),
            replica_sets: Informer::start(sources, resource::REPLICA_SETS, claimed()),
            deployments: Informer::start(sources, resource::DEPLOYMENTS, owned()),
            services: Informer::start(sources, resource::SERVICES, owned()),
            endpoints: Informer::start(sources, resource::ENDPOINTS, owned()),
            endpoint_slices: Informer::start(
                sources,
                resource::ENDPOINT_SLICES,
                owned().index(endpoints::BY_SERVICE, by_service),
            ),
        }
    }

    pub fn all(&self) -> [&Informer; 7] {
        [
            &self.namespaces,
            &self.pods,
            &self.replica_sets,
            &self.deployments,
            &self.services,
            &self.endpoints,
            &self.endpoint_slices,
        ]
    }
}
