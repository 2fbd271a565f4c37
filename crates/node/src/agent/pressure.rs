//! What is done when the machine runs short: of disk, images that nothing uses go first; then Pods, who use more than they
//! asked for before others (upstream's eviction and image garbage collection, with its default thresholds).

mod images;
mod ranking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::context::Context;
use super::events::EventType;
use super::pods::Pods;
use crate::machine;
use crate::node_status::{self, Short};
use crate::pod::observed::label;
use crate::pod::plan::Failure;
use images::Unused;

/// Upstream's housekeeping interval. The kernel tells of shortage only to those who ask for it in a way that differs
/// between its versions.
const EVERY: Duration = Duration::from_secs(10);
/// One Pod at a time: what it gives back shows after it has ended.
const AFTER_EVICTION: Duration = Duration::from_secs(30);

/// Never ends.
pub async fn run(context: Arc<Context>, pods: Pods) {
    let mut unused = Unused::default();
    loop {
        let pause = round(&context, &pods, &mut unused).await;
        context.world.clock.sleep(pause).await;
    }
}

async fn round(context: &Context, pods: &Pods, unused: &mut Unused) -> Duration {
    let capacity = context.capacity;
    let is_short = || node_status::is_short(&machine::left(&context.root), capacity);
    if let Err(error) = unused.collect(context).await {
        tracing::warn!(%error, "unused images were not collected");
    }
    let mut short = is_short();
    if short.disk {
        match unused.drop_all(context).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "unused images were removed, for want of disk space");
                short = is_short();
            }
            Err(error) => tracing::warn!(%error, "unused images were not removed"),
        }
    }
    match evict(context, pods, short).await {
        true => AFTER_EVICTION,
        false => EVERY,
    }
}

/// Ends the Pod that is entitled least, if the machine is short of something.
async fn evict(context: &Context, pods: &Pods, short: Short) -> bool {
    let resource = match short {
        Short { memory: true, .. } => "memory",
        Short { disk: true, .. } => "ephemeral-storage",
        Short { pids: true, .. } => "pids",
        _ => return false,
    };
    let usage = match usage_by_pod(context, resource).await {
        Ok(usage) => usage,
        Err(error) => {
            tracing::warn!(%error, "nothing is known of what Pods use");
            return false;
        }
    };
    let all = pods.all();
    let Some(pod) = ranking::first(&all, &usage, resource) else {
        return false;
    };
    let message = format!("The node was low on resource: {resource}. ");
    let metadata = &pod.metadata;
    tracing::warn!(pod = ?metadata.name, namespace = ?metadata.namespace, resource, "evicting a Pod");
    context
        .events
        .pod(pod, None, EventType::Warning, "Evicted", message.clone());
    pods.evict(
        metadata.uid.as_deref().unwrap_or_default(),
        Failure {
            reason: "Evicted",
            message,
        },
    );
    true
}

/// Bytes by Pod's uid; of what is not counted by Pod, nothing.
async fn usage_by_pod(context: &Context, resource: &str) -> Result<BTreeMap<String, i64>, crate::cri::CriError> {
    let mut usage = BTreeMap::new();
    for container in context.runtime.stats().await? {
        let Some(uid) = container
            .attributes
            .as_ref()
            .and_then(|attributes| attributes.labels.get(label::POD_UID))
        else {
            continue;
        };
        let used = match resource {
            "memory" => container.memory.and_then(|memory| memory.working_set_bytes),
            "ephemeral-storage" => container.writable_layer.and_then(|layer| layer.used_bytes),
            _ => None,
        };
        let used = used.map_or(0, |value| i64::try_from(value.value).unwrap_or(i64::MAX));
        let sum: &mut i64 = usage.entry(uid.clone()).or_default();
        *sum = sum.saturating_add(used);
    }
    Ok(usage)
}

/// A Pod that runs, as far as the plane has been told.
fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}
