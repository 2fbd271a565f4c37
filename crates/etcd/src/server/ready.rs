//! Which watches of a stream have something to tell. Each has a waker of its own, so that a stream with a thousand of them
//! looks only at those.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use futures::task::AtomicWaker;

#[derive(Default)]
pub struct Ready {
    ids: Mutex<VecDeque<i64>>,
    stream: AtomicWaker,
}

impl Ready {
    fn ids(&self) -> MutexGuard<'_, VecDeque<i64>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream is woken by whatever becomes ready from now on.
    pub fn listen(&self, context: &Context<'_>) {
        self.stream.register(context.waker());
    }

    pub fn next(&self) -> Option<i64> {
        self.ids().pop_front()
    }
}

/// The waker of one watch.
pub struct One {
    id: i64,
    /// It is in the queue.
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl One {
    /// Ready at first: nobody has looked at it yet.
    pub fn new(id: i64, ready: &Arc<Ready>) -> Arc<One> {
        let one = Arc::new(One {
            id,
            queued: AtomicBool::new(false),
            ready: ready.clone(),
        });
        one.wake_by_ref();
        one
    }

    /// It is looked at now; what comes meanwhile queues it again.
    pub fn taken(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// There is more, after the others have had their turn.
    pub fn again(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.ids().push_back(self.id);
        }
    }

    pub fn waker(self: &Arc<One>) -> Waker {
        self.clone().into()
    }
}

impl Wake for One {
    fn wake(self: Arc<One>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<One>) {
        self.again();
        self.ready.stream.wake();
    }
}
