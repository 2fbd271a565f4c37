//! `mangrove tenancy`: tenants on a Kubernetes that runs already. Planes here, Pods there.

use crate::{
    cli,
    platform::Layout,
    running::{Ending, follow_with_log, on_all_cores},
    wiring::beside::Beside,
};

pub fn run(options: cli::Tenancy) -> anyhow::Result<()> {
    follow_with_log(true);
    on_all_cores(serve(options))
}

async fn serve(options: cli::Tenancy) -> anyhow::Result<()> {
    let mut ending = Ending::listen()?;
    let layout = Layout::of(&options.data_dir);
    layout.make()?;
    let Some(beside) = ending.unless_told(Beside::open(&options, &layout)).await? else {
        return Ok(());
    };
    println!("ready: tenants' APIs are served at {}", beside.server());
    ending.told().await;
    beside.close().await;
    Ok(())
}
