//! Time that moves when it is told to.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;

use crate::Clock;

#[derive(Default)]
pub struct SimClock {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    now: Duration,
    sleepers: Vec<(Duration, Waker)>,
}

/// Where simulated wall time begins: 2026-01-01, so that certificates look as they do in life.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

impl SimClock {
    pub fn new() -> SimClock {
        SimClock::default()
    }

    /// Wakes every sleep that ends by then.
    pub fn advance(&self, by: Duration) {
        let mut state = lock(&self.state);
        state.now += by;
        let now = state.now;
        let (due, still): (Vec<_>, Vec<_>) = state.sleepers.drain(..).partition(|(until, _)| *until <= now);
        state.sleepers = still;
        drop(state);
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock for SimClock {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + EPOCH + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        lock(&self.state).now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let until = self.monotonic() + duration;
        Box::pin(Sleep {
            state: self.state.clone(),
            until,
        })
    }
}

struct Sleep {
    state: Arc<Mutex<State>>,
    until: Duration,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.now >= self.until {
            return Poll::Ready(());
        }
        // A sleep that is polled anew leaves its old entry behind; that wakes once too often and is gone.
        state.sleepers.push((self.until, context.waker().clone()));
        Poll::Pending
    }
}
