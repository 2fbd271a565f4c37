//! Leases: what is attached to each, and when it ends. Time is the clock's monotonic time, handed in.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;

use crate::{Error, Granted, LeaseId, LeaseState, Result};

/// etcd raises shorter ones to 1.5 election timeouts, 2 s with its defaults; the answer tells.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(2);

/// etcd's `MaxLeaseTTL`.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(9_000_000_000);

/// Each costs some 150 bytes; Kubernetes shares one lease among up to 1000 events.
pub const LEASES_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(crate) struct Lease {
    pub ttl: Duration,
    pub expires: Duration,
    pub keys: BTreeSet<Bytes>,
}

#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: HashMap<LeaseId, Lease>,
    by_expiry: BTreeSet<(Duration, LeaseId)>,
}

impl Leases {
    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn grant(&mut self, id: LeaseId, ttl: Duration, now: Duration) -> Result<Granted> {
        if id.0 == 0 {
            return Err(Error::Invalid("a lease's id must not be 0".into()));
        }
        if ttl > LEASE_TTL_MAX {
            return Err(Error::Invalid("too large lease TTL".into()));
        }
        if self.contains(id) {
            return Err(Error::LeaseExists(id));
        }
        if self.leases.len() >= LEASES_MAX {
            return Err(Error::NoSpace(format!("{LEASES_MAX} leases are granted")));
        }
        let ttl = whole_seconds(ttl).max(LEASE_TTL_MIN);
        self.restore(
            id,
            Lease {
                ttl,
                expires: now + ttl,
                keys: BTreeSet::new(),
            },
        );
        Ok(Granted { id, ttl })
    }

    pub fn restore(&mut self, id: LeaseId, lease: Lease) {
        self.by_expiry.insert((lease.expires, id));
        self.leases.insert(id, lease);
    }

    pub fn remove(&mut self, id: LeaseId) -> Result<Lease> {
        let lease = self.leases.remove(&id).ok_or(Error::NoLease(id))?;
        self.by_expiry.remove(&(lease.expires, id));
        Ok(lease)
    }

    pub fn get(&self, id: LeaseId) -> Result<&Lease> {
        self.leases.get(&id).ok_or(Error::NoLease(id))
    }

    pub fn keep(&mut self, id: LeaseId, now: Duration) -> Result<Duration> {
        // One whose time is over is as good as revoked: after a pause of the whole process nobody brings it back in the
        // moment before that is done.
        let lease = self.leases.get_mut(&id).filter(|lease| now < lease.expires);
        let lease = lease.ok_or(Error::NoLease(id))?;
        self.by_expiry.remove(&(lease.expires, id));
        lease.expires = now + lease.ttl;
        self.by_expiry.insert((lease.expires, id));
        Ok(lease.ttl)
    }

    pub fn state(&self, id: LeaseId, now: Duration) -> Result<LeaseState> {
        let lease = self.get(id)?;
        Ok(LeaseState {
            granted_ttl: lease.ttl,
            remaining: lease.expires.saturating_sub(now),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    pub fn attach(&mut self, id: LeaseId, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    pub fn detach(&mut self, id: LeaseId, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    pub fn next_expiry(&self) -> Option<Duration> {
        self.by_expiry.first().map(|(at, _)| *at)
    }

    pub fn expired(&self, now: Duration, limit: usize) -> Vec<LeaseId> {
        let due = self.by_expiry.iter().take_while(|(at, _)| *at <= now);
        due.take(limit).map(|(_, id)| *id).collect()
    }

    pub fn by_expiry(&self) -> Vec<LeaseId> {
        self.by_expiry.iter().map(|(_, id)| *id).collect()
    }

    pub fn all(&self) -> Vec<Granted> {
        let mut all: Vec<Granted> = (self.leases.iter())
            .map(|(id, lease)| Granted {
                id: *id,
                ttl: lease.ttl,
            })
            .collect();
        all.sort_by_key(|granted| granted.id);
        all
    }
}

/// etcd counts a lease in seconds; what is granted must not be shorter than what was asked.
fn whole_seconds(ttl: Duration) -> Duration {
    Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
}
