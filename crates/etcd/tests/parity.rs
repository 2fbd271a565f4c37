//! The keyspace in memory next to a real etcd: the same random requests, answer by answer. What the index decides, in
//! memory and on disk, is what etcd decides. `PARITY_SEED=n` runs one seed alone.

mod server;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use keyspace::{
    Comparand, Compare, Content, Error, KeyRange, Keyspace, LeaseId, MemoryKeyspace, Op, Options, Previous, Put, Range,
    Relation, Revision, Txn, Watch, Watched,
};
use server::{Etcd, Generation};
use world::{World, sim::SimRandom};

const SEEDS: u64 = 3;
const REQUESTS: usize = 700;
const KEYS: [&str; 7] = ["a", "a/", "a/b", "a/c", "a0", "b", "\u{0}"];

struct Asker {
    random: SimRandom,
    /// About where the keyspace is.
    revision: u64,
}

impl Asker {
    fn one_of<T: Clone>(&self, all: &[T]) -> T {
        all[self.random.below(all.len() as u64) as usize].clone()
    }

    fn key(&self) -> Bytes {
        self.one_of(&KEYS).into()
    }

    fn keys(&self) -> KeyRange {
        match self.random.below(6) {
            0 => KeyRange::prefix(self.one_of(&["", "a", "a/", "b", "z"])),
            1 => KeyRange::between(self.key(), self.key()),
            2 => KeyRange {
                start: self.key(),
                end: std::ops::Bound::Unbounded,
            },
            _ => KeyRange::one(self.key()),
        }
    }

    fn revision(&self) -> Revision {
        Revision(self.revision.saturating_sub(self.random.below(12)) + self.random.below(3))
    }

    fn lease(&self) -> LeaseId {
        LeaseId(1 + self.random.below(3) as i64)
    }

    fn range(&self) -> Range {
        Range {
            keys: self.keys(),
            revision: self
                .random
                .chance(30)
                .then(|| self.revision())
                .filter(|revision| revision.0 > 0),
            limit: self.random.chance(30).then(|| self.random.below(4) as usize),
            content: self.one_of(&[Content::Full, Content::Full, Content::KeysOnly, Content::CountOnly]),
        }
    }

    fn previous(&self) -> Previous {
        self.one_of(&[Previous::Omit, Previous::Return])
    }

    fn compare(&self) -> Compare {
        let comparand = match self.random.below(5) {
            0 => Comparand::ModRevision(self.one_of(&[Revision(0), self.revision()])),
            1 => Comparand::CreateRevision(self.one_of(&[Revision(0), self.revision()])),
            2 => Comparand::Version(self.random.below(4)),
            3 => Comparand::Value(self.one_of(&["", "1", "2", "3"]).into()),
            _ => Comparand::Lease(self.random.chance(50).then(|| self.lease())),
        };
        Compare {
            keys: self.keys(),
            relation: self.one_of(&[Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less]),
            comparand,
        }
    }

    fn op(&self, depth: u64) -> Op {
        match self.random.below(10) {
            0..=4 => Op::Put(Put {
                key: self.key(),
                value: self.one_of(&["", "1", "2", "3"]).into(),
                lease: self.random.chance(15).then(|| self.lease()),
                previous: self.previous(),
                keep: Default::default(),
            }),
            5 | 6 => Op::Delete {
                keys: self.keys(),
                previous: self.previous(),
            },
            7 if depth < 2 => Op::Txn(Box::new(self.txn(depth + 1))),
            _ => Op::Range(self.range()),
        }
    }

    fn txn(&self, depth: u64) -> Txn {
        let some = |limit| 0..self.random.below(limit);
        Txn {
            compares: some(3).map(|_| self.compare()).collect(),
            success: some(4).map(|_| self.op(depth)).collect(),
            failure: some(3).map(|_| self.op(depth)).collect(),
        }
    }
}

/// etcd doesn't tell all that is in an error; which one it is must be the same.
fn comparable<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(Error::Compacted { .. }) => "compacted".into(),
        Err(Error::Future { .. }) => "future".into(),
        Err(Error::Invalid(_)) => "invalid".into(),
        Err(Error::NoLease(_)) => "no lease".into(),
        Err(Error::LeaseExists(_)) => "lease exists".into(),
        Err(other) => panic!("{other}"),
    }
}

