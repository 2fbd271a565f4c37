//! `mangrove agent`: this machine as a node of a platform that is elsewhere.

use anyhow::Context;

use crate::{
    cli,
    platform::{Layout, Platform},
    progress::Progress,
    running::{Ending, TOLD_WHILE_STARTING, Told, follow_with_log, on_all_cores},
    wiring::{agent::Agent, checks},
};

pub fn run(options: cli::Agent) -> anyhow::Result<()> {
    checks::machine()?;
    Platform::ensure_none_runs()?;
    follow_with_log(false);
    on_all_cores(serve(options, Progress::to_terminal()))
}

async fn serve(options: cli::Agent, progress: Progress) -> anyhow::Result<()> {
    let mut ending = Ending::listen()?;
    let layout = Layout::of(&options.data_dir);
    layout.make()?;
    let agent = ending.unless_told(Agent::open(&options, &layout, &progress)).await?;
    let agent = agent.context(TOLD_WHILE_STARTING)?;
    progress.ready(&format!("kubectl get node {}", agent.name()));
    if ending.told().await == Told::ByPerson {
        eprintln!("the agent ends; containers run on until `mangrove down`");
    }
    agent.close().await;
    Ok(())
}
