//! `mangrove tenancy`: tenants on a Kubernetes that runs already. Planes here, Pods there.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::{cli, platform::Layout, wiring::beside::Beside};

pub fn run(options: cli::Tenancy) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,h2=warn,hyper=warn,rustls=warn,tower=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(serve(options))
}

async fn serve(options: cli::Tenancy) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let layout = Layout::of(&options.data_dir);
    std::fs::create_dir_all(&layout.data_dir)
        .with_context(|| format!("can't make the data directory {}", layout.data_dir.display()))?;
    let beside = tokio::select! {
        beside = Beside::open(&options, &layout) => beside?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    println!("ready: tenants' APIs are served at {}", beside.server());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    beside.close().await;
    Ok(())
}