/// Which of a transaction's operations is told to be refused was another before 3.6, which is followed.
fn comparable_txn(answer: Result<keyspace::Txned, Error>, theirs: Generation) -> String {
    match answer {
        Err(Error::Compacted { .. } | Error::Future { .. } | Error::Invalid(_) | Error::NoLease(_))
            if theirs == Generation::Before36 =>
        {
            "refused".into()
        }
        answer => comparable(answer),
    }
}

/// The events of everything from `from` up to `last`.
async fn history(keyspace: &dyn Keyspace, from: Revision, last: Revision) -> Vec<String> {
    let watch = Watch {
        keys: KeyRange::prefix(""),
        from: Some(from),
        previous: Previous::Return,
    };
    let mut stream = keyspace.watch(watch, Options::default()).await.expect("it is watched");
    let mut told = Vec::new();
    loop {
        match stream.next().await.expect("it goes on").expect("it goes on") {
            Watched::Progress { .. } => {}
            Watched::Events { revision, events } => {
                told.push(format!("{revision} {events:?}"));
                if revision >= last {
                    return told;
                }
            }
        }
    }
}

async fn compare(seed: u64) {
    let Some(server) = Etcd::start() else { return };
    let far = server.keyspace("/parity/").await;
    let near: Arc<dyn Keyspace> = Arc::new(MemoryKeyspace::new(World::real()));
    let mut asker = Asker {
        random: SimRandom::new(seed),
        revision: 1,
    };
    let mut kept_from = Revision(2);
    let ttl = Duration::from_secs(3600);
    for number in 0..REQUESTS {
        let what = |asked: &dyn std::fmt::Debug| format!("seed {seed}, request {number}: {asked:?}");
        match asker.random.below(20) {
            0 => {
                let id = asker.lease();
                let (ours, theirs) = (
                    near.grant_lease(Some(id), ttl).await,
                    far.grant_lease(Some(id), ttl).await,
                );
                assert_eq!(comparable(ours), comparable(theirs), "{}", what(&("grant", id)));
            }
            1 => {
                let id = asker.lease();
                let (ours, theirs) = (near.revoke_lease(id).await, far.revoke_lease(id).await);
                assert_eq!(comparable(ours), comparable(theirs), "{}", what(&("revoke", id)));
            }
            2 => {
                let revision = Revision(asker.revision().0.saturating_sub(4).max(1));
                let options = Options::default();
                let (ours, theirs) = (
                    near.compact(revision, options.clone()).await,
                    far.compact(revision, options).await,
                );
                if ours.is_ok() {
                    // The one at the compacted revision may be there in part, in etcd.
                    kept_from = Revision(revision.0 + 1);
                }
                assert_eq!(comparable(ours), comparable(theirs), "{}", what(&("compact", revision)));
            }
            3..=8 => {
                let range = asker.range();
                let options = Options::default();
                let (ours, theirs) = (
                    near.range(range.clone(), options.clone()).await,
                    far.range(range.clone(), options).await,
                );
                assert_eq!(comparable(ours), comparable(theirs), "{}", what(&range));
            }
            _ => {
                let txn = asker.txn(0);
                let options = Options::default();
                let (ours, theirs) = (
                    near.txn(txn.clone(), options.clone()).await,
                    far.txn(txn.clone(), options).await,
                );
                if let Ok(done) = &ours {
                    asker.revision = done.revision.0;
                }
                let generation = server.generation;
                assert_eq!(
                    comparable_txn(ours, generation),
                    comparable_txn(theirs, generation),
                    "{}",
                    what(&txn)
                );
            }
        }
    }
    let all = Range::of(KeyRange::prefix(""));
    let last = near.range(all, Options::default()).await.expect("it is read").revision;
    // A last event to wait for.
    let end = Txn {
        success: vec![Op::put("end", "")],
        ..Txn::default()
    };
    let last_of_near = near
        .txn(end.clone(), Options::default())
        .await
        .expect("it is written")
        .revision;
    let last_of_far = far.txn(end, Options::default()).await.expect("it is written").revision;
    assert_eq!(last_of_near, last_of_far);
    assert!(last < last_of_near && last.0 > 100, "{last}");
    let ours = history(near.as_ref(), kept_from, last_of_near).await;
    let theirs = history(&far, kept_from, last_of_far).await;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "seed {seed}: the history");
    }
    assert_eq!(ours.len(), theirs.len(), "seed {seed}: the history");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_index_decides_is_what_etcd_decides() {
    let seeds = match std::env::var("PARITY_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    for seed in seeds {
        compare(seed).await;
    }
}
