//! Power losses, failing syncs and full disks at random moments, on the simulated disk. After each, what was acknowledged
//! is there, and of what was not, either all of a commit or nothing. A failure prints its seed; `CRASH_SEED=n` runs it
//! alone, `CRASH_SEEDS=n` runs that many.

use std::{
    collections::BTreeMap,
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::StreamExt;
use keyspace::{
    Comparand, Compare, Error, Event, Granted, KeyRange, KeyValue, Keyspace, LeaseId, Op, OpResult, Options, Previous,
    Put, Range, Relation, Revision, Txn, Txned, Watch, Watched,
};
use store::{Commits, Store, StoreOptions, ValueOptions};
use world::{
    Clock, World,
    sim::{Sim, SimRandom},
};

const SEEDS: u64 = 500;
const LIVES: usize = 5;
const BATCHES: usize = 14;
const SPACES: usize = 3;
const KEYS: u64 = 10;
const LEASES: u64 = 3;

/// What one keyspace is, as told by the acknowledged writes. Simple, and knows nothing of the code it checks.
#[derive(Clone, Debug)]
struct Model {
    revision: Revision,
    compacted: Revision,
    /// The keys after each revision since the compacted one.
    states: BTreeMap<Revision, BTreeMap<Bytes, KeyValue>>,
    /// The events of each revision, by key in order of the operations.
    events: BTreeMap<Revision, Vec<Event>>,
    leases: BTreeMap<LeaseId, Duration>,
}

impl Model {
    fn new() -> Model {
        Model {
            revision: Revision(1),
            compacted: Revision(0),
            states: BTreeMap::from([(Revision(1), BTreeMap::new())]),
            events: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    fn now(&self) -> &BTreeMap<Bytes, KeyValue> {
        &self.states[&self.revision]
    }

    fn change(&mut self, changes: Vec<(Bytes, Option<Written>)>) {
        let revision = Revision(self.revision.0 + 1);
        let mut state = self.now().clone();
        let mut events = Vec::new();
        for (key, put) in changes {
            let previous = state.remove(&key);
            match put {
                Some((value, lease)) => {
                    let kv = KeyValue {
                        key: key.clone(),
                        value,
                        create_revision: previous.as_ref().map_or(revision, |old| old.create_revision),
                        mod_revision: revision,
                        version: previous.as_ref().map_or(0, |old| old.version) + 1,
                        lease,
                    };
                    state.insert(key, kv.clone());
                    events.push(Event::Put { kv, previous });
                }
                None if previous.is_some() => events.push(Event::Delete {
                    key,
                    revision,
                    previous,
                }),
                None => {}
            }
        }
        if !events.is_empty() {
            self.revision = revision;
            self.states.insert(revision, state);
            self.events.insert(revision, events);
        }
    }
}

/// A value and its lease.
type Written = (Bytes, Option<LeaseId>);

#[derive(Clone, Debug)]
enum Action {
    Txn(Txn),
    Grant(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
}

impl Action {
    fn random(random: &SimRandom, model: &Model) -> Action {
        let lease = LeaseId(1 + random.below(LEASES) as i64);
        match random.below(20) {
            0 => Action::Grant(lease),
            1 => Action::Revoke(lease),
            2 => Action::Compact(Revision(1 + random.below(model.revision.0 + 1))),
            _ => Action::Txn(random_txn(random, model)),
        }
    }

    /// What the model says the action does; `Err` if it is refused.
    /// With what it tells of what was there before.
    fn apply(&self, model: &mut Model) -> Result<Vec<KeyValue>, ()> {
        let mut told = Vec::new();
        match self {
            Action::Grant(id) => {
                if model.leases.insert(*id, TTL).is_some() {
                    return Err(());
                }
            }
            Action::Revoke(id) => {
                model.leases.remove(id).ok_or(())?;
                let keys = model.now().values().filter(|kv| kv.lease == Some(*id));
                let changes = keys.map(|kv| (kv.key.clone(), None)).collect();
                model.change(changes);
            }
            // What is published when the batch is decided is what it may compact: the store refuses more.
            Action::Compact(revision) => {
                if *revision <= model.compacted || *revision > model.revision {
                    return Err(());
                }
                model.compacted = *revision;
                model.states.retain(|at, _| at >= revision);
                model.events.retain(|at, _| at >= revision);
            }
            Action::Txn(txn) => {
                let holds = txn.compares.iter().all(|compare| {
                    let found = model.now().get(&compare.keys.start);
                    match &compare.comparand {
                        Comparand::Value(value) => found.is_some_and(|kv| kv.value == value),
                        comparand => {
                            let revision = found.map_or(Revision(0), |kv| kv.mod_revision);
                            *comparand == Comparand::ModRevision(revision)
                        }
                    }
                });
                let ops = if holds { &txn.success } else { &txn.failure };
                let unknown_lease =
                    |op: &Op| matches!(op, Op::Put(Put { lease: Some(id), .. }) if !model.leases.contains_key(id));
                if ops.iter().any(unknown_lease) {
                    return Err(());
                }
                for op in ops {
                    let key = match op {
                        Op::Put(put) if put.previous == Previous::Return => Some(&put.key),
                        Op::Delete {
                            keys,
                            previous: Previous::Return,
                        } => Some(&keys.start),
                        Op::Range(range) if range.keys == KeyRange::prefix("") => {
                            told.extend(model.now().values().cloned());
                            None
                        }
                        Op::Range(range) => Some(&range.keys.start),
                        _ => None,
                    };
                    told.extend(key.and_then(|key| model.now().get(key)).cloned());
                }
                let changes = ops.iter().filter_map(|op| match op {
                    Op::Put(put) => Some((put.key.clone(), Some((put.value.clone(), put.lease)))),
                    Op::Delete { keys, .. } => Some((keys.start.clone(), None)),
                    _ => None,
                });
                model.change(changes.collect());
            }
        }
        Ok(told)
    }
}

/// What an answer tells of what was there before.
fn told(answer: Txned) -> Vec<KeyValue> {
    let results = answer.results.into_iter();
    results
        .flat_map(|result| match result {
            OpResult::Range(ranged) => ranged.items,
            OpResult::Put { previous } => previous.into_iter().collect(),
            OpResult::Delete { previous, .. } => previous,
            OpResult::Txn(nested) => told(nested),
        })
        .collect()
}

const TTL: Duration = Duration::from_secs(1000);

fn random_key(random: &SimRandom) -> Bytes {
    format!("k{}", random.below(KEYS)).into()
}

fn random_txn(random: &SimRandom, model: &Model) -> Txn {
    let mut keys = Vec::new();
    for _ in 0..1 + random.below(3) {
        let key = random_key(random);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let compares = if random.chance(40) {
        let found = model.now().get(&keys[0]);
        if random.chance(40) {
            let value = found.map_or(Bytes::new(), |kv| kv.value.clone());
            vec![Compare {
                keys: KeyRange::one(keys[0].clone()),
                relation: Relation::Equal,
                comparand: Comparand::Value(if random.chance(70) { value } else { "other".into() }),
            }]
        } else {
            let at = found.map_or(Revision(0), |kv| kv.mod_revision);
            vec![Compare::unchanged(keys[0].clone(), Revision(at.0 + random.below(2)))]
        }
    } else {
        Vec::new()
    };
    let ops = keys.into_iter().map(|key| {
        let previous = if random.chance(30) {
            Previous::Return
        } else {
            Previous::Omit
        };
        if random.chance(25) {
            let keys = KeyRange::one(key);
            return Op::Delete { keys, previous };
        }
        let mut value = vec![0; random.below(900) as usize];
        world::Random::fill(random, &mut value);
        Op::Put(Put {
            key,
            value: value.into(),
            lease: random.chance(20).then(|| LeaseId(1 + random.below(LEASES) as i64)),
            previous,
            keep: Default::default(),
        })
    });
    Txn {
        compares,
        success: ops.collect(),
        failure: vec![if random.chance(50) {
            Op::get("k0")
        } else {
            Op::Range(Range::of(KeyRange::prefix("")))
        }],
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// For what does not wait: reads, and writes after a step.
fn now<F: Future>(future: F) -> F::Output {
    poll(pin!(future)).expect("it does not wait")
}

/// In most lives values go to the disk, and in some of them not one stays in memory.
fn values(random: &SimRandom) -> ValueOptions {
    ValueOptions {
        memory_bytes: [0, 2000, 1 << 20][random.below(3) as usize],
        apart_bytes_min: random.below(300) as usize,
        keyspace_bytes_min: if random.chance(80) { 0 } else { 8000 },
        file_bytes: 1 << (9 + random.below(6)),
    }
}

fn open(sim: &Sim, random: &SimRandom) -> Option<Store> {
    let options = StoreOptions {
        segment_bytes: 1 << (9 + random.below(6)),
        room_bytes: 1 << random.below(12),
        values: values(random),
        commits: Commits::ByHand,
        ..StoreOptions::new("/data", sim.world())
    };
    match Store::open(options) {
        Ok(store) => Some(store),
        Err(error) => {
            assert!(!sim.disk.has_power(), "a store was refused: {error}");
            None
        }
    }
}

fn spaces(store: &Store) -> Option<Vec<Arc<dyn Keyspace>>> {
    let mut spaces = Vec::new();
    for number in 0..SPACES {
        let name = format!("space-{number}");
        let mut made = pin!(store.keyspace(&name));
        let space = match poll(made.as_mut()) {
            Some(space) => space,
            None => {
                store.step();
                poll(made.as_mut()).expect("a step answers all that wait")
            }
        };
        spaces.push(space.ok()?);
    }
    Some(spaces)
}

/// Some value is on a disk that has no power.
const UNREACHABLE: &str = "unreachable";

/// Whether a keyspace is as the model says; if not, in what it differs.
fn differs(space: &Arc<dyn Keyspace>, model: &Model) -> Option<String> {
    let read = |revision: Option<Revision>| {
        let range = Range {
            revision,
            ..Range::of(KeyRange::prefix(""))
        };
        now(space.range(range, Options::default()))
    };
    let found = match read(None) {
        Ok(found) => found,
        Err(Error::Unavailable(_)) => return Some(UNREACHABLE.into()),
        Err(error) => return Some(format!("the present: {error}")),
    };
    let expected: Vec<KeyValue> = model.now().values().cloned().collect();
    if found.revision != model.revision {
        return Some(format!("revision {} for {}", found.revision, model.revision));
    }
    if found.items != expected {
        return Some(format!("{:?} for {expected:?}", found.items));
    }
    for (revision, state) in &model.states {
        match read(Some(*revision)) {
            Ok(found) if found.items.iter().eq(state.values()) => {}
            Err(Error::Unavailable(_)) => return Some(UNREACHABLE.into()),
            other => return Some(format!("at {revision}: {other:?} for {state:?}")),
        }
    }
    if model.compacted > Revision(1) && read(Some(Revision(model.compacted.0 - 1))).is_ok() {
        return Some(format!("what was compacted at {} can be read", model.compacted));
    }
    for id in (1..=LEASES as i64).map(LeaseId) {
        let expected = model.leases.contains_key(&id).then(|| {
            let attached = model.now().values().filter(|kv| kv.lease == Some(id));
            attached.map(|kv| kv.key.clone()).collect::<Vec<_>>()
        });
        let found = now(space.lease_state(id)).ok().map(|state| state.keys);
        if found != expected {
            return Some(format!("lease {id:?} has {found:?} for {expected:?}"));
        }
    }
    let watch = Watch {
        keys: KeyRange::prefix(""),
        from: Some(model.compacted.max(Revision(1))),
        previous: Previous::Return,
    };
    let mut stream = match now(space.watch(watch, Options::default())) {
        Ok(stream) => stream,
        Err(error) => return Some(format!("no watch: {error}")),
    };
    let mut events = BTreeMap::new();
    while let Some(Some(item)) = poll(pin!(stream.next())) {
        match item {
            Ok(Watched::Events { revision, events: told }) => drop(events.insert(revision, told)),
            Ok(Watched::Progress { .. }) => {}
            Err(Error::Unavailable(_)) => return Some(UNREACHABLE.into()),
            Err(error) => return Some(format!("a watch ended: {error}")),
        }
    }
    (events != model.events).then(|| format!("events {events:?} for {:?}", model.events))
}

struct Run {
    sim: Sim,
    random: SimRandom,
    models: Vec<Model>,
    seed: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        Run {
            sim: Sim::new(seed),
            random: SimRandom::new(seed.wrapping_mul(31) + 7),
            models: vec![Model::new(); SPACES],
            seed,
        }
    }

    fn assert_as(&self, spaces: &[Arc<dyn Keyspace>], models: &[Model], when: &str) {
        for (space, model) in spaces.iter().zip(models) {
            match differs(space, model) {
                Some(what) if what == UNREACHABLE && !self.sim.disk.has_power() => {}
                Some(what) => panic!("seed {}, {when}: {what}", self.seed),
                None => {}
            }
        }
    }

    /// One life of the store, ended by a power loss at a moment chosen before. What was being committed then.
    fn live(&mut self, pending: Option<Vec<Model>>) -> Option<Vec<Model>> {
        if self.random.chance(30) {
            self.sim.disk.lose_power_after(self.random.below(8));
        }
        let Some(store) = open(&self.sim, &self.random) else {
            return pending;
        };
        let Some(spaces) = spaces(&store) else { return pending };
        if let Some(pending) = pending {
            // Whole or not at all, in all keyspaces alike.
            let matching = [&self.models, &pending].into_iter().find(|models| {
                let mut both = spaces.iter().zip(models.iter());
                both.all(|(space, model)| differs(space, model).is_none())
            });
            match matching.cloned() {
                Some(models) => self.models = models,
                None => self.assert_as(&spaces, &self.models, "after a power loss, and not as if done either"),
            }
        } else {
            self.assert_as(&spaces, &self.models, "after a power loss");
        }
        if self.random.chance(80) {
            self.sim.disk.lose_power_after(self.random.below(60));
        } else if self.random.chance(50) {
            self.sim.disk.fail_sync_after(self.random.below(12));
        }
        for _ in 0..BATCHES {
            match self.random.below(12) {
                0 | 1 => drop(store.checkpoint()),
                2 => self.full_disk(&store, &spaces),
                3 => self.sim.clock.advance(Duration::from_millis(self.random.below(500))),
                _ => {
                    if let Err(pending) = self.batch(&store, &spaces) {
                        // Reads go on, and show nothing that is not durable.
                        self.assert_as(&spaces, &self.models, "after a failed commit");
                        return Some(pending);
                    }
                }
            }
            if !self.sim.disk.has_power() {
                break;
            }
        }
        self.assert_as(&spaces, &self.models, "at the end of a life");
        None
    }

    /// Some writes in one commit. The models as they would be, if the commit failed.
    fn batch(&mut self, store: &Store, spaces: &[Arc<dyn Keyspace>]) -> Result<(), Vec<Model>> {
        let mut after = self.models.clone();
        let mut waiting = Vec::new();
        for _ in 0..1 + self.random.below(5) {
            let number = self.random.below(SPACES as u64) as usize;
            let mut action = Action::random(&self.random, &after[number]);
            if let Action::Compact(revision) = &mut action {
                // Only what was published before this batch can be compacted.
                revision.0 = revision.0.min(self.models[number].revision.0);
                if *revision <= Revision(1) {
                    // Nobody can tell afterwards whether it was done.
                    action = Action::Txn(random_txn(&self.random, &after[number]));
                }
            }
            let expected = action.apply(&mut after[number]);
            let space = spaces[number].clone();
            let mut write = Box::pin(async move {
                match action {
                    Action::Txn(txn) => space.txn(txn, Options::default()).await.map(told),
                    Action::Grant(id) => space.grant_lease(Some(id), TTL).await.map(|_: Granted| Vec::new()),
                    Action::Revoke(id) => space.revoke_lease(id).await.map(|()| Vec::new()),
                    Action::Compact(revision) => {
                        let compacted = space.compact(revision, Options::default()).await;
                        compacted.map(|()| Vec::new())
                    }
                }
            });
            match poll(write.as_mut()) {
                None => waiting.push((write, expected)),
                // A store that failed refuses at once.
                Some(Err(Error::Failed(_))) => return Err(self.models.clone()),
                // It depends on a value on a disk that has no power.
                Some(Err(Error::Unavailable(_))) if !self.sim.disk.has_power() => return Err(self.models.clone()),
                Some(other) => panic!("seed {}: answered before it was durable: {other:?}", self.seed),
            }
        }
        store.step();
        let mut failed = false;
        for (mut write, expected) in waiting {
            let answer = poll(write.as_mut()).expect("a step answers all that wait");
            match (&answer, &expected) {
                (Ok(told), Ok(expected)) if told == expected => {}
                (Err(Error::Unknown(_) | Error::Failed(_)), _) => failed = true,
                (Err(Error::Unavailable(_)), _) if !self.sim.disk.has_power() => failed = true,
                (Err(_), Err(())) => {}
                _ => panic!("seed {}: {answer:?} for {expected:?}", self.seed),
            }
        }
        if failed {
            return Err(after);
        }
        self.models = after;
        Ok(())
    }

    /// Nothing is lost and nothing half done while the disk is full; after that, all goes on.
    fn full_disk(&mut self, store: &Store, spaces: &[Arc<dyn Keyspace>]) {
        // A new file of the log has no room made yet; one that could not be left may have.
        let has_room = store.checkpoint().is_err();
        self.sim
            .disk
            .set_capacity(self.sim.disk.used() + self.random.below(300));
        let txn = Txn {
            success: vec![Op::put("k1", vec![1; 400])],
            ..Txn::default()
        };
        let mut write = spaces[0].txn(txn.clone(), Options::default());
        if poll(write.as_mut()).is_none() {
            store.step();
            match poll(write.as_mut()).expect("a step answers all that wait") {
                Err(Error::NoSpace(_)) => self.assert_as(spaces, &self.models, "on a full disk"),
                Err(Error::Unknown(_)) => assert!(!self.sim.disk.has_power() || store.health().is_err()),
                Ok(_) if has_room => {
                    let taken = Action::Txn(txn).apply(&mut self.models[0]);
                    assert_eq!(taken, Ok(Vec::new()), "seed {}", self.seed);
                }
                other => panic!("seed {}: a full disk took it: {other:?}", self.seed),
            }
        }
        let _ = store.checkpoint();
        self.sim.disk.set_capacity(u64::MAX);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn e01_e02_e04_nothing_acknowledged_is_lost_and_nothing_is_half_done() {
    let seeds = match number("CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CRASH_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let mut run = Run::new(seed);
        let mut pending = None;
        for _ in 0..LIVES {
            pending = run.live(pending);
            run.sim.disk.restart();
        }
        // Whatever happened, it can be opened in peace.
        let store = open(&run.sim, &run.random).expect("there is power");
        assert!(spaces(&store).is_some());
    }
}

#[test]
fn the_same_seed_is_the_same_disk() {
    let after = |seed| {
        let mut run = Run::new(seed);
        let mut pending = None;
        for _ in 0..LIVES {
            pending = run.live(pending);
            run.sim.disk.restart();
        }
        let names = world::Disk::list(run.sim.disk.as_ref(), Path::new("/data")).unwrap_or_default();
        let contents = names
            .iter()
            .map(|name| run.sim.disk.contents(&Path::new("/data").join(name)));
        (names.clone(), contents.collect::<Vec<_>>(), run.sim.disk.operations())
    };
    for seed in 0..10 {
        assert_eq!(after(seed), after(seed), "seed {seed}");
    }
}

/// A store on a simulated world, with one keyspace.
fn small(sim: &Sim) -> (Store, Arc<dyn Keyspace>) {
    let store = open(sim, &SimRandom::new(0)).expect("there is power");
    let space = spaces(&store).expect("there is power").remove(0);
    (store, space)
}

fn commit<T>(store: &Store, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    if let Some(done) = poll(future.as_mut()) {
        return done;
    }
    store.step();
    poll(future.as_mut()).expect("a step answers all that wait")
}

fn put(key: &'static str, lease: Option<LeaseId>) -> Txn {
    let put = Put {
        key: key.into(),
        value: "1".into(),
        lease,
        previous: Previous::Omit,
        keep: Default::default(),
    };
    Txn {
        success: vec![Op::Put(put)],
        ..Txn::default()
    }
}

#[test]
fn a_lease_ends_by_the_clock_and_has_its_whole_time_after_a_restart() {
    let sim = Sim::new(1);
    let (store, space) = small(&sim);
    let lease = commit(&store, space.grant_lease(None, Duration::from_secs(10)))
        .unwrap()
        .id;
    commit(&store, space.txn(put("a", Some(lease)), Options::default())).unwrap();
    sim.clock.advance(Duration::from_secs(9));
    store.step();
    assert_eq!(now(space.lease_state(lease)).unwrap().remaining, Duration::from_secs(1));
    drop((store, space));
    sim.disk.restart();

    let (store, space) = small(&sim);
    sim.clock.advance(Duration::from_secs(9));
    store.step();
    assert_eq!(now(space.keep_lease(lease)).unwrap(), Duration::from_secs(10));
    sim.clock.advance(Duration::from_secs(9));
    store.step();
    assert_eq!(now(space.lease_state(lease)).unwrap().keys, ["a"]);
    sim.clock.advance(Duration::from_millis(1001));
    store.step();
    assert_eq!(now(space.lease_state(lease)), Err(Error::NoLease(lease)));
    let found = now(space.range(Range::of(KeyRange::prefix("")), Options::default())).unwrap();
    assert_eq!(found.count, 0);
}

#[test]
fn e03_after_a_failed_sync_writes_are_refused_and_reads_served() {
    let sim = Sim::new(1);
    let (store, space) = small(&sim);
    let acknowledged = commit(&store, space.txn(put("a", None), Options::default()))
        .unwrap()
        .revision;
    sim.disk.fail_sync_after(0);

    let unknown = commit(&store, space.txn(put("b", None), Options::default()));
    let refused = commit(&store, space.txn(put("c", None), Options::default()));

    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    assert!(matches!(refused, Err(Error::Failed(_))), "{refused:?}");
    assert!(store.health().is_err());
    let found = now(space.range(Range::of(KeyRange::prefix("")), Options::default())).unwrap();
    assert_eq!((found.count, found.revision), (1, acknowledged));
}

/// A pause of the whole process is time that went by between two of its steps.
#[test]
fn e09_a_lease_that_ended_in_a_pause_is_not_brought_back() {
    let sim = Sim::new(1);
    let (store, space) = small(&sim);
    let lease = LeaseId(7);
    commit(&store, space.grant_lease(Some(lease), Duration::from_secs(5))).unwrap();
    commit(&store, space.txn(put("a", Some(lease)), Options::default())).unwrap();

    sim.clock.advance(Duration::from_secs(30));

    assert_eq!(now(space.keep_lease(lease)), Err(Error::NoLease(lease)));
    let again = commit(&store, space.grant_lease(Some(lease), Duration::from_secs(5)));
    assert!(again.is_ok(), "the old one ended first: {again:?}");
    let found = now(space.range(Range::of(KeyRange::prefix("")), Options::default())).unwrap();
    assert_eq!(found.count, 0, "and took its key with it");
}

/// The wall clock jumps by an hour to and fro between any two looks at it.
struct Jumping(Arc<dyn Clock>, AtomicU64);

impl Clock for Jumping {
    fn wall(&self) -> SystemTime {
        let hour = Duration::from_secs(3600);
        match self.1.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => self.0.wall() + hour,
            _ => self.0.wall() - hour,
        }
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}

#[test]
fn e08_a_wall_clock_that_jumps_ends_no_lease_and_keeps_none() {
    let sim = Sim::new(1);
    let clock: Arc<dyn Clock> = Arc::new(Jumping(sim.clock.clone(), AtomicU64::new(0)));
    let options = StoreOptions {
        commits: Commits::ByHand,
        ..StoreOptions::new("/data", World { clock, ..sim.world() })
    };
    let store = Store::open(options).unwrap();
    let space = spaces(&store).unwrap().remove(0);
    let (short, long) = (LeaseId(1), LeaseId(2));
    commit(&store, space.grant_lease(Some(short), Duration::from_secs(10))).unwrap();
    commit(&store, space.grant_lease(Some(long), Duration::from_secs(60))).unwrap();

    for _ in 0..9 {
        sim.clock.advance(Duration::from_secs(1));
        store.step();
    }
    assert_eq!(now(space.lease_state(short)).unwrap().remaining, Duration::from_secs(1));
    sim.clock.advance(Duration::from_millis(1100));
    store.step();

    assert_eq!(now(space.lease_state(short)), Err(Error::NoLease(short)));
    assert!(now(space.keep_lease(long)).is_ok());
}

#[test]
fn a_write_that_takes_too_long_has_an_unknown_outcome() {
    let sim = Sim::new(1);
    let (store, space) = small(&sim);
    let options = Options {
        timeout: Some(Duration::from_secs(3)),
        ..Options::default()
    };
    let mut write = space.txn(put("a", None), options);
    assert!(poll(write.as_mut()).is_none());
    sim.clock.advance(Duration::from_secs(3));
    let answer = poll(write.as_mut()).expect("time is up");
    assert!(matches!(answer, Err(Error::Unknown(_))), "{answer:?}");
    store.step();
    assert!(sim.clock.monotonic() >= Duration::from_secs(3));
}
