//! How long a Pod takes, as one would measure it with a stopwatch beside CRI. Prints; promises nothing, because tests run
//! on busy machines and unoptimised builds.

#![allow(clippy::disallowed_methods, reason = "a stopwatch needs the real clock")]

mod machine;

use std::time::{Duration, Instant};

use machine::{Machine, container_config, missing};

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_the_first_log_line() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let mut totals: Vec<Duration> = Vec::new();
    for number in 0..11 {
        let name = format!("pod-{number}");
        let begin = Instant::now();
        let sandbox = cri.sandbox(&name).await;
        let made = begin.elapsed();
        let container = cri
            .create(&sandbox, container_config("main", &["sh", "-c", "echo up; sleep 100"]))
            .await;
        let created = begin.elapsed();
        cri.start(&container).await;
        let started = begin.elapsed();
        while cri.log(&name, "main").is_empty() {
            tokio::task::yield_now().await;
        }
        let logged = begin.elapsed();
        eprintln!(
            "sandbox {made:.1?}, create {:.1?}, start {:.1?}, log {:.1?}: {logged:.1?}",
            created - made,
            started - created,
            logged - started
        );
        totals.push(logged);
        cri.remove_sandbox(&sandbox).await;
    }
    totals.sort();
    eprintln!("median {:.1?}", totals[totals.len() / 2]);
    machine.take_down().await;
}
