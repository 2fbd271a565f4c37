//! `mangrove store`: the store alone, as an etcd, beside any Kubernetes. Flags have etcd's names where they mean the same.

mod flags;
mod members;
mod snapshot;
mod tls;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::{Args, Subcommand};
use etcd::server::{Doors, Listener, Members, Serves, serve};
use keyspace::index::Limits;
use store::{OpenError, StoreOptions, ValueOptions};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use world::World;

use crate::running::{Ending, on_all_cores};
use flags::{Serve, Url};
use members::{ByCertificate, Opened};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Store {
    #[command(subcommand)]
    command: Option<StoreCommand>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Save and restore all of a store, to and from etcd's own file format
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
}

pub fn run(store: Store) -> anyhow::Result<()> {
    on_all_cores(async {
        match store.command {
            Some(StoreCommand::Snapshot(command)) => snapshot::run(command).await,
            None => serve_until_told(store.serve).await,
        }
    })
}

/// The keyspace of those who come without one of their own.
const DEFAULT_KEYSPACE: &str = "etcd";

async fn serve_until_told(flags: Serve) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let dir = flags
        .data_dir
        .clone()
        .context("--data-dir is needed: where the store is kept")?;
    let world = World::real();
    let store = open(&flags, dir, &world)?;
    let opened = Arc::new(Opened::new(store, flags.clone(), world.clone())?);
    let tls = tls::acceptor(&flags.tls).context("the TLS files can't be used")?;
    let mut tasks = JoinSet::new();

    let default: Arc<dyn Members> = if flags.keyspace_by_client_cert {
        anyhow::ensure!(
            flags.tls.client_cert_auth,
            "--keyspace-by-client-cert needs --client-cert-auth: who could be told apart otherwise?"
        );
        Arc::new(ByCertificate(opened.clone()))
    } else {
        Arc::new(opened.member(DEFAULT_KEYSPACE).await?)
    };
    let mut doors = Vec::new();
    for url in &flags.listen_client_urls {
        doors.push((url.clone(), default.clone(), Serves::All));
    }
    for (name, url) in &flags.keyspace {
        doors.push((url.clone(), Arc::new(opened.member(name).await?), Serves::All));
    }
    for url in &flags.listen_metrics_urls {
        doors.push((url.clone(), default.clone(), Serves::Metrics));
    }
    for (url, members, serves) in doors {
        let doors = Doors {
            tls: match (&url, &tls) {
                (Url::Https(_), Some(tls)) => Some(tls.clone()),
                (Url::Https(address), None) => anyhow::bail!("https://{address} needs --cert-file and --key-file"),
                _ => None,
            },
            streams_max: flags.max_concurrent_streams,
            serves,
        };
        let listener = listen(&url).await?;
        tasks.spawn(serve(listener, doors, members));
        tracing::info!("ready to serve client requests on {url}");
    }

    Ending::listen()?.told().await;
    // Connections first: what they wait for is answered, or was never acknowledged.
    tasks.shutdown().await;
    drop(opened);
    Ok(())
}

fn open(flags: &Serve, dir: PathBuf, world: &World) -> anyhow::Result<store::Store> {
    let limits = Limits {
        // Only who uses a keyspace compacts it.
        history_revisions_max: usize::MAX,
        history_bytes_max: usize::MAX,
        quota_bytes_max: flags.quota_bytes(),
    };
    let values = ValueOptions {
        memory_bytes: flags.value_memory_bytes,
        ..ValueOptions::default()
    };
    let opened = store::Store::open(StoreOptions {
        limits,
        values,
        ..StoreOptions::new(dir, world.clone())
    });
    opened.map_err(|error| match error {
        OpenError::InUse { .. } => anyhow::anyhow!("{error}: end it, or choose another by --data-dir"),
        OpenError::Corrupt { .. } => {
            anyhow::anyhow!("{error}: nothing was changed; restore a snapshot into another --data-dir")
        }
        other => other.into(),
    })
}

async fn listen(url: &Url) -> anyhow::Result<Listener> {
    let failed = || format!("can't listen on {url}");
    Ok(match url {
        Url::Http(address) | Url::Https(address) => {
            Listener::Tcp(TcpListener::bind(address).await.with_context(failed)?)
        }
        Url::Unix(path) => {
            // Left by one that was killed; a live one would hold the data directory.
            let _ = std::fs::remove_file(path);
            Listener::Unix(UnixListener::bind(path).with_context(failed)?)
        }
    })
}
