//! `mangrove up`: the whole platform in one process tree.

use std::{fs::File, io::Write};

use anyhow::Context;

use crate::{
    cli, detach,
    platform::{Layout, Platform},
    progress::Progress,
    running::{Ending, TOLD_WHILE_STARTING, Told, follow_with_log, on_all_cores},
    wiring::{checks, house::House},
};

pub fn run(options: cli::Up) -> anyhow::Result<()> {
    checks::machine()?;
    Platform::ensure_none_runs()?;
    if options.detach {
        return detach::run(&options);
    }
    let pipe = detach::progress_pipe()?;
    follow_with_log(pipe.is_some());
    let waiting = pipe
        .as_ref()
        .map(File::try_clone)
        .transpose()
        .context("keeping the progress pipe")?;
    let progress = pipe.map_or_else(Progress::to_terminal, Progress::to_pipe);
    let ran = on_all_cores(serve(options, progress));
    if let (Err(error), Some(mut waiting)) = (&ran, waiting) {
        // The one who waits shows it; if nobody does any more, the log has it.
        let _ = writeln!(waiting, "{}{error:#}", detach::ERROR);
    }
    ran
}

async fn serve(options: cli::Up, progress: Progress) -> anyhow::Result<()> {
    let mut ending = Ending::listen()?;
    let layout = Layout::of(&options.data_dir);
    layout.make()?;
    let house = ending.unless_told(House::open(&options, &layout, &progress)).await?;
    let house = house.context(TOLD_WHILE_STARTING)?;
    progress.ready(&format!(
        "kubectl --kubeconfig {} get nodes",
        layout.admin_kubeconfig().display()
    ));
    if ending.told().await == Told::ByPerson {
        eprintln!("the server ends; containers run on until `mangrove down`");
    }
    house.close().await;
    Ok(())
}
