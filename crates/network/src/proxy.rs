//! ClusterIP Services by nftables: one chain a Service port, found by a map, so that a change touches one chain however many
//! Services there are.

pub mod ruleset;

use std::{collections::BTreeMap, process::Stdio, sync::Arc};

use tokio::{io::AsyncWriteExt, process::Command, sync::Mutex};

use crate::{Error, Options};
pub use ruleset::{Affinity, Protocol, Service, ServicePort, Target};

/// The kernel's rules for Services. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    /// What the kernel has.
    applied: Arc<Mutex<BTreeMap<ServicePort, Service>>>,
}

impl Proxy {
    /// Replaces whatever table of ours is there by one without Services.
    pub async fn start(options: &Options) -> Result<Proxy, Error> {
        run(&ruleset::base(options)).await?;
        Ok(Proxy {
            applied: Arc::default(),
        })
    }

    /// Makes the kernel's rules those of `wanted`, in one transaction of what differs.
    pub async fn apply(&self, wanted: BTreeMap<ServicePort, Service>) -> Result<(), Error> {
        let mut applied = self.applied.lock().await;
        let change = ruleset::change(&applied, &wanted);
        if !change.is_empty() {
            run(&change).await?;
            *applied = wanted;
        }
        Ok(())
    }
}

/// Removes the table; nothing there is fine.
pub async fn remove() -> Result<(), Error> {
    run(&ruleset::remove()).await
}

/// One transaction of nft.
async fn run(script: &str) -> Result<(), Error> {
    let mut child = Command::new(nft())
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::NoNft)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).await.map_err(Error::NoNft)?;
    }
    let output = child.wait_with_output().await.map_err(Error::NoNft)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Refused(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Debian puts it where a user's path may not lead.
fn nft() -> &'static str {
    if std::path::Path::new("/usr/sbin/nft").exists() {
        "/usr/sbin/nft"
    } else {
        "nft"
    }
}
