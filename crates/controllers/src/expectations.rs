//! What a loop did and has not yet seen come back, so that a cache that lags never makes it do the same again.
//!
//! Nothing is counted: each Pod that was made or deleted is remembered by name and uid, and looked for in the cache
//! when the loop comes by next. A missed event therefore costs nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use api::{Object, Resource};
use client::{Error, Informer, ObjectKey, Sources};

/// A cache that has not caught up after this is not waited for: the plane itself is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// By owner. Bounded by what one pass of a loop may do, times the owners at work.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<ObjectKey, Vec<Expected>>>);

#[derive(Clone, Debug)]
struct Expected {
    key: ObjectKey,
    uid: String,
    what: What,
    since: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Made,
    Deleted,
}

impl Expectations {
    pub fn made(&self, owner: &ObjectKey, object: &Object, now: Duration) {
        self.expect(owner, object, What::Made, now);
    }

    pub fn deleted(&self, owner: &ObjectKey, object: &Object, now: Duration) {
        self.expect(owner, object, What::Deleted, now);
    }

    pub fn forget(&self, owner: &ObjectKey) {
        self.lock().remove(owner);
    }

    fn expect(&self, owner: &ObjectKey, object: &Object, what: What, since: Duration) {
        let expected = Expected {
            key: owner.sibling(object.name()),
            uid: object.uid().to_owned(),
            what,
            since,
        };
        self.lock().entry(owner.clone()).or_default().push(expected);
    }

    /// How long to wait before looking again; `None` if all that was done has come back.
    pub async fn unmet(
        &self,
        owner: &ObjectKey,
        cache: &Informer,
        resource: &Resource,
        sources: &Sources,
        now: Duration,
    ) -> Result<Option<Duration>, Error> {
        let waiting = {
            let mut all = self.lock();
            let Some(waiting) = all.get_mut(owner) else {
                return Ok(None);
            };
            waiting.retain(|expected| !expected.is_met(cache.get(&expected.key).as_ref()));
            if waiting.is_empty() {
                all.remove(owner);
                return Ok(None);
            }
            waiting.clone()
        };
        let Some(overdue) = waiting
            .iter()
            .find(|expected| now.saturating_sub(expected.since) >= PATIENCE)
        else {
            return Ok(Some(PATIENCE));
        };
        let client = sources.client(&owner.plane)?;
        let settled = match client.get(resource, overdue.key.namespace(), &overdue.key.name).await {
            // Made and gone again before the cache saw it; or deleted, as expected.
            Err(error) if error.is_not_found() => true,
            // A deletion that was undone by nobody: the cache is right.
            Ok(object) => overdue.what == What::Deleted || object.uid() != overdue.uid || object.is_deleting(),
            Err(error) => return Err(error),
        };
        if settled && let Some(waiting) = self.lock().get_mut(owner) {
            waiting.retain(|expected| expected.uid != overdue.uid);
        }
        Ok(Some(if settled { Duration::from_millis(1) } else { PATIENCE }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Vec<Expected>>> {
        self.0.lock().expect("no one panics while holding it")
    }
}

impl Expected {
    fn is_met(&self, cached: Option<&Object>) -> bool {
        match (self.what, cached) {
            (What::Made, cached) => cached.is_some(),
            (What::Deleted, None) => true,
            (What::Deleted, Some(object)) => object.uid() != self.uid || object.is_deleting(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expectation_is_met_by_what_the_cache_shows() {
        let pod = |uid: &str, deleting: bool| {
            let at = deleting.then_some("2026-01-01T00:00:00Z");
            Object::from_tree(json!({"metadata": {"name": "p", "uid": uid, "deletionTimestamp": at}}))
        };
        let owner = client::PlaneKey {
            source: client::SourceId::new("s"),
            plane: "aaaaaaaaaaaaaaaa".parse().unwrap(),
        }
        .object("n", "rs");
        let expected = |what| Expected {
            key: owner.sibling("p"),
            uid: "u1".to_owned(),
            what,
            since: Duration::ZERO,
        };

        assert!(!expected(What::Made).is_met(None));
        assert!(expected(What::Made).is_met(Some(&pod("u1", false))));
        assert!(!expected(What::Deleted).is_met(Some(&pod("u1", false))));
        assert!(expected(What::Deleted).is_met(Some(&pod("u1", true))));
        assert!(expected(What::Deleted).is_met(Some(&pod("u2", false))));
        assert!(expected(What::Deleted).is_met(None));
    }
}
