//! What takes too long for every change: thousands of kills and seeds, and the soak. Each suite is a test that also runs, short,
//! in `cargo xtask test`; here it gets its whole count by an environment variable.

use std::{process::Command, time::Instant};

use crate::{command, packages};

struct Suite {
    name: &'static str,
    minutes: u32,
    counts: &'static [(&'static str, &'static str)],
    package: &'static str,
    filter: &'static str,
}

const SUITES: [Suite; 8] = [
    Suite {
        name: "servers, agents, supervisors and containers killed at 200 moments under load",
        minutes: 35,
        counts: &[("MANGROVE_CRASH_ROUNDS", "200")],
        package: "mangrove",
        filter: "test(killed_at_random_moments)",
    },
    Suite {
        name: "the store over 5,000 histories of crashes on a simulated disk",
        minutes: 20,
        counts: &[("CRASH_SEEDS", "5000")],
        package: "store",
        filter: "test(e01_e02_e04_nothing_acknowledged_is_lost)",
    },
    Suite {
        name: "the store's process killed at each sync and change of names",
        minutes: 5,
        counts: &[("KILL_STEP", "1")],
        package: "store",
        filter: "test(e01_killed_at_each_sync)",
    },
    Suite {
        name: "power losses of a disk under the store",
        minutes: 5,
        counts: &[("POWER_ROUNDS", "200")],
        package: "store",
        filter: "test(e02_power_that_goes)",
    },
    Suite {
        name: "the store beside a real etcd, 10,000 sequences of other seeds",
        minutes: 20,
        counts: &[("DIFFERENTIAL_FIRST", "1000"), ("DIFFERENTIAL_SEQUENCES", "10000")],
        package: "etcd",
        filter: "binary(differential)",
    },
    Suite {
        name: "hashes of the store and of a real etcd after 1,000,000 operations",
        minutes: 5,
        counts: &[("HASH_OPERATIONS", "1000000"), ("HASH_SEED", "8")],
        package: "etcd",
        filter: "binary(hash_parity)",
    },
    Suite {
        name: "the store under faults, 200 histories judged",
        minutes: 30,
        counts: &[("STORE_SEED", "1000"), ("STORE_ROUNDS", "200")],
        package: "mangrove",
        filter: "binary(store)",
    },
    Suite {
        name: "tenants come and go for an hour",
        minutes: 61,
        counts: &[("MANGROVE_SOAK_SECONDS", "3600")],
        package: "mangrove",
        filter: "test(tenants_that_come_and_go)",
    },
];

/// Runs the suites whose names hold all of `words`; all of them without words.
pub fn run(words: &[String]) -> Result<(), String> {
    packages::install(&[packages::BUILD, packages::DEMO, packages::TEST])?;
    let chosen: Vec<&Suite> = SUITES
        .iter()
        .filter(|suite| words.iter().all(|word| suite.name.contains(word.as_str())))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no suite's name has all of: {}", words.join(" ")));
    }
    let minutes: u32 = chosen.iter().map(|suite| suite.minutes).sum();
    println!("{} suites, about {minutes} minutes on two cores:", chosen.len());
    for suite in &chosen {
        println!("  {:>3} min  {}", suite.minutes, suite.name);
    }
    for suite in chosen {
        println!("==> {}", suite.name);
        let begin = Instant::now();
        let mut cargo = Command::new("cargo");
        cargo
            .args([
                "nextest",
                "run",
                "--locked",
                "--package",
                suite.package,
                "-E",
                suite.filter,
            ])
            .args([
                "--success-output",
                "final",
                "--config-file",
                ".config/nextest-long.toml",
            ])
            .envs(suite.counts.iter().copied());
        command::run(&mut cargo).map_err(|error| format!("{}: {error}", suite.name))?;
        println!("    took {} s", begin.elapsed().as_secs());
    }
    Ok(())
}
