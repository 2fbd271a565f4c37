//! `mangrove bench ...`: measurements that anyone can repeat. Each starts a platform of its own, in namespaces of its own
//! with a data directory of its own, so that nothing that runs on the machine is touched or measured along.

mod api;
mod idle;
mod image;
mod link;
mod load;
mod planes;
mod platform;
mod pods;
mod report;
mod store;
mod trust;
mod usage;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{cli::Output, running::on_all_cores};

#[derive(Subcommand)]
pub enum Bench {
    /// Tenants' planes: time to the first answered request, memory and disk of each while it is left alone
    Planes(planes::Options),
    /// Creates, gets, lists and watches a second, over TLS
    Api(api::Options),
    /// From a Pod's creation to its running, with the share of each hop
    Pods(pods::Options),
    /// Memory and processor time of a platform with two tenants that nobody uses
    Idle(idle::Options),
    /// Puts, gets, ranges, transactions, watches and leases a second, of one or two running stores or etcds
    Store(store::Options),
}

/// What all of them take.
#[derive(Args, Clone)]
pub struct Common {
    /// In which folder the platform's data directory is made, and removed afterwards: which disk is measured
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub disk: PathBuf,
    #[arg(short, long)]
    pub output: Option<Output>,
}

pub fn run(command: Bench) -> anyhow::Result<()> {
    match command {
        Bench::Planes(options) => measure(&options.common, async |platform| planes::run(&options, platform).await),
        Bench::Api(options) => match &options.kubeconfig {
            Some(file) => {
                let access = identity::kubeconfig::read(file)?;
                let report = on_all_cores(api::run(&options, access, None))?;
                report.print(options.common.output)
            }
            None => measure(&options.common, async |platform| {
                let access = platform.make_tenant("bench").await?;
                api::run(&options, access, Some(platform)).await
            }),
        },
        Bench::Pods(options) => measure(&options.common, async |platform| pods::run(&options, platform).await),
        Bench::Store(options) => on_all_cores(store::run(&options))?.print(options.output),
        Bench::Idle(options) => measure(&options.common, async |platform| idle::run(&options, platform).await),
    }
}

/// Starts a platform, measures, ends the platform whatever came of it, and prints.
fn measure(
    common: &Common,
    work: impl AsyncFnOnce(&platform::Platform) -> anyhow::Result<report::Report>,
) -> anyhow::Result<()> {
    // Threads inherit namespaces: entered before there are any.
    platform::enter_namespaces()?;
    let platform = platform::Platform::start(&common.disk)?;
    let measured = on_all_cores(async {
        tokio::select! {
            measured = work(&platform) => measured,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    });
    let ended = platform.end();
    let report = measured?;
    ended?;
    report.print(common.output)
}
