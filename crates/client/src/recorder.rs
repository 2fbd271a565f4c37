//! Events for people: told once, counted after that, never in the way of what they tell about.

use std::time::SystemTime;

use api::{Object, resource};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use world::World;

use crate::{Client, Patch, Tasks, remembered::Remembered};

/// Events that wait to be written; more are dropped, since they are hints and memory is not.
const WAITING_MAX: usize = 1024;
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

async fn write(world: World, component: &'static str, mut told: mpsc::Receiver<Told>) {
    let mut remembered = Remembered::default();
    let mut instance = [0; 4];
    world.random.fill(&mut instance);
    let mut serial = u64::from(u32::from_le_bytes(instance));
    while let Some(event) = told.recv().await {
        let uid = event.about["uid"].as_str().unwrap_or("");
        let same = remembered.of((event.client.prefix(), uid, &event.reason, &event.message));
        if let Some((name, count)) = remembered.again(same, event.at) {
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": timestamp(event.at)}));
            let patched = event
                .client
                .patch(&resource::EVENTS, Some(&event.namespace), name, &patch)
                .await;
            match patched {
                // It has had its time in the plane; it begins anew.
                Err(error) if error.is_not_found() => {}
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
            Ok(_) => remembered.insert(same, name, event.at),
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
    use std::time::Duration;

    use super::*;

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
