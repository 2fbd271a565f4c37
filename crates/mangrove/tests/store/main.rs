//! `mangrove store` under clients and faults: its process is killed, stopped and cut off while many write, read and watch, and
//! everything that anybody was told has to be what an etcd could have told ([`testkit::history`]).
//!
//! `STORE_ROUNDS=n` plays so many rounds, `STORE_SEED=n` begins with another one. `STORE_PROGRAM=etcd` plays against Debian's
//! etcd: its 3.4.23 does not pass, since its progress may run ahead of its events (etcd#15220).
#![allow(clippy::disallowed_methods, reason = "these tests live in the real world")]

mod clients;
mod doors;
mod process;
mod proxy;
mod round;
mod saved;
mod watchers;

use testkit::history::{linear, past_reads, watch, without_undone};

use round::Round;

/// Of each kind, in one round.
const FAULTS: usize = 3;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_its_process_the_store_has_one_history() {
    let first = number("STORE_SEED", 1);
    for seed in first..first + number("STORE_ROUNDS", 1) {
        let Some(round) = Round::start(seed).await else { return };
        let told = round.play(FAULTS).await;

        told.log.is_whole().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let operations = without_undone(&told.operations, &told.log);
        let unknown = told.operations.len() - told.answered;
        println!(
            "seed {seed}: {} answered, {unknown} cut off, {} reads of the past, {} watches, revision {}",
            told.answered,
            told.past_reads.len(),
            told.watches.len(),
            told.log.last()
        );
        if let Err(violation) = linear::check(&operations, Some(&told.log)) {
            panic!("seed {seed}: {violation}");
        }
        past_reads(&told.past_reads, &told.log).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let broken = watch::check_all(&told.watches, &told.log);
        assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
    }
}
