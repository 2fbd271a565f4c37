//! A watch of an etcd as a stream. No task: whoever listens drives it.

use std::{collections::VecDeque, sync::Arc};

use etcd_client as etcd;
use futures::StreamExt;
use keyspace::{Error, Event, KeyRange, Previous, Revision, WatchStream, Watched};
use tokio::sync::Notify;

use crate::{
    errors::{About, Asked, translate},
    progress::ProgressBy,
    translate::Prefix,
};

pub(crate) struct Watching {
    pub stream: etcd::WatchStream,
    pub prefix: Prefix,
    pub keys: KeyRange,
    pub previous: Previous,
    /// Nothing before it is told.
    pub from: Revision,
    pub progress: ProgressBy,
    pub bookmark: Vec<u8>,
    /// Somebody asked for progress.
    pub asked: Arc<Notify>,
    /// The first progress was told.
    pub begun: bool,
    pub ready: VecDeque<Watched>,
    pub done: bool,
}

impl Watching {
    pub fn into_stream(self) -> WatchStream {
        futures::stream::unfold(self, |mut watching| async move {
            let item = watching.next().await?;
            watching.done = item.is_err();
            Some((item, watching))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<Watched, Error>> {
        loop {
            if self.done {
                return None;
            }
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            let answer = tokio::select! {
                answer = self.stream.message() => answer,
                () = self.asked.notified(), if self.progress == ProgressBy::Request => {
                    if let Err(error) = self.stream.request_progress().await {
                        return Some(Err(translate(error, Asked::Read, About::default())));
                    }
                    continue;
                }
            };
            match answer {
                Err(error) => return Some(Err(translate(error, Asked::Read, About::default()))),
                Ok(None) => return Some(Err(Error::Unavailable("etcd ended the watch".into()))),
                Ok(Some(answer)) => {
                    if let Err(error) = self.take(answer) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// The first answer, which says whether the watch is one.
    pub fn created(&mut self, answer: etcd::WatchResponse) -> Result<(), Error> {
        self.take(answer)
    }

    fn take(&mut self, answer: etcd::WatchResponse) -> Result<(), Error> {
        if answer.compact_revision() > 0 {
            return Err(Error::Compacted {
                wanted: self.from,
                oldest: Revision(answer.compact_revision() as u64),
            });
        }
        if answer.canceled() {
            return Err(match answer.cancel_reason() {
                reason if reason.contains("has been compacted") => Error::Compacted {
                    wanted: self.from,
                    oldest: Revision(self.from.0 + 1),
                },
                reason => Error::Unavailable(format!("etcd cancelled the watch: {reason}")),
            });
        }
        if answer.created() {
            return Ok(());
        }
        if answer.events().is_empty() {
            // The header of an answer with events may be ahead of them; without events it is what is known.
            if self.progress == ProgressBy::Request
                && let Some(header) = answer.header()
            {
                self.progress_to(Revision(header.revision() as u64));
            }
            return Ok(());
        }
        // One answer may have several revisions, each of them whole.
        let mut revision = Revision(0);
        let mut events = Vec::new();
        for event in answer.events() {
            let Some(kv) = event.kv() else { continue };
            let at = Revision(kv.mod_revision() as u64);
            if at != revision {
                self.tell(revision, std::mem::take(&mut events));
                revision = at;
            }
            if at < self.from {
                continue;
            }
            if kv.key() == self.bookmark {
                self.progress_to(at);
            } else if let Some(event) = self.event(event, kv) {
                events.push(event);
            }
        }
        self.tell(revision, events);
        Ok(())
    }

    fn event(&self, event: &etcd::Event, kv: &etcd::KeyValue) -> Option<Event> {
        let key = self.prefix.strip(kv.key())?;
        if !self.keys.contains(key) {
            return None;
        }
        let previous = match self.previous {
            Previous::Return => event.prev_kv().and_then(|kv| self.prefix.key_value(kv.clone())),
            Previous::Omit => None,
        };
        let kv = self.prefix.key_value(kv.clone())?;
        Some(match event.event_type() {
            etcd::EventType::Put => Event::Put { kv, previous },
            etcd::EventType::Delete => Event::Delete {
                key: kv.key,
                revision: kv.mod_revision,
                previous,
            },
        })
    }

    fn tell(&mut self, revision: Revision, events: Vec<Event>) {
        if !events.is_empty() {
            self.begin();
            self.ready.push_back(Watched::Events { revision, events });
        }
    }

    fn progress_to(&mut self, revision: Revision) {
        if revision.0 + 1 >= self.from.0 {
            self.begin();
            self.ready.push_back(Watched::Progress { revision });
        }
    }

    /// Tells where the watch begins, once that revision is there.
    pub fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            let revision = Revision(self.from.0 - 1);
            self.ready.push_back(Watched::Progress { revision });
        }
    }
}
