//! Events for people: told once, counted after that, never in the way of what they tell about.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime},
};

use api::{Object, resource};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use world::World;

use crate::{Client, Patch, Tasks};

/// Events that wait to be written; more are dropped, since they are hints and memory is not.
const WAITING_MAX: usize = 1024;
/// Events that can be counted up instead of written anew, as many as client-go's correlator keeps.
const REMEMBERED_MAX: usize = 4096;
/// After this an event that repeats is written anew (client-go's interval).
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const NAME_CHARS_MAX: usize = 253;
/// The longest note that upstream accepts.
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventType {
    Normal,
    Warning,
}

/// Writes Events in a task of its own. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    waiting: mpsc::Sender<Told>,
    world: World,
}

struct Told {
    client: Client,
    about: Value,
    namespace: String,
    kind: EventType,
    reason: String,
    message: String,
    at: SystemTime,
}

impl EventRecorder {
    /// `component` is shown as the event's source: `deployment-controller`.
    pub fn start(tasks: &Tasks, world: &World, component: &'static str) -> EventRecorder {
        let (waiting, told) = mpsc::channel(WAITING_MAX);
        tasks.spawn(write(world.clone(), component, told));
        EventRecorder {
            waiting,
            world: world.clone(),
        }
    }

    /// Tells of `object` in the plane of `client`.
    pub fn record(&self, client: &Client, object: &Object, kind: EventType, reason: &str, message: impl Into<String>) {
        let namespace = if object.namespace().is_empty() {
            "default"
        } else {
            object.namespace()
        };
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX)
                .rev()
                .find(|&end| message.is_char_boundary(end))
                .unwrap_or(0);
            message.truncate(end);
        }
        let told = Told {
            client: client.clone(),
            about: json!({
                "apiVersion": object.api_version(), "kind": object.kind(), "namespace": object.namespace(),
                "name": object.name(), "uid": object.uid(), "resourceVersion": object.resource_version(),
            }),
            namespace: namespace.to_owned(),
            kind,
            reason: reason.to_owned(),
            message,
            at: self.world.clock.wall(),
        };
        if self.waiting.try_send(told).is_err() {
            tracing::debug!("an event was dropped: too many are waiting");
        }
    }
}

/// What makes two events one, in short: plane, object, reason and message.
type Sameness = u64;

/// What was written lately, and is counted up when it comes again.
#[derive(Default)]
struct Remembered {
    hasher: RandomState,
    written: HashMap<Sameness, Written>,
    /// From the one that was written first.
    order: VecDeque<Sameness>,
}

impl Remembered {
    fn of(&self, event: &Told) -> Sameness {
        let uid = event.about["uid"].as_str().unwrap_or("");
        self.hasher
            .hash_one((event.client.prefix(), uid, &event.reason, &event.message))
    }

    fn insert(&mut self, same: Sameness, fresh: Written) {
        let now = fresh.at;
        if self.written.insert(same, fresh).is_none() {
            self.order.push_back(same);
        }
        while let Some(oldest) = self.order.pop_front() {
            match self.written.get(&oldest) {
                Some(written) if written.is_recent(now) && self.order.len() < REMEMBERED_MAX => {
                    // One that was counted up since may stay before others that are older than it.
                    match written.count {
                        1 => self.order.push_front(oldest),
                        _ => self.order.push_back(oldest),
                    }
                    return;
                }
                _ => drop(self.written.remove(&oldest)),
            }
        }
    }
}

struct Written {
    name: String,
    count: u64,
    at: SystemTime,
}

impl Written {
    fn is_recent(&self, now: SystemTime) -> bool {
        now.duration_since(self.at).is_ok_and(|age| age < REMEMBERED_FOR)
    }
}

