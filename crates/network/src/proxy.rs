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
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    /// What the kernel has; none while it is not known, be it of an earlier process or after a refusal.
    applied: Mutex<Option<BTreeMap<ServicePort, Service>>>,
}

impl Proxy {
    /// Makes the rules of the Pods' door and lets Pods out. Services that an earlier process has left go on until the
    /// first [`Proxy::apply`].
    pub async fn start(options: &Options) -> Result<Proxy, Error> {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(Error::Forwarding)?;
        let mut applied = None;
        if let Err(refused @ Error::Refused(_)) = run(&ruleset::base(options)).await {
            // A table of another shape, as an older or newer Mangrove may have made.
            tracing::info!(%refused, "making the table of rules anew");
            run(&ruleset::anew(options, &BTreeMap::new())).await?;
            applied = Some(BTreeMap::new());
        }
        Ok(Proxy {
            inner: Arc::new(Inner {
                options: options.clone(),
                applied: Mutex::new(applied),
            }),
        })
    }

    /// Makes the kernel's rules those of `wanted`, in one transaction of what differs. The first time sweeps all
    /// others: call it when all Services are known.
    pub async fn apply(&self, wanted: BTreeMap<ServicePort, Service>) -> Result<(), Error> {
        let mut applied = self.inner.applied.lock().await;
        if let Some(known) = &*applied {
            let change = ruleset::change(known, &wanted);
            if change.is_empty() {
                *applied = Some(wanted);
                return Ok(());
            }
            match run(&change).await {
                Ok(()) => {
                    *applied = Some(wanted);
                    return Ok(());
                }
                // Somebody else has changed the table, `nft flush ruleset` for instance.
                Err(Error::Refused(reason)) => tracing::warn!(%reason, "making the table of rules anew"),
                Err(error) => return Err(error),
            }
        }
        *applied = None;
        run(&ruleset::anew(&self.inner.options, &wanted)).await?;
        *applied = Some(wanted);
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
