//! How a loop hears of changes: bounded, so that a slow loop holds up nobody.

use api::Object;
use tokio::sync::broadcast;

use crate::ObjectKey;

/// Changes kept for a subscriber; one that falls further behind is told to look at everything.
pub(crate) const CHANGES_MAX: usize = 4096;

/// What became of one object.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: ObjectKey,
    /// As it was in the cache before; for a deletion at least the last state that is known.
    pub old: Option<Object>,
    pub new: Option<Object>,
}

#[derive(Clone, Debug)]
pub enum Notice {
    Change(Change),
    /// Too much has happened to tell: look at all that the informer holds.
    Rescan,
}

pub struct Subscription {
    receiver: broadcast::Receiver<Notice>,
    /// What was there before the subscription is looked at first.
    begun: bool,
}

impl Subscription {
    pub(crate) fn new(receiver: broadcast::Receiver<Notice>) -> Subscription {
        Subscription { receiver, begun: false }
    }

    /// `None` when the informer has ended. The first notice is always a rescan.
    pub async fn next(&mut self) -> Option<Notice> {
        if !self.begun {
            self.begun = true;
            return Some(Notice::Rescan);
        }
        match self.receiver.recv().await {
            Ok(notice) => Some(notice),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Notice::Rescan),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
