//! Where planes are kept: the store in the data directory, or an etcd.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use anyhow::Context;
use keyspace::{Followed, Keyspace};
use store::{OpenError, Store, StoreOptions};
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
    pub async fn open(options: &cli::Etcd, layout: &Layout, world: &World) -> anyhow::Result<Storage> {
        if options.etcd_servers.is_empty() {
            keep_to_root(&layout.store())?;
            let store = Store::open(StoreOptions::new(layout.store(), world.clone())).map_err(what_to_do)?;
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

/// What is in the store is every tenant's: its Secrets, and the keys of its CA.
fn keep_to_root(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)))
        .with_context(|| {
            format!(
                "can't open the store: {}: is the disk there, and may it be written? Or choose another by --data-dir",
                folder.display()
            )
        })
}

/// The store says what is wrong; what a person can do about it is said here.
fn what_to_do(error: OpenError) -> anyhow::Error {
    let advice = match &error {
        OpenError::InUse { .. } => "end that process by `mangrove down`, or choose another by --data-dir",
        OpenError::OtherFormat { found, known, .. } if found > known => "use a newer version of this program",
        OpenError::OtherFormat { .. } => "use the older version of this program that wrote it",
        OpenError::Corrupt { .. } => "nothing was changed: restore a backup, or choose another by --data-dir",
        OpenError::Io { .. } => "is the disk there, and may it be written? Or choose another by --data-dir",
    };
    anyhow::anyhow!("can't open the store: {error}: {advice}")
}

async fn etcd_keyspace(options: &cli::Etcd, prefix: &str, world: &World) -> anyhow::Result<Arc<dyn Keyspace>> {
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
