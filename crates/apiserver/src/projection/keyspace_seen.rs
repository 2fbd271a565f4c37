//! A keyspace seen through a lens: what the lens hides is not there, whatever way one looks.

use std::{sync::Arc, time::Duration};

use api::{Object, Status};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use keyspace::{
    Content, Error, Event, Granted, KeyValue, Keyspace, LeaseId, LeaseState, Options, Previous, Range, Ranged, Result,
    Revision, Txn, Txned, Watch, WatchStream, Watched,
};

use super::Lens;
use crate::planes::read_key;

/// Reads only, but for [`Seen::change`]. Holds values of one kind of object.
pub(crate) struct Seen {
    pub source: Arc<dyn Keyspace>,
    pub lens: Arc<dyn Lens>,
}

impl Seen {
    /// Hands an update to the lens, if what is at `key` was last seen to change at `guard`; `None` if it was not.
    pub async fn change(
        &self,
        key: String,
        guard: Revision,
        wanted: &Object,
    ) -> std::result::Result<Option<Revision>, Status> {
        let (_, found) = read_key(&*self.source, key).await?;
        let Some(source) = found else { return Ok(None) };
        let object = Object::from_stored(source.value.clone());
        match show(&*self.lens, source) {
            Some(seen) if seen.mod_revision == guard => self.lens.change(&object, wanted).await.map(Some),
            _ => Ok(None),
        }
    }

    /// What was read before the lens was made may have been seen through another.
    fn check(&self, wanted: Revision) -> Result<()> {
        let oldest = self.lens.since();
        if wanted < oldest {
            return Err(Error::Compacted { wanted, oldest });
        }
        Ok(())
    }
}

fn show(lens: &dyn Lens, mut kv: KeyValue) -> Option<KeyValue> {
    let object = lens.show(&Object::from_stored(kv.value))?;
    kv.value = object.bytes().clone();
    // It may look otherwise since the lens was made.
    kv.mod_revision = kv.mod_revision.max(lens.since());
    Some(kv)
}

#[async_trait]
impl Keyspace for Seen {
    async fn range(&self, range: Range, options: Options) -> Result<Ranged> {
        if let Some(revision) = range.revision {
            self.check(revision)?;
        }
        // What a limit leaves out is told only after the lens: how much it hides must not show.
        let everything = Range {
            limit: None,
            content: Content::Full,
            ..range.clone()
        };
        let ranged = self.source.range(everything, options).await?;
        let mut items: Vec<KeyValue> = ranged
            .items
            .into_iter()
            .filter_map(|kv| show(&*self.lens, kv))
            .collect();
        let count = items.len();
        let more = range.limit.is_some_and(|limit| limit < count);
        match range.content {
            Content::Full => {}
            Content::KeysOnly => items.iter_mut().for_each(|kv| kv.value = Bytes::new()),
            Content::CountOnly => items.clear(),
        }
        items.truncate(range.limit.unwrap_or(usize::MAX));
        Ok(Ranged {
            revision: ranged.revision,
            items,
            count,
            more: more && range.content != Content::CountOnly,
        })
    }

    async fn txn(&self, _: Txn, _: Options) -> Result<Txned> {
        Err(read_only())
    }

    async fn watch(&self, watch: Watch, options: Options) -> Result<WatchStream> {
        if let Some(from) = watch.from {
            // The caller knows all that was before `from`.
            self.check(Revision(from.0.saturating_sub(1)))?;
        }
        let everything = Watch {
            previous: Previous::Return,
            ..watch
        };
        let source = self.source.watch(everything, options).await?;
        let lens = Arc::clone(&self.lens);
        let since = self.lens.since();
        let seen = source
            .take_until(self.lens.replaced())
            .filter_map(move |watched| {
                let seen = match watched {
                    Ok(Watched::Events { revision, events }) => see_all(&*lens, revision, events).transpose(),
                    other => Some(other),
                };
                async move { seen }
            })
            // Ended by its source, or by the lens that does not hold any more: either way the client lists anew.
            .chain(stream::once(async move {
                Err(Error::Compacted {
                    wanted: since,
                    oldest: since,
                })
            }))
            .scan(Going::On, |going, watched| {
                let ended = std::mem::replace(going, if watched.is_err() { Going::Ended } else { Going::On });
                async move { matches!(ended, Going::On).then_some(watched) }
            });
        Ok(seen.boxed())
    }

