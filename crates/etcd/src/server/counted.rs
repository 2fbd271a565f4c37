//! A stream of answers, counted while it goes and when it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;

use super::{
    grpc::{Outgoing, PREFIX_BYTES},
    member::Member,
    status::{Code, Status},
};

pub struct Counted {
    member: Arc<Member>,
    method: &'static str,
    begun: Duration,
    answers: Outgoing,
    ended: bool,
}

impl Counted {
    pub fn new(member: &Arc<Member>, method: &'static str, begun: Duration, answers: Outgoing) -> Counted {
        Counted {
            member: member.clone(),
            method,
            begun,
            answers,
            ended: false,
        }
    }

    fn end(&mut self, code: u16) {
        if !std::mem::replace(&mut self.ended, true) {
            let took = self.member.world.clock.monotonic().saturating_sub(self.begun);
            self.member.metrics.handled(self.method, code, took);
        }
    }
}

impl Stream for Counted {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = ready!(self.answers.as_mut().poll_next(context));
        match &answer {
            // Several may have been gathered; their prefixes are few bytes among many.
            Some(Ok(bytes)) => self.member.metrics.sent(bytes.len().saturating_sub(PREFIX_BYTES)),
            Some(Err(status)) => self.end(status.code as u16),
            None => self.end(0),
        }
        Poll::Ready(answer)
    }
}

impl Drop for Counted {
    /// Whoever asked has gone.
    fn drop(&mut self) {
        self.end(Code::Canceled as u16);
    }
}
