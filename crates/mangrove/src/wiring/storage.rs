//! Where planes are kept: the store in the data directory, or an etcd.

use std::sync::Arc;

use anyhow::Context;
use keyspace::{Followed, Keyspace};
use store::{Store, StoreOptions};
use world::World;

use crate::{cli, platform::Layout};

/// The two keyspaces of the platform, and what keeps them open.
pub struct Storage {
    /// All tenants' planes, and the records of planes and addresses.
    pub shared: Arc<dyn Keyspace>,
    /// The super plane alone.
    pub root: Arc<dyn Keyspace>,
    _store: Option<Store>,
}

/// Where the keyspaces are in an etcd; neither is inside the other. An upstream kube-apiserver finds the super plane's objects with
/// `--etcd-prefix=/mangrove/super/registry`.
const SHARED_PREFIX: &str = "/mangrove/shared";
const ROOT_PREFIX: &str = "/mangrove/super";

impl Storage {
    pub async fn open(options: &cli::Up, layout: &Layout, world: &World) -> anyhow::Result<Storage> {
        if options.etcd_servers.is_empty() {
            let store = Store::open(StoreOptions::new(layout.store(), world.clone()))
                .with_context(|| format!("can't open the store in {}", layout.store().display()))?;
            return Ok(Storage {
                shared: store.keyspace("shared").await.context("opening the shared keyspace")?,
                root: store
                    .keyspace("super")
                    .await
                    .context("opening the super plane's keyspace")?,
                _store: Some(store),
            });
        }
        Ok(Storage {
            shared: etcd_keyspace(options, SHARED_PREFIX, world).await?,
            root: etcd_keyspace(options, ROOT_PREFIX, world).await?,
            _store: None,
        })
    }
}

async fn etcd_keyspace(options: &cli::Up, prefix: &str, world: &World) -> anyhow::Result<Arc<dyn Keyspace>> {
    let read = |file: &Option<std::path::PathBuf>| match file {
        Some(file) => std::fs::read(file)
            .map(Some)
            .with_context(|| format!("can't read {}", file.display())),
        None => Ok(None),
    };
    let servers = options.etcd_servers.join(", ");
    let mut target = etcd::EtcdOptions::new(options.etcd_servers.clone(), prefix);
    target.ca_pem = read(&options.etcd_cafile)?;
    target.certificate_pem = read(&options.etcd_certfile)?;
    target.key_pem = read(&options.etcd_keyfile)?;
    let inner = etcd::EtcdKeyspace::connect(target)
        .await
        .context("is it running, and are its address and certificates right?")?;
    let followed = Followed::start(Arc::new(inner), world.clone()).await;
    Ok(Arc::new(
        followed.with_context(|| format!("can't follow etcd at {servers}"))?,
    ))
}