    async fn request_progress(&self) -> Result<()> {
        self.source.request_progress().await
    }

    async fn compact(&self, _: Revision, _: Options) -> Result<()> {
        Err(read_only())
    }

    async fn grant_lease(&self, _: Option<LeaseId>, _: Duration) -> Result<Granted> {
        Err(read_only())
    }

    async fn revoke_lease(&self, _: LeaseId) -> Result<()> {
        Err(read_only())
    }

    async fn keep_lease(&self, _: LeaseId) -> Result<Duration> {
        Err(read_only())
    }

    async fn lease_state(&self, _: LeaseId) -> Result<LeaseState> {
        Err(read_only())
    }
}

enum Going {
    On,
    Ended,
}

/// The events of one revision as they look through the lens; `None` if nothing of them shows.
fn see_all(lens: &dyn Lens, revision: Revision, events: Vec<Event>) -> Result<Option<Watched>> {
    let mut seen = Vec::new();
    for event in events {
        seen.extend(see(lens, event)?);
    }
    Ok((!seen.is_empty()).then_some(Watched::Events { revision, events: seen }))
}

fn see(lens: &dyn Lens, event: Event) -> Result<Option<Event>> {
    // Without what was there before it can't be said what has appeared or gone, nor may a hidden object's name be told.
    let unknown = |at: Revision| Error::Compacted { wanted: at, oldest: at };
    Ok(match event {
        Event::Put { kv, previous } => {
            let before = match previous {
                Some(previous) => show(lens, previous),
                None if kv.version == 1 => None,
                None => return Err(unknown(kv.mod_revision)),
            };
            let (key, revision) = (kv.key.clone(), kv.mod_revision);
            match (before, show(lens, kv)) {
                (None, None) => None,
                (None, Some(mut now)) => {
                    // To the plane it is new.
                    now.version = 1;
                    now.create_revision = revision;
                    Some(Event::Put {
                        kv: now,
                        previous: None,
                    })
                }
                (Some(before), Some(now)) if before.value == now.value => None,
                (before, Some(kv)) => Some(Event::Put { kv, previous: before }),
                (previous, None) => Some(Event::Delete {
                    key,
                    revision,
                    previous,
                }),
            }
        }
        Event::Delete {
            key,
            revision,
            previous,
        } => {
            let previous = previous.ok_or_else(|| unknown(revision))?;
            show(lens, previous).map(|previous| Event::Delete {
                key,
                revision,
                previous: Some(previous),
            })
        }
    })
}

