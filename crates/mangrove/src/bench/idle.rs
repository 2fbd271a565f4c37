//! What the platform costs while nobody uses it.

use std::time::Duration;

use clap::Args;

use super::{
    Common,
    platform::Platform,
    report::{Report, short},
    usage::disk_bytes,
};

#[derive(Args, Clone)]
pub struct Options {
    /// How long to look
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    pub common: Common,
}

/// What was begun before is done by then.
const SETTLE: Duration = Duration::from_secs(3);

pub async fn run(options: &Options, platform: &Platform) -> anyhow::Result<Report> {
    for tenant in ["acme", "globex"] {
        platform.make_tenant(tenant).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = platform.usage()?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let after = platform.usage()?;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let share = cpu / options.seconds as f64 * 100.0;
    let disk = disk_bytes(platform.data_dir());
    let method = format!(
        "The whole platform with two tenants and no Pods, {} s: resident memory and processor time of all its processes.",
        options.seconds
    );
    let mut report = Report::new(method, &["figure", "value"]);
    let mebibytes = |bytes: u64| format!("{} MiB", short(bytes as f64 / f64::from(1 << 20)));
    for (name, value) in [
        ("processes", after.processes.to_string()),
        ("resident", mebibytes(after.resident_bytes)),
        ("resident at the begin", mebibytes(before.resident_bytes)),
        ("processor", format!("{share:.2} % of a core")),
        ("descriptors", after.descriptors.to_string()),
        ("disk", mebibytes(disk)),
    ] {
        report.row([name.to_owned(), value]);
    }
    report.figure("seconds", options.seconds);
    report.figure("processes", after.processes);
    report.figure("resident_bytes", after.resident_bytes);
    report.figure("cpu_percent_of_a_core", share);
    report.figure("descriptors", after.descriptors);
    report.figure("disk_bytes", disk);
    Ok(report)
}
