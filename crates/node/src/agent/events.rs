//! Events about Pods and the node: written in order by one task, counted when they repeat, and never waited for.

use api::resource;
use client::{Client, Error, Patch, Remembered};
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
/// Upstream refuses longer messages.
const MESSAGE_BYTES_MAX: usize = 1024;
/// A name is at most 253 bytes, and some are for the number that makes it unique.
const NAME_BYTES_MAX: usize = 236;

pub struct Events {
    sender: mpsc::Sender<Entry>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Hash)]
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

async fn write_all(client: Client, world: World, host: String, mut receiver: mpsc::Receiver<Entry>) {
    let mut remembered = Remembered::default();
    while let Some(entry) = receiver.recv().await {
        if let Err(error) = write(&client, &world, &host, &mut remembered, &entry).await {
            tracing::debug!(%error, reason = entry.reason, "an event could not be written");
        }
    }
}

async fn write(
    client: &Client,
    world: &World,
    host: &str,
    remembered: &mut Remembered,
    entry: &Entry,
) -> Result<(), Error> {
    let time = world.clock.wall();
    let now = seconds(Timestamp::try_from(time).unwrap_or_default());
    let namespace = Some(entry.namespace.as_str());
    let same = remembered.of(entry);
    if let Some((name, count)) = remembered.again(same, time) {
        let patch = Patch::Merge(json!({"count": count, "lastTimestamp": now}));
        match client.patch(&resource::EVENTS, namespace, name, &patch).await {
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
    remembered.insert(same, name, time);
    Ok(())
}
