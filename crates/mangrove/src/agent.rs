//! `mangrove agent`: this machine as a node of a platform that is elsewhere.

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli,
    platform::{Layout, Platform},
    progress::Progress,
    up,
    wiring::{agent::Agent, checks},
};

pub fn run(options: cli::Agent) -> anyhow::Result<()> {
    checks::machine()?;
    let recorded = Platform::recorded()?;
    recorded.iter().for_each(Platform::wait_if_killed);
    if let Some(platform) = recorded.filter(Platform::is_alive) {
        bail!(
            "a platform runs on this machine already (process {}): end it by `mangrove down`",
            platform.pid
        );
    }
    up::follow_with_log(false);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(serve(options, Progress::to_terminal()))
}

async fn serve(options: cli::Agent, progress: Progress) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let layout = Layout::of(&options.data_dir);
    std::fs::create_dir_all(&layout.data_dir)
        .with_context(|| format!("can't make the data directory {}", layout.data_dir.display()))?;
    let agent = tokio::select! {
        agent = Agent::open(&options, &layout, &progress) => agent?,
        _ = terminate.recv() => bail!("it was told to end while it was starting"),
        _ = interrupt.recv() => bail!("it was told to end while it was starting"),
    };
    progress.ready(&format!("kubectl get node {}", agent.name()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {
            eprintln!("the agent ends; containers run on until `mangrove down`");
        }
    }
    agent.close().await;
    Ok(())
}
