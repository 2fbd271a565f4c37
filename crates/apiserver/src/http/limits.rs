//! How many requests may be under way at once, in all and per plane.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use api::{PlaneId, Reason, Status};

/// Upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`, together. Watches and streams don't count.
const TOTAL_MAX: usize = 600;

/// What one plane may have of it, so that a busy tenant is told to wait before others notice.
const PLANE_MAX: usize = 200;

/// Watches and streams that a plane may hold open: memory, not time, is what they cost.
const PLANE_LONG_RUNNING_MAX: usize = 4000;

/// Requests under way.
#[derive(Clone, Default)]
pub struct Inflight(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    total: usize,
    planes: HashMap<PlaneId, Plane>,
}

#[derive(Default)]
struct Plane {
    short: usize,
    long: usize,
}

/// Whether a request ends by itself within a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duration {
    Short,
    Long,
}

/// One request's place; given back when dropped.
pub struct Place {
    inflight: Inflight,
    plane: PlaneId,
    duration: Duration,
}

impl Inflight {
    pub fn enter(&self, plane: PlaneId, duration: Duration) -> Result<Place, Status> {
        let mut counts = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let total = counts.total;
        let of_plane = counts.planes.entry(plane).or_default();
        let full = match duration {
            Duration::Short => of_plane.short >= PLANE_MAX || total >= TOTAL_MAX,
            Duration::Long => of_plane.long >= PLANE_LONG_RUNNING_MAX,
        };
        if full {
            let mut status = Status::new(Reason::TooManyRequests, "Too many requests, please try again later.");
            status.retry_after_seconds = Some(1);
            return Err(status);
        }
        match duration {
            Duration::Short => {
                of_plane.short += 1;
                counts.total += 1;
            }
            Duration::Long => of_plane.long += 1,
        }
        drop(counts);
        Ok(Place {
            inflight: self.clone(),
            plane,
            duration,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.inflight.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(plane) = counts.planes.get_mut(&self.plane) {
            match self.duration {
                Duration::Short => plane.short -= 1,
                Duration::Long => plane.long -= 1,
            }
            if plane.short == 0 && plane.long == 0 {
                counts.planes.remove(&self.plane);
            }
        }
        if self.duration == Duration::Short {
            counts.total -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_plane_waits_and_others_do_not() {
        let inflight = Inflight::default();
        let (busy, other): (PlaneId, PlaneId) = ("a".repeat(16).parse().unwrap(), "b".repeat(16).parse().unwrap());

        let places: Vec<Place> = (0..PLANE_MAX)
            .map(|_| inflight.enter(busy, Duration::Short).unwrap())
            .collect();

        let refused = inflight.enter(busy, Duration::Short).err().unwrap();
        assert_eq!((refused.code(), refused.retry_after_seconds), (429, Some(1)));
        assert!(inflight.enter(other, Duration::Short).is_ok());
        drop(places);
        assert!(inflight.enter(busy, Duration::Short).is_ok());
        assert!(
            inflight.0.lock().unwrap().planes.is_empty(),
            "an idle plane costs nothing"
        );
    }
}