fn read_only() -> Error {
    Error::Invalid("a projection is read only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, future::BoxFuture};
    use keyspace::{KeyRange, MemoryKeyspace, Op};
    use serde_json::{Value, json};
    use tokio::sync::watch;
    use world::World;

    /// Shows objects labelled `shown`, and of them the label alone.
    struct Labelled {
        since: Revision,
        replaced: watch::Sender<bool>,
    }

    impl Lens for Labelled {
        fn show(&self, object: &Object) -> Option<Object> {
            let label = object.label("shown")?.to_owned();
            Some(Object::from_tree(
                json!({"metadata": {"name": object.name(), "labels": {"shown": label}}}),
            ))
        }

        fn since(&self) -> Revision {
            self.since
        }

        fn replaced(&self) -> BoxFuture<'static, ()> {
            let mut replaced = self.replaced.subscribe();
            async move { drop(replaced.wait_for(|replaced| *replaced).await) }.boxed()
        }
    }

    struct House {
        source: Arc<MemoryKeyspace>,
        lens: Arc<Labelled>,
        seen: Seen,
    }

    fn house(since: u64) -> House {
        let source = Arc::new(MemoryKeyspace::new(World::real()));
        let lens = Arc::new(Labelled {
            since: Revision(since),
            replaced: watch::Sender::new(false),
        });
        let seen = Seen {
            source: source.clone(),
            lens: lens.clone(),
        };
        House { source, lens, seen }
    }

    impl House {
        async fn put(&self, name: &str, labels: Value, secret: &str) {
            let tree = json!({"metadata": {"name": name, "labels": labels}, "spec": {"secret": secret}});
            let txn = Txn {
                success: vec![Op::put(format!("/n/{name}"), tree.to_string())],
                ..Txn::default()
            };
            self.source.txn(txn, Options::default()).await.unwrap();
        }

        async fn delete(&self, name: &str) {
            let txn = Txn {
                success: vec![Op::delete(format!("/n/{name}"))],
                ..Txn::default()
            };
            self.source.txn(txn, Options::default()).await.unwrap();
        }

        async fn watch(&self, from: Option<u64>) -> Result<WatchStream> {
            let watch = Watch {
                keys: KeyRange::prefix("/n/"),
                from: from.map(Revision),
                previous: Previous::Omit,
            };
            self.seen.watch(watch, Options::default()).await
        }
    }

    async fn told(stream: &mut WatchStream) -> String {
        loop {
            match stream.next().await {
                None => return "end".to_owned(),
                Some(Err(error)) => return error.to_string(),
                Some(Ok(Watched::Progress { .. })) => {}
                Some(Ok(Watched::Events { events, .. })) => {
                    let tell = |event: &Event| match event {
                        Event::Put { kv, previous } => {
                            format!("put {} {}", String::from_utf8_lossy(&kv.value), previous.is_some())
                        }
                        Event::Delete { key, previous, .. } => {
                            format!("delete {} {}", String::from_utf8_lossy(key), previous.is_some())
                        }
                    };
                    return events.iter().map(tell).collect::<Vec<_>>().join(", ");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_hidden_is_in_no_range_and_no_count() {
        let house = house(0);
        for (name, labels) in [
            ("a", json!({"shown": "1"})),
            ("b", json!({})),
            ("c", json!({"shown": "1"})),
        ] {
            house.put(name, labels, "s").await;
        }
        let range = Range {
            limit: Some(1),
            ..Range::of(KeyRange::prefix("/n/"))
        };

        let ranged = house.seen.range(range, Options::default()).await.unwrap();

        assert_eq!((ranged.items.len(), ranged.count, ranged.more), (1, 2, true));
        assert!(!String::from_utf8_lossy(&ranged.items[0].value).contains("secret"));
        let hidden = house
            .seen
            .range(Range::of(KeyRange::one("/n/b")), Options::default())
            .await
            .unwrap();
        assert_eq!((hidden.items.len(), hidden.count), (0, 0));
    }

    #[tokio::test]
    async fn objects_appear_and_go_as_the_lens_has_it_and_hidden_changes_are_silent() {
        let house = house(0);
        let mut watch = house.watch(None).await.unwrap();

        house.put("a", json!({}), "1").await;
        house.put("a", json!({"shown": "1"}), "1").await;
        let shown = |label: &str| format!(r#"{{"metadata":{{"labels":{{"shown":"{label}"}},"name":"a"}}}}"#);
        assert_eq!(told(&mut watch).await, format!("put {} false", shown("1")));
        house.put("a", json!({"shown": "1"}), "2").await;
        house.put("a", json!({"shown": "2"}), "2").await;
        assert_eq!(told(&mut watch).await, format!("put {} true", shown("2")));
        house.put("a", json!({}), "2").await;
        assert_eq!(told(&mut watch).await, "delete /n/a true");
        house.delete("a").await;
        house.put("b", json!({"shown": "1"}), "3").await;
        house.delete("b").await;
        assert!(told(&mut watch).await.starts_with("put"));
        assert_eq!(told(&mut watch).await, "delete /n/b true");
    }

    #[tokio::test]
    async fn a_watch_ends_with_its_lens_and_what_was_read_before_a_lens_does_not_go_on() {
        let house = house(3);
        house.put("a", json!({}), "1").await;
        house.put("a", json!({}), "2").await;
        assert!(matches!(house.watch(Some(3)).await, Err(Error::Compacted { .. })));
        let mut watch = house.watch(Some(4)).await.unwrap();

        house.lens.replaced.send_replace(true);

        assert!(told(&mut watch).await.contains("compacted"));
        assert_eq!(told(&mut watch).await, "end");
    }

    #[tokio::test]
    async fn nothing_is_written_through_a_lens() {
        let house = house(0);
        let txn = Txn {
            success: vec![Op::put("/n/a", "{}")],
            ..Txn::default()
        };

        assert!(house.seen.txn(txn, Options::default()).await.is_err());
        assert!(house.seen.compact(Revision(1), Options::default()).await.is_err());
    }
}