async fn write(world: World, component: &'static str, mut told: mpsc::Receiver<Told>) {
    let mut remembered = Remembered::default();
    let mut instance = [0; 4];
    world.random.fill(&mut instance);
    let mut serial = u64::from(u32::from_le_bytes(instance));
    while let Some(event) = told.recv().await {
        let same = remembered.of(&event);
        let before = remembered.written.get_mut(&same);
        if let Some(before) = before.filter(|before| before.is_recent(event.at)) {
            before.count += 1;
            before.at = event.at;
            let patch = Patch::Merge(json!({"count": before.count, "lastTimestamp": timestamp(event.at)}));
            let patched = event
                .client
                .patch(&resource::EVENTS, Some(&event.namespace), &before.name, &patch)
                .await;
            match patched {
                Err(error) if error.is_not_found() => drop(remembered.written.remove(&same)),
                Err(error) => {
                    tracing::debug!(%error, "an event was not counted");
                    continue;
                }
                Ok(_) => continue,
            }
        }
        serial = serial.wrapping_add(1);
        let name = event_name(event.about["name"].as_str().unwrap_or("event"), event.at, serial);
        let body = body(&event, component, &name);
        match event
            .client
            .create(&resource::EVENTS, Some(&event.namespace), &body)
            .await
        {
            Ok(_) => {
                let fresh = Written {
                    name,
                    count: 1,
                    at: event.at,
                };
                remembered.insert(same, fresh);
            }
            // The namespace may be going away; a hint is not worth a retry.
            Err(error) => tracing::debug!(%error, reason = event.reason, "an event was not written"),
        }
    }
}

fn body(event: &Told, component: &str, name: &str) -> Value {
    let at = timestamp(event.at);
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": event.namespace},
        "involvedObject": event.about,
        "type": match event.kind { EventType::Normal => "Normal", EventType::Warning => "Warning" },
        "reason": event.reason, "message": event.message,
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        "firstTimestamp": at, "lastTimestamp": at, "count": 1,
    })
}

/// `<object>.<time and serial in hex>`, as client-go names them, and unique within a nanosecond too.
fn event_name(object: &str, at: SystemTime, serial: u64) -> String {
    let nanos = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    let suffix = format!(".{:016x}", (nanos as u64).wrapping_add(serial));
    let room = NAME_CHARS_MAX - suffix.len();
    format!("{}{suffix}", object.get(..room).unwrap_or(object))
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub(crate) fn timestamp(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .and_then(|at| {
            at.round(
                jiff::TimestampRound::new()
                    .smallest(jiff::Unit::Second)
                    .mode(jiff::RoundMode::Floor),
            )
        })
        .map(|at| at.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_no_more_is_forgotten_and_the_rest_has_a_bound() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let written = |seconds| Written {
            name: "e".to_owned(),
            count: 1,
            at: at(seconds),
        };
        let mut remembered = Remembered::default();
        for second in 0..2000 {
            remembered.insert(second, written(second));
            // One that always comes again.
            let again = remembered.written.get_mut(&0).unwrap();
            (again.at, again.count) = (at(second), 2);
        }
        let lately = remembered.written.len();
        for same in 0..10_000 {
            remembered.insert(10_000 + same, written(2000));
        }

        let most = usize::try_from(REMEMBERED_FOR.as_secs()).unwrap() + 2;
        assert!((100..=most).contains(&lately), "{lately}");
        assert!(remembered.written.contains_key(&19_999));
        assert!(remembered.written.len() <= REMEMBERED_MAX + 1);
        assert_eq!(remembered.order.len(), remembered.written.len());
    }

    #[test]
    fn times_are_whole_seconds_and_names_fit() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_987);

        assert_eq!(timestamp(at), "2023-11-14T22:13:20Z");
        assert_eq!(
            event_name("web", at, 0),
            "web.1797a9a1c9ab54c0"
                .to_owned()
                .replace("1797a9a1c9ab54c0", &format!("{:016x}", 1_700_000_000_987_000_000u64))
        );
        assert!(event_name(&"x".repeat(253), at, 1).len() <= NAME_CHARS_MAX);
    }
}
