//! What happens in the runtime wakes the Pod it happens to: by the runtime's event stream, or, where there is none, by
//! comparing lists every few seconds.

use std::collections::HashMap;
use std::time::Duration;

use client::Backoff;
use world::World;

use crate::cri::{CriError, Runtime};
use crate::pod::observed::label;

/// Runtimes without events are asked this often; a dead container is seen so much later.
const RELIST: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Whom to wake.
pub enum Wake<'a> {
    Pod(&'a str),
    /// Something may have been missed.
    All,
}

/// Never ends.
pub async fn follow(runtime: Runtime, world: World, wake: impl Fn(Wake<'_>) + Send + Sync) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    loop {
        let error = match runtime.events().await {
            Ok(mut stream) => {
                wake(Wake::All);
                backoff.reset();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            let uid = event.pod_sandbox_status.as_ref().and_then(|status| {
                                status
                                    .metadata
                                    .as_ref()
                                    .map(|metadata| metadata.uid.as_str())
                                    .filter(|uid| !uid.is_empty())
                                    .or_else(|| status.labels.get(label::POD_UID).map(String::as_str))
                            });
                            match uid {
                                Some(uid) => wake(Wake::Pod(uid)),
                                None => wake(Wake::All),
                            }
                        }
                        Ok(None) => break None,
                        Err(status) => {
                            break Some(CriError::Call {
                                call: "get_container_events",
                                status: Box::new(status),
                            });
                        }
                    }
                }
            }
            Err(error) => Some(error),
        };
        if error.as_ref().is_some_and(CriError::is_unimplemented) {
            tracing::info!("the runtime tells no events; it is asked every {} s", RELIST.as_secs());
            relist(&runtime, &world, &wake).await;
        }
        if let Some(error) = error {
            tracing::debug!(%error, "the runtime's events broke off");
        }
        world.clock.sleep(backoff.next(&*world.random)).await;
    }
}

/// Until the runtime goes away: the one that comes back may tell events.
async fn relist(runtime: &Runtime, world: &World, wake: &(impl Fn(Wake<'_>) + Send + Sync)) {
    let mut known: HashMap<String, (String, i32)> = HashMap::new();
    loop {
        let Ok(states) = runtime.states().await else { return };
        for (id, state) in &states {
            if known.get(id) != Some(state) {
                wake(Wake::Pod(&state.0));
            }
        }
        for (id, (uid, _)) in &known {
            if !states.contains_key(id) {
                wake(Wake::Pod(uid));
            }
        }
        known = states;
        world.clock.sleep(RELIST).await;
    }
}
