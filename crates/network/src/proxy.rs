//! Services and the walls between Pods, by nftables: one chain a Service port, found by a map, and a few elements a Pod, so
//! that a change touches little however many there are.

mod conntrack;
pub mod pods;
pub mod ruleset;
pub mod services;

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
};

use tokio::{io::AsyncWriteExt, process::Command, sync::Mutex};

use crate::{Error, Options};
pub use pods::{Addresses, Circle};
pub use services::{Affinity, Place, Protocol, Service, ServicePort, Target};

/// The kernel's rules. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    wanted: SyncMutex<Wanted>,
    applied: Mutex<Applied>,
}

#[derive(Default)]
struct Wanted {
    /// Counts changes, so that of many who wait for theirs the first one brings all.
    version: u64,
    services: BTreeMap<ServicePort, Service>,
    addresses: Addresses,
}

/// What the kernel has; none while it is not known, be it of an earlier process or after a refusal.
#[derive(Default)]
struct Applied {
    version: u64,
    services: Option<BTreeMap<ServicePort, Service>>,
    addresses: Option<Addresses>,
}

impl Proxy {
    /// Makes the rules of the Pods' door and lets Pods out. Services and Pods that an earlier process has left go on
    /// until the first [`Proxy::apply`] and [`Proxy::set_addresses`].
    pub async fn start(options: &Options) -> Result<Proxy, Error> {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(Error::Forwarding)?;
        let mut applied = Applied::default();
        if let Err(refused @ Error::Refused(_)) = run(&ruleset::base(options)).await {
            // A table of another shape, as an older or newer Mangrove may have made.
            tracing::info!(%refused, "making the table of rules anew");
            run(&ruleset::anew(options, &BTreeMap::new(), &Addresses::default())).await?;
            applied.services = Some(BTreeMap::new());
            applied.addresses = Some(Addresses::default());
        }
        Ok(Proxy {
            inner: Arc::new(Inner {
                options: options.clone(),
                wanted: SyncMutex::default(),
                applied: Mutex::new(applied),
            }),
        })
    }

    /// Makes the kernel's rules for Services those of `wanted`, in one transaction of what differs. The first time sweeps
    /// all others: call it when all Services are known, and after the first [`Proxy::set_addresses`].
    pub async fn apply(&self, wanted: BTreeMap<ServicePort, Service>) -> Result<(), Error> {
        self.bring(|all| all.services = wanted, true).await
    }

    /// Changes what is known of Pods' and nodes' addresses, and completes when the kernel has it. The first time sweeps all
    /// others: say then whatever is there.
    pub async fn set_addresses(&self, change: impl FnOnce(&mut Addresses)) -> Result<(), Error> {
        self.bring(|all| change(&mut all.addresses), false).await
    }

    async fn bring(&self, change: impl FnOnce(&mut Wanted), services_too: bool) -> Result<(), Error> {
        let version = {
            let mut wanted = self.wanted();
            change(&mut wanted);
            wanted.version += 1;
            wanted.version
        };
        let mut applied = self.inner.applied.lock().await;
        if applied.version >= version && (!services_too || applied.services.is_some()) {
            return Ok(());
        }
        let (version, services, addresses) = {
            let wanted = self.wanted();
            let mut services = wanted.services.clone();
            for (port, target) in &wanted.addresses.host_ports {
                // A Service that was there first keeps its place.
                let service = services.entry(*port).or_default();
                if service.targets.is_empty() {
                    service.targets.push(*target);
                }
            }
            (wanted.version, services, wanted.addresses.clone())
        };
        // Until Services are said for the first time, those of an earlier process stay.
        let before = match (&applied.services, services_too) {
            (None, false) => None,
            (known, _) => Some(known.clone()),
        };
        match before {
            None => run(&pods::change(applied.addresses.as_ref(), &addresses)).await?,
            Some(Some(known)) => {
                let change = pods::change(applied.addresses.as_ref(), &addresses)
                    + &services::change(self.inner.options.pods, &known, &services);
                match run(&change).await {
                    Ok(()) => {}
                    // Somebody else has changed the table, `nft flush ruleset` for instance.
                    Err(Error::Refused(reason)) => {
                        tracing::warn!(%reason, "making the table of rules anew");
                        self.anew(&mut applied, &services, &addresses).await?;
                    }
                    Err(error) => return Err(error),
                }
                conntrack::forget_stale(&known, &services).await;
                applied.services = Some(services);
            }
            Some(None) => {
                self.anew(&mut applied, &services, &addresses).await?;
                applied.services = Some(services);
            }
        }
        applied.addresses = Some(addresses);
        applied.version = version;
        Ok(())
    }

    async fn anew(
        &self,
        applied: &mut Applied,
        services: &BTreeMap<ServicePort, Service>,
        addresses: &Addresses,
    ) -> Result<(), Error> {
        *applied = Applied::default();
        run(&ruleset::anew(&self.inner.options, services, addresses)).await
    }

    fn wanted(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the table; nothing there is fine.
pub async fn remove() -> Result<(), Error> {
    run(&ruleset::remove()).await
}

/// One transaction of nft.
async fn run(script: &str) -> Result<(), Error> {
    if script.is_empty() {
        return Ok(());
    }
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
