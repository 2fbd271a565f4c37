//! `mangrove up`: the whole platform in one process tree.

use std::{fs::File, io::Write};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli, detach,
    platform::{Layout, Platform},
    progress::Progress,
    wiring::{checks, house::House},
};

pub fn run(options: cli::Up) -> anyhow::Result<()> {
    checks::machine()?;
    let recorded = Platform::recorded()?;
    recorded.iter().for_each(Platform::wait_if_killed);
    if let Some(platform) = recorded.filter(Platform::is_alive) {
        bail!(
            "a platform runs on this machine already (process {}, data directory {}): end it by `mangrove down`",
            platform.pid,
            platform.data_dir.display()
        );
    }
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
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(serve(options, progress));
    if let (Err(error), Some(mut waiting)) = (&ran, waiting) {
        // The one who waits shows it; if nobody does any more, the log has it.
        let _ = writeln!(waiting, "{}{error:#}", detach::ERROR);
    }
    ran
}

async fn serve(options: cli::Up, progress: Progress) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let layout = Layout::of(&options.data_dir);
    std::fs::create_dir_all(&layout.data_dir)
        .with_context(|| format!("can't make the data directory {}", layout.data_dir.display()))?;
    let house = tokio::select! {
        house = House::open(&options, &layout, &progress) => house?,
        _ = terminate.recv() => bail!("it was told to end while it was starting"),
        _ = interrupt.recv() => bail!("it was told to end while it was starting"),
    };
    progress.ready(&format!(
        "kubectl --kubeconfig {} get nodes",
        layout.admin_kubeconfig().display()
    ));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {
            eprintln!("the server ends; containers run on until `mangrove down`");
        }
    }
    house.close().await;
    Ok(())
}

/// Warnings for a person at the terminal, all that happens into the log of a detached platform. `RUST_LOG` decides otherwise.
pub fn follow_with_log(detached: bool) {
    let default = if detached {
        "info,h2=warn,hyper=warn,rustls=warn,tower=warn"
    } else {
        "warn"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!detached)
        .init();
}
