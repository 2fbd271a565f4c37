//! Lifecycle hooks: what a container wants done right after it has started and before it is asked to end.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use super::handler::{self, Outcome, Target};
use crate::cri::Runtime;

/// A `postStart` hook that never returns would hold its container in limbo for ever.
pub const POST_START_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Runs a hook to its end, or until `limit` has passed.
pub async fn run(
    runtime: &Runtime,
    target: Target<'_>,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    let action = async {
        if let Some(action) = &hook.exec {
            handler::exec(runtime, target, action, limit).await
        } else if let Some(action) = &hook.http_get {
            handler::http_get(target, action, limit).await
        } else if let Some(action) = &hook.tcp_socket {
            handler::tcp(target, action, limit).await
        } else if let Some(action) = &hook.sleep {
            let seconds = u64::try_from(action.seconds).unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Outcome::Passed
        } else {
            Outcome::Passed
        }
    };
    match tokio::time::timeout(limit, action).await {
        Ok(Outcome::Passed) => Ok(()),
        Ok(Outcome::Failed(problem) | Outcome::Broken(problem)) => Err(problem),
        Err(_) => Err("it did not end in time".to_owned()),
    }
}
