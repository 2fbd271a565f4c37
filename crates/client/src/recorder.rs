//! Events for people: what a loop did or could not do, counted when it happens again.

use api::{Object, resource};
use jiff::Timestamp;
use serde_json::json;
use world::World;

use crate::{Client, Patch};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventType {
    Normal,
    Warning,
}

/// Writes Events as one component. An Event that can't be written is no reason to fail.
#[derive(Clone)]
pub struct EventRecorder {
    component: String,
    world: World,
}

/// Upstream cuts messages here.
const MESSAGE_BYTES_MAX: usize = 1024;

impl EventRecorder {
    pub fn new(component: &str, world: World) -> EventRecorder {
        EventRecorder {
            component: component.to_owned(),
            world,
        }
    }

    /// Records what happened to `about`, through its own plane's client.
    pub async fn record(&self, client: &Client, about: &Object, kind: EventType, reason: &str, message: &str) {
        if let Err(error) = self.try_record(client, about, kind, reason, message).await {
            tracing::debug!(%error, object = ?about, reason, "an event could not be written");
        }
    }

    async fn try_record(
        &self,
        client: &Client,
        about: &Object,
        kind: EventType,
        reason: &str,
        message: &str,
    ) -> Result<(), crate::Error> {
        let message = cut(message, MESSAGE_BYTES_MAX);
        let namespace = Some(about.namespace())
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or("default");
        let now = Timestamp::try_from(self.world.clock.wall()).unwrap_or_default();
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // One name for one thing that happens to one object: the second time is found, and counted.
        let name = format!(
            "{}.{:016x}",
            about.name(),
            fingerprint(&[about.uid(), &self.component, reason, message])
        );
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {"apiVersion": about.api_version(), "kind": about.kind(), "name": about.name(),
                "namespace": about.namespace(), "uid": about.uid(), "resourceVersion": about.resource_version()},
            "type": match kind { EventType::Normal => "Normal", EventType::Warning => "Warning" },
            "reason": reason, "message": message, "count": 1, "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": self.component}, "reportingComponent": self.component, "reportingInstance": "",
        });
        match client.create(&resource::EVENTS, Some(namespace), &event).await {
            Err(error) if error.is_already_exists() => {
                let known = client.get(&resource::EVENTS, Some(namespace), &name).await?;
                let count = known.tree()["count"].as_u64().unwrap_or(1) + 1;
                let patch = Patch::Merge(json!({"count": count, "lastTimestamp": now}));
                client
                    .patch(&resource::EVENTS, Some(namespace), &name, &patch)
                    .await
                    .map(drop)
            }
            done => done.map(drop),
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// FNV-1a; a name, not a secret.
fn fingerprint(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
