//! Events go by themselves: they hang on leases, a lease for all events of some minutes.

use std::{sync::Mutex, time::Duration};

use api::Status;
use keyspace::LeaseId;
use world::Clock;

use super::{Place, Registry};
use crate::planes::{Plane, refuse};

/// Upstream's `--event-ttl`.
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// So long a lease is given to new events; the last of them still has its full time.
const LEASE_SHARED_FOR: Duration = Duration::from_secs(300);

impl Registry {
    /// What a write at that place hangs on, if on anything.
    pub(super) async fn lease(&self, place: &Place<'_>) -> Result<Option<LeaseId>, Status> {
        if !place.kind.is_core("events") {
            return Ok(None);
        }
        let clock = &*self.planes().world().clock;
        self.0.leases.current(place.plane, clock).await.map(Some)
    }
}

/// The current lease of each keyspace.
#[derive(Default)]
pub struct Leases {
    shared: Mutex<Option<(LeaseId, Duration)>>,
    root: Mutex<Option<(LeaseId, Duration)>>,
}

impl Leases {
    pub async fn current(&self, plane: &Plane, clock: &dyn Clock) -> Result<LeaseId, Status> {
        let slot = if plane.is_root() { &self.root } else { &self.shared };
        let now = clock.monotonic();
        let current = *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((lease, granted)) = current
            && now.saturating_sub(granted) < LEASE_SHARED_FOR
        {
            return Ok(lease);
        }
        let granted = plane
            .keyspace
            .grant_lease(None, EVENT_TTL + LEASE_SHARED_FOR)
            .await
            .map_err(refuse)?;
        *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((granted.id, now));
        Ok(granted.id)
    }
}
