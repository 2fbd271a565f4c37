//! Events about Pods and the node: written in order by one task, counted when they repeat, and never waited for.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use api::resource;
use client::{Client, Error, Patch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use world::World;

use crate::node_status::seconds;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventType {
    Normal,
    Warning,
}

/// Events that may wait for the plane. More are dropped: they tell people, nothing depends on them.
const WAITING_MAX: usize = 512;
/// Events that can be counted; when there are more, all are begun anew.
const COUNTED_MAX: usize = 4096;
/// So many are never too many to look for those whose time is over.
const COUNTED_MIN: usize = 64;
/// How long after it was last told an event is counted up when it comes again; upstream's interval.
const COUNTED_FOR: Duration = Duration::from_secs(600);
/// Upstream refuses longer messages.
const MESSAGE_BYTES_MAX: usize = 1024;
/// A name is at most 253 bytes, and some are for the number that makes it unique.
const NAME_BYTES_MAX: usize = 236;

pub struct Events {
    sender: mpsc::Sender<Entry>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Entry {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field: Option<String>,
    event_type: &'static str,
    reason: String,
    message: String,
}

impl Events {
    pub fn start(client: Client, world: World, host: String) -> Events {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Events {
            sender,
            _task: AbortOnDropHandle::new(tokio::spawn(write_all(client, world, host, receiver))),
        }
    }

    pub fn pod(&self, pod: &Pod, container: Option<&str>, kind: EventType, reason: &str, message: String) {
        let metadata = &pod.metadata;
        tracing::debug!(pod = ?metadata.name, namespace = ?metadata.namespace, container, reason, message, "event");
        let is_init = container.is_some_and(|name| {
            let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            init.into_iter().any(|container| container.name == name)
        });
        let list = if is_init { "initContainers" } else { "containers" };
        let mut message = message;
        if message.len() > MESSAGE_BYTES_MAX {
            let mut end = MESSAGE_BYTES_MAX;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        let entry = Entry {
            kind: "Pod",
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            field: container.map(|name| format!("spec.{list}{{{name}}}")),
            event_type: match kind {
                EventType::Normal => "Normal",
                EventType::Warning => "Warning",
            },
            reason: reason.to_owned(),
            message,
        };
        if self.sender.try_send(entry).is_err() {
            tracing::debug!(reason, "too many events wait for the plane; one is dropped");
        }
    }
}

/// An event that was written.
struct Written {
    name: String,
    count: u64,
    at: SystemTime,
}

/// What is counted up when it comes again. Most Pods are gone before they say something twice, so what is old is let go.
#[derive(Default)]
struct Counted {
    written: HashMap<Entry, Written>,
    /// So many were left when old ones were last looked for.
    left: usize,
}

impl Counted {
    fn insert(&mut self, entry: &Entry, name: String, now: SystemTime) {
        if self.written.len() >= (2 * self.left).max(COUNTED_MIN) {
            let is_recent = |written: &Written| now.duration_since(written.at).is_ok_and(|age| age < COUNTED_FOR);
            self.written.retain(|_, written| is_recent(written));
            self.left = self.written.len();
        }
        if self.written.len() >= COUNTED_MAX {
            self.written.clear();
            self.left = 0;
        }
        let written = Written {
            name,
            count: 1,
            at: now,
        };
        self.written.insert(entry.clone(), written);
    }
}

async fn write_all(client: Client, world: World, host: String, mut receiver: mpsc::Receiver<Entry>) {
    let mut counted = Counted::default();
    while let Some(entry) = receiver.recv().await {
        if let Err(error) = write(&client, &world, &host, &mut counted, &entry).await {
            tracing::debug!(%error, reason = entry.reason, "an event could not be written");
        }
    }
}

async fn write(client: &Client, world: &World, host: &str, counted: &mut Counted, entry: &Entry) -> Result<(), Error> {
    let time = world.clock.wall();
    let now = seconds(Timestamp::try_from(time).unwrap_or_default());
    let namespace = Some(entry.namespace.as_str());
    if let Some(written) = counted.written.get_mut(entry) {
        written.count += 1;
        written.at = time;
        let patch = Patch::Merge(json!({"count": written.count, "lastTimestamp": now}));
        match client.patch(&resource::EVENTS, namespace, &written.name, &patch).await {
            // It has had its time in the plane; it begins anew.
            Err(error) if error.is_not_found() => {}
            result => return result.map(drop),
        }
    }
    let mut random = [0; 8];
    world.random.fill(&mut random);
    let mut end = entry.name.len().min(NAME_BYTES_MAX);
    while !entry.name.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}.{:016x}", &entry.name[..end], u64::from_le_bytes(random));
    let mut involved = json!({"apiVersion": "v1", "kind": entry.kind, "namespace": entry.namespace,
        "name": entry.name, "uid": entry.uid});
    if let Some(field) = &entry.field {
        involved["fieldPath"] = Value::from(field.as_str());
    }
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": entry.namespace},
        "involvedObject": involved,
        "type": entry.event_type, "reason": entry.reason, "message": entry.message,
        "count": 1, "firstTimestamp": now, "lastTimestamp": now,
        "source": {"component": "kubelet", "host": host},
        "reportingComponent": "kubelet", "reportingInstance": host,
    });
    client.create(&resource::EVENTS, namespace, &event).await?;
    counted.insert(entry, name, time);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uid: usize) -> Entry {
        Entry {
            kind: "Pod",
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: uid.to_string(),
            field: None,
            event_type: "Normal",
            reason: "Pulled".to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn what_was_said_of_pods_that_are_gone_is_forgotten() {
        let mut counted = Counted::default();
        let begin = SystemTime::UNIX_EPOCH;
        for second in 0..100_000 {
            let now = begin + Duration::from_secs(second as u64);
            counted.insert(&entry(second), String::new(), now);
            assert!(
                counted.written.len() <= 2 * 600,
                "at {second}: {}",
                counted.written.len()
            );
        }
        assert!(counted.written.contains_key(&entry(99_500)));
    }

    #[test]
    fn more_than_can_be_counted_are_begun_anew() {
        let mut counted = Counted::default();
        for uid in 0..3 * COUNTED_MAX {
            counted.insert(&entry(uid), String::new(), SystemTime::UNIX_EPOCH);
            assert!(counted.written.len() <= COUNTED_MAX);
        }
    }
}
