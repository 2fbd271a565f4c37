//! How a loop hears of changes: bounded, so that a slow loop holds up nobody.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use api::Object;
use tokio::sync::Notify;

use crate::{ObjectKey, SourceId};

/// Notices kept for a subscriber; one that falls further behind is told to look at everything, which costs less than
/// keeping every step of the way there.
const NOTICES_MAX: usize = 4096;

/// What became of one object.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: ObjectKey,
    /// As it was in the cache before; for a deletion the last state that is known.
    pub old: Option<Object>,
    /// `None`: deleted (or no longer selected), as told by a source that is synced.
    pub new: Option<Object>,
}

#[derive(Clone, Debug)]
pub enum Notice {
    Change(Change),
    /// Too much has happened to tell: look at all that the informer holds. Always the first notice.
    Rescan,
    /// All of this source is now in the cache; from here on absence from it means something.
    Synced(SourceId),
    /// The source was taken away, and its objects with it. They are not deleted, only out of sight.
    Removed(SourceId),
}

#[derive(Default)]
pub(crate) struct Subscribers(Mutex<Vec<Weak<Mailbox>>>);

struct Mailbox {
    state: Mutex<State>,
    filled: Notify,
}

struct State {
    notices: VecDeque<Notice>,
    closed: bool,
}

/// One loop's view of an informer's changes.
pub struct Subscription(Arc<Mailbox>);

impl Subscribers {
    pub(crate) fn subscribe(&self) -> Subscription {
        let mailbox = Arc::new(Mailbox {
            state: Mutex::new(State {
                notices: VecDeque::from([Notice::Rescan]),
                closed: false,
            }),
            filled: Notify::new(),
        });
        let mut subscribers = self.lock();
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(&mailbox));
        Subscription(mailbox)
    }

    pub(crate) fn tell(&self, notice: &Notice) {
        for mailbox in self.lock().iter().filter_map(Weak::upgrade) {
            mailbox.put(notice.clone());
        }
    }

    pub(crate) fn close(&self) {
        for mailbox in self.lock().drain(..).filter_map(|mailbox| mailbox.upgrade()) {
            mailbox.lock().closed = true;
            mailbox.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Mailbox>>> {
        self.0.lock().expect("no one panics while holding it")
    }
}

impl Mailbox {
    fn put(&self, notice: Notice) {
        let mut state = self.lock();
        if state.notices.len() < NOTICES_MAX {
            state.notices.push_back(notice);
        } else {
            // Whatever a rescan finds is at least as new as all that is dropped. What no rescan shows is kept, and comes
            // after it, as it did after the changes.
            state
                .notices
                .retain(|notice| matches!(notice, Notice::Removed(_) | Notice::Synced(_)));
            state.notices.push_front(Notice::Rescan);
            if !matches!(notice, Notice::Change(_) | Notice::Rescan) {
                state.notices.push_back(notice);
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding it")
    }
}

impl Subscription {
    /// `None` when the informer has ended. Nothing is lost if the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some(notice) = state.notices.pop_front() {
                    return Some(notice);
                }
                if state.closed {
                    return None;
                }
            }
            self.0.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PlaneKey;

    fn change(name: &str) -> Notice {
        let plane = PlaneKey {
            source: SourceId::new("shared"),
            plane: "abcdefghijklmnop".parse().unwrap(),
        };
        Notice::Change(Change {
            key: plane.object("n", name),
            old: None,
            new: None,
        })
    }

    #[tokio::test]
    async fn a_subscriber_that_lags_is_told_to_rescan_and_holds_up_nobody() {
        let subscribers = Subscribers::default();
        let (mut slow, mut quick) = (subscribers.subscribe(), subscribers.subscribe());
        assert!(matches!(quick.next().await, Some(Notice::Rescan)));

        for n in 0..NOTICES_MAX + 10 {
            subscribers.tell(&change(&n.to_string()));
            assert!(matches!(quick.next().await, Some(Notice::Change(change)) if *change.key.name == *n.to_string()));
        }
        subscribers.close();

        assert!(matches!(slow.next().await, Some(Notice::Rescan)));
        let mut after = 0;
        while let Some(notice) = slow.next().await {
            assert!(matches!(notice, Notice::Change(_)));
            after += 1;
        }
        assert_eq!(after, 10, "changes after the rescan are told one by one");
        assert!(quick.next().await.is_none());
    }
}
