//! Time as the outside world tells it.

use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;

pub trait Clock: Send + Sync + 'static {
    /// Wall time, for people and certificates; may jump.
    fn wall(&self) -> SystemTime;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// Completes once `monotonic` has advanced by `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
pub struct RealClock {
    start: Instant,
}

#[allow(clippy::disallowed_methods, reason = "this is the seam")]
impl RealClock {
    pub fn new() -> RealClock {
        RealClock { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the seam")]
impl Clock for RealClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
