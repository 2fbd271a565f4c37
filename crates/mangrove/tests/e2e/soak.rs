//! Tenants with Pods come and go for a long time beside one that stays, and everything stays as it was: memory and
//! descriptors of the server and of the supervisors, and what the machine and the data directory hold.
//!
//! `MANGROVE_SOAK_SECONDS` says for how long.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use testkit::{kubectl::Kubectl, platform::Platform, said::PATIENCE, vitals::Vitals};

use crate::{apply_web, platform_with_image, rolled_out};

/// A sign of life in every run; `cargo xtask long` asks for an hour.
const SECONDS: u64 = 20;
/// A round begins no sooner after the one before: history has as much in it at the end as at the beginning, whatever else
/// the machine does meanwhile.
const ROUND_TAKES: Duration = Duration::from_secs(10);
/// History is kept for some minutes and caches fill: memory is compared from here on.
const SETTLED: Duration = Duration::from_secs(1200);
/// A comparison of memory needs so many samples.
const SAMPLES_MIN: usize = 20;
/// How much more memory the second half may need at its least than the first: what an allocator's luck amounts to.
const GROWTH_MAX_PERCENT: u64 = 5;
/// A checkpoint of the store opens some files, and melts old ones down.
const VALUE_FILES_MAX: u64 = 16;
/// A sample goes to the output this often.
const SHOWN_EVERY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    server: Vitals,
    /// Of the server's descriptors, those of the store's files of values.
    value_files: u64,
    /// Of the Pods that stay.
    supervisors: Vitals,
}

/// One number of a sample.
type Measure = fn(&Sample) -> u64;

#[test]
fn tenants_that_come_and_go_leave_memory_and_descriptors_flat() {
    let Some(platform) = platform_with_image() else {
        return;
    };
    let seconds = std::env::var("MANGROVE_SOAK_SECONDS").ok();
    let duration = Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(SECONDS));
    let stays = platform.tenant("stays");
    apply_web(&stays);
    let supervisors = platform.supervisors();
    // What is made once, for the first that needs it, belongs to the beginning.
    come_and_go(&platform, &stays, 0);
    let before = held(&platform);

    let begin = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut shown = Duration::ZERO;
    for round in 1.. {
        let round_begin = Instant::now();
        come_and_go(&platform, &stays, round);
        nothing_is_left(&platform, &before);
        assert_eq!(
            platform.supervisors(),
            supervisors,
            "Pods that stay keep their supervisors"
        );
        let sample = sample(&platform, &supervisors, begin);
        if samples.is_empty() || sample.at >= shown + SHOWN_EVERY {
            println!("round {round}: {sample:?}");
            shown = sample.at;
        }
        samples.push(sample);
        if sample.at >= duration {
            break;
        }
        std::thread::sleep(ROUND_TAKES.saturating_sub(round_begin.elapsed()));
    }

    let last = samples[samples.len() - 1];
    println!("{} rounds in {:?}; last {last:?}", samples.len(), last.at);
    // A round's connections may be closing while a sample is taken, not those of all rounds of a half.
    flat(&samples, "descriptors of the server", 2, |sample| {
        sample.server.descriptors - sample.value_files
    });
    let most = samples.iter().map(|sample| sample.value_files).max();
    assert!(most <= Some(VALUE_FILES_MAX), "the store has {most:?} files of values");
    flat(&samples, "descriptors of supervisors", 0, |sample| {
        sample.supervisors.descriptors
    });
    flat(&samples, "threads of the server", 16, |sample| sample.server.threads);
    let settled: Vec<Sample> = samples.iter().copied().filter(|sample| sample.at >= SETTLED).collect();
    if settled.len() >= SAMPLES_MIN {
        let memory: [(&str, Measure); 4] = [
            ("resident memory of the server", |sample| sample.server.resident_kib),
            ("allocated memory of the server", |sample| sample.server.anonymous_kib),
            ("resident memory of supervisors", |sample| {
                sample.supervisors.resident_kib
            }),
            ("allocated memory of supervisors", |sample| {
                sample.supervisors.anonymous_kib
            }),
        ];
        for (what, of) in memory {
            let allowed = least(&settled, of) * GROWTH_MAX_PERCENT / 100;
            flat(&settled, what, allowed, of);
        }
    }
    platform.finish();
}

/// A tenant is made, uses what there is, and is deleted while its Pods run; the one that stays is used too.
fn come_and_go(platform: &Platform, stays: &Kubectl, round: usize) {
    // Never the same name twice: what is kept by name has to go too.
    let name = format!("soak-{round}");
    let tenant = platform.tenant(&name);
    apply_web(&tenant);
    let pod = tenant.names(&["pods"]).remove(0);
    tenant.run(&["delete", "pod", &pod]);
    rolled_out(&tenant, "web");
    for tenant in [&tenant, stays] {
        assert_eq!(tenant.run(&["exec", "deployment/web", "--", "echo", "here"]), "here\n");
        assert!(tenant.run(&["logs", "deployment/web"]).contains("serves on 8080"));
        tenant.run(&["label", "--overwrite", "deployment/web", &format!("round={round}")]);
    }
    platform.run(&["tenant", "delete", &name]);
    fs::remove_file(platform.kubeconfig(&name)).expect("it was written with the tenant");
}

/// How much the machine and the data directory hold, by kind.
fn held(platform: &Platform) -> BTreeMap<String, usize> {
    let mut held = platform.machine().footprint().counts();
    for room in ["runtime", "node"] {
        for folder in folders(&platform.data_dir().join(room)) {
            let name = folder.file_name().expect("it was listed").to_string_lossy();
            held.insert(format!("{room}/{name}"), entries(&folder));
        }
    }
    held
}

#[track_caller]
fn nothing_is_left(platform: &Platform, before: &BTreeMap<String, usize>) {
    let begin = Instant::now();
    loop {
        let now = held(platform);
        if now == *before {
            return;
        }
        let more: Vec<_> = now
            .iter()
            .filter(|(kind, count)| before.get(*kind) != Some(count))
            .collect();
        assert!(
            begin.elapsed() < PATIENCE,
            "left behind by a tenant: {more:?}, before {before:?}\n{:#?}",
            platform.machine().footprint()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn sample(platform: &Platform, supervisors: &[u32], begin: Instant) -> Sample {
    Sample {
        at: begin.elapsed(),
        server: Vitals::of(platform.pid()).expect("the server runs"),
        value_files: value_files(platform.pid()),
        supervisors: supervisors
            .iter()
            .map(|pid| Vitals::of(*pid).expect("it was seen to run"))
            .sum(),
    }
}

fn value_files(pid: u32) -> u64 {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let files = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let is_of_values = |file: &Path| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("values-"))
    };
    files.filter(|file| is_of_values(file)).count() as u64
}

/// The second half has at its least no more than the first, but for `slack`.
#[track_caller]
fn flat(samples: &[Sample], what: &str, slack: u64, of: Measure) {
    let (earlier, later) = samples.split_at(samples.len() / 2);
    if earlier.len() < 2 {
        return;
    }
    let (from, to) = (least(earlier, of), least(later, of));
    println!("{what}: {from}, then {to}");
    assert!(to <= from + slack, "{what} grow from {from} to {to}: {samples:#?}");
}

fn least(samples: &[Sample], of: Measure) -> u64 {
    samples.iter().map(of).min().unwrap_or(0)
}

fn folders(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}
