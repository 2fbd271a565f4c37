//! Watchers of every kind, which go on where they were when their stream breaks; and the one that keeps the log.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use etcd_client::{EventType, WatchFilterType, WatchOptions, WatchResponse, WatchStream};
use testkit::history::{
    model::{Event, Keys},
    watch::{Response, Told, Watch, Watched},
};
use world::sim::SimRandom;

use crate::{
    clients::{connect, key_value},
    round::Shared,
};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(25);

/// Responses after which those that begin anew do so.
const RESPONSES_MAX: usize = 40;

fn of_all() -> Watch {
    Watch {
        keys: Keys::prefix("k/"),
        from: 1,
        previous: false,
        puts: true,
        deletes: true,
    }
}

fn watch(number: u64) -> Watch {
    match number {
        0 => Watch {
            previous: true,
            ..of_all()
        },
        1 => Watch {
            keys: Keys::one("k/0"),
            previous: true,
            ..of_all()
        },
        2 => Watch {
            puts: false,
            previous: true,
            ..of_all()
        },
        3 => Watch {
            deletes: false,
            ..of_all()
        },
        4 => Watch {
            keys: Keys {
                start: "k/1".into(),
                end: Some("k/4".into()),
            },
            ..of_all()
        },
        _ => Watch {
            previous: true,
            ..of_all()
        },
    }
}

fn options(watch: &Watch, start_revision: i64) -> WatchOptions {
    let mut options = WatchOptions::new()
        .with_start_revision(start_revision)
        .with_progress_notify();
    if let Some(end) = &watch.keys.end {
        options = options.with_range(end.as_str());
    }
    if watch.previous {
        options = options.with_prev_key();
    }
    let mut filters = Vec::new();
    if !watch.puts {
        filters.push(WatchFilterType::NoPut);
    }
    if !watch.deletes {
        filters.push(WatchFilterType::NoDelete);
    }
    if !filters.is_empty() {
        options = options.with_filters(filters);
    }
    options
}

/// The revision of its header.
fn revision(response: &WatchResponse) -> i64 {
    response.header().map_or(0, |header| header.revision())
}

fn told(response: &WatchResponse) -> Response {
    let events: Vec<Told> = (response.events().iter())
        .map(|event| {
            let kv = event.kv().expect("an event has a key");
            let event_told = match event.event_type() {
                EventType::Put => Event::Put(key_value(kv)),
                EventType::Delete => Event::Delete { key: key_value(kv).key },
            };
            Told {
                revision: kv.mod_revision(),
                event: event_told,
                previous: event.prev_kv().map(key_value),
            }
        })
        .collect();
    if events.is_empty() {
        Response::Progress(revision(response))
    } else {
        Response::Events(events)
    }
}

/// The newest revision of which everything was told.
fn through(response: &Response) -> i64 {
    match response {
        Response::Events(events) => events.last().map_or(0, |told| told.revision),
        Response::Progress(revision) => *revision,
    }
}

enum Next {
    Told(Response),
    Compacted(i64),
    Broken,
    /// It has told all that there is.
    Reached,
}

struct Stream {
    stream: WatchStream,
    progress: tokio::time::Interval,
    through: i64,
}

impl Stream {
    /// Open, and where it begins.
    async fn open(shared: &Shared, watch: &Watch, start_revision: i64) -> Option<(Stream, i64)> {
        let mut client = connect(shared).await;
        let options = options(watch, start_revision);
        let stream = client.watch(watch.keys.start.as_str(), Some(options)).await;
        let mut stream = stream.ok()?;
        let created = stream.message().await.ok()??;
        if !created.created() || created.canceled() {
            let wrong = format!("the first of {watch:?} is {created:?}");
            shared.wrong.lock().unwrap().push(wrong);
            return None;
        }
        let from = if start_revision > 0 {
            start_revision
        } else {
            revision(&created) + 1
        };
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Some((
            Stream {
                stream,
                progress,
                through: from - 1,
            },
            from,
        ))
    }

    async fn next(&mut self, shared: &Shared) -> Next {
        let mut last = shared.last.subscribe();
        loop {
            if last.borrow_and_update().is_some_and(|last| self.through >= last) {
                return Next::Reached;
            }
            tokio::select! {
                message = self.stream.message() => {
                    let Ok(Some(message)) = message else { return Next::Broken };
                    if message.canceled() {
                        return match message.compact_revision() {
                            0 => Next::Broken,
                            compacted => Next::Compacted(compacted),
                        };
                    }
                    let told = told(&message);
                    self.through = self.through.max(through(&told));
                    return Next::Told(told);
                }
                _ = self.progress.tick() => {
                    if self.stream.request_progress().await.is_err() {
                        return Next::Broken;
                    }
                }
                _ = last.changed() => {}
            }
        }
    }
}

pub async fn run(shared: Arc<Shared>, number: u64) {
    let random = SimRandom::new(shared.seed * 1000 + 100 + number);
    let asked = watch(number);
    // The last two begin anew now and then, and from elsewhere.
    let goes_on = number < 5;
    let mut start_revision = if goes_on { 1 } else { 0 };
    loop {
        let Some((mut stream, from)) = Stream::open(&shared, &asked, start_revision).await else {
            continue;
        };
        let mut watched = Watched {
            watch: Watch { from, ..asked.clone() },
            responses: Vec::new(),
            compacted: 0,
        };
        let end = loop {
            match stream.next(&shared).await {
                Next::Told(response) => watched.responses.push(response),
                end => break end,
            }
            if !goes_on && watched.responses.len() >= RESPONSES_MAX {
                break Next::Broken;
            }
        };
        watched.compacted = shared.compacted();
        shared.watches.lock().unwrap().push(watched);
        let is_over = shared.last.borrow().is_some();
        start_revision = match end {
            Next::Reached => return,
            Next::Compacted(revision) => revision,
            // Some begin in the future, unless there is none.
            _ if !goes_on && !is_over => {
                let logged = shared.logged.load(Ordering::SeqCst);
                (logged - 50 + random.below(60) as i64).max(0)
            }
            _ => stream.through + 1,
        };
    }
}

/// Keeps everything that happens.
pub async fn log(shared: Arc<Shared>) {
    let asked = of_all();
    let mut next = 1;
    loop {
        let Some((mut stream, _)) = Stream::open(&shared, &asked, next).await else {
            continue;
        };
        loop {
            match stream.next(&shared).await {
                Next::Told(Response::Events(events)) => {
                    let mut log = shared.log.lock().unwrap();
                    for told in events {
                        next = told.revision + 1;
                        log.revisions.entry(told.revision).or_default().push(told.event);
                    }
                    shared.logged.store(next - 1, Ordering::SeqCst);
                }
                Next::Told(Response::Progress(_)) => {}
                Next::Reached => return,
                Next::Broken => break,
                Next::Compacted(revision) => {
                    let wrong = format!("the log had come to {next} when {revision} was compacted");
                    shared.wrong.lock().unwrap().push(wrong);
                    return;
                }
            }
        }
    }
}
