//! Requests of a connection run in the connection's own task. A task for each of them costs more than most requests do: an
//! allocation of a size and alignment that allocators are slow at, a way through the scheduler, and a system call an answer
//! where one would do for all answers of a commit.

use std::{
    future::poll_fn,
    mem,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper::rt::Executor;

/// Where hyper leaves the requests that have come.
#[derive(Clone, Default)]
pub struct Arrived(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl Arrived {
    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Arrived {
    fn execute(&self, request: F) {
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.push(Box::pin(request));
    }
}

/// Drives a connection with the requests that come on it. They end with it.
pub async fn together<C: Future>(connection: C, arrived: Arrived) -> C::Output {
    let mut connection = pin!(connection);
    let mut requests = FuturesUnordered::new();
    poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            requests.extend(arrived.take());
            let mut answered = false;
            while let Poll::Ready(Some(())) = requests.poll_next_unpin(context) {
                answered = true;
            }
            // Answers leave at once, and together.
            if !answered {
                return Poll::Pending;
            }
        }
    })
    .await
}
