//! Tenants come and go for a long time, and the server stays as it was: memory and descriptors.

use std::{
    fs,
    time::{Duration, Instant},
};

use testkit::platform::Platform;

use crate::{platform_with_image, rolled_out};

/// A sign of life in every run; `cargo xtask long` asks for an hour.
const SECONDS: u64 = 20;
/// Memory is compared between runs that are long enough for caches and history to have filled.
const SETTLED: Duration = Duration::from_secs(1200);

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "mangrove.test/web:1", imagePullPolicy: Never, command: [/bin/busybox, sleep, "1000"]}]
"#;

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
}

#[test]
fn tenants_that_come_and_go_leave_memory_and_descriptors_flat() {
    let Some(platform) = platform_with_image() else {
        return;
    };
    let seconds = std::env::var("MANGROVE_SOAK_SECONDS").ok();
    let duration = Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(SECONDS));
    let begin = Instant::now();
    let mut samples = Vec::new();

    for round in 0.. {
        let name = format!("soak-{}", round % 3);
        let tenant = platform.tenant(&name);
        tenant.apply(WEB);
        rolled_out(&tenant, "web");
        platform.run(&["tenant", "delete", &name]);
        samples.push(sample(&platform, begin));
        if begin.elapsed() >= duration {
            break;
        }
    }

    let last = samples[samples.len() - 1];
    println!(
        "{} rounds in {:?}; first {:?}, last {last:?}",
        samples.len(),
        begin.elapsed(),
        samples[0]
    );
    let half = samples.len() / 2;
    let least = |part: &[Sample], of: fn(&Sample) -> u64| part.iter().map(of).min().unwrap_or(0);
    if half >= 2 {
        // One round's connections may be closing while a sample is taken, not those of all rounds of a half.
        let of_descriptors = |sample: &Sample| sample.descriptors as u64;
        let (earlier, later) = samples.split_at(half);
        assert!(
            least(later, of_descriptors) <= least(earlier, of_descriptors) + 2,
            "descriptors grow: {samples:#?}"
        );
        let of_threads = |sample: &Sample| sample.threads as u64;
        assert!(
            least(later, of_threads) <= least(earlier, of_threads) + 16,
            "threads grow: {samples:#?}"
        );
    }
    let settled: Vec<Sample> = samples.iter().copied().filter(|sample| sample.at >= SETTLED).collect();
    if settled.len() >= 10 {
        let (earlier, later) = settled.split_at(settled.len() / 2);
        let of_memory = |sample: &Sample| sample.resident_kib;
        let (earlier, later) = (least(earlier, of_memory), least(later, of_memory));
        assert!(
            later <= earlier + earlier / 10,
            "memory grows from {earlier} to {later} KiB: {settled:#?}"
        );
    }
    platform.finish();
}

fn sample(platform: &Platform, begin: Instant) -> Sample {
    let process = format!("/proc/{}", platform.pid());
    let rollup = fs::read_to_string(format!("{process}/smaps_rollup")).unwrap();
    let resident = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    Sample {
        at: begin.elapsed(),
        resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count(),
        threads: fs::read_dir(format!("{process}/task")).unwrap().count(),
    }
}
