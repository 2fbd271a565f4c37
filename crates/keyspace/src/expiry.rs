//! When leases end. One task a keyspace, and none while there is no lease.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use world::Clock;

/// What a look at the leases said.
pub enum Next {
    /// Look again at this moment of the clock's monotonic time, or when woken.
    At(Duration),
    /// Look again when woken.
    Idle,
    /// There is nothing left to look at.
    Gone,
}

/// Leases are looked at no more often than this: many that end together go together, as etcd does it.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Calls `expire` when the next lease is due, until it says [`Next::Gone`]. `expire` is given the time.
pub async fn run<F: Future<Output = Next>>(clock: Arc<dyn Clock>, woken: Arc<Notify>, expire: impl Fn(Duration) -> F) {
    loop {
        let now = clock.monotonic();
        match expire(now).await {
            Next::Gone => return,
            Next::Idle => woken.notified().await,
            Next::At(at) => {
                let pause = clock.sleep(at.saturating_sub(now).max(PAUSE_MIN));
                tokio::select! {
                    () = pause => {}
                    () = woken.notified() => {}
                }
            }
        }
    }
}
