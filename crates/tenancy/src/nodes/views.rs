//! What each tenant sees of the nodes now, and since when. One task follows all VirtualClusters; a tenant costs an entry.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{Object, PlaneId, resource};
use client::{Client, Informer, ListOptions, Notice, Tasks};
use futures::future::BoxFuture;
use tokio::sync::watch;
use world::World;

use crate::virtual_cluster::Settings;

/// A plane that is asked has been made for a VirtualCluster, of which is heard soon.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long after a failure the super cluster is asked for its revision again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The views of all tenants. They end when this is dropped.
pub struct NodeViews {
    known: Arc<watch::Sender<Known>>,
    world: World,
    _tasks: Tasks,
}

#[derive(Default)]
struct Known {
    tenants: HashMap<String, Entry>,
    /// At this revision of the super cluster nothing was seen any more by what a tenant that has gone had asked for.
    gone_until: u64,
}

/// What a tenant sees.
#[derive(Clone, PartialEq, Eq)]
enum Entry {
    /// By these settings, at this revision of the super cluster and after.
    Settled(Arc<Settings>, u64),
    /// New settings are known, and the revision from which they hold is being asked for.
    Changing,
    /// Nothing, since its VirtualCluster was not heard of when it asked.
    Blind,
}

/// How one plane sees nodes, until that changes.
#[derive(Clone)]
pub struct NodeView {
    plane: PlaneId,
    tenant: Arc<str>,
    /// `None` of a tenant whose VirtualCluster is not known (yet): it sees no node.
    settings: Option<Arc<Settings>>,
    since: u64,
    known: watch::Receiver<Known>,
}

impl NodeViews {
    /// `clusters` from [`crate::virtual_cluster::follow`], `super_client` for the plane that they are of.
    pub fn start(clusters: Informer, super_client: Client, world: World) -> NodeViews {
        let known = Arc::new(watch::Sender::new(Known::default()));
        let tasks = Tasks::new();
        let follower = Follower {
            clusters,
            client: super_client,
            world: world.clone(),
            changed: known.clone(),
        };
        tasks.spawn(follower.run());
        NodeViews {
            known,
            world,
            _tasks: tasks,
        }
    }

    /// The view of the plane of the tenant by this name. Waits a little while it is not known or just changing; `None` if
    /// the views have ended.
    pub async fn view(&self, plane: PlaneId, tenant: &str) -> Option<NodeView> {
        let mut known = self.known.subscribe();
        let is_settled = |known: &Known| matches!(known.tenants.get(tenant), Some(Entry::Settled(..)));
        let entry = tokio::select! {
            settled = known.wait_for(is_settled) => settled.ok()?.tenants.get(tenant).cloned(),
            () = self.world.clock.sleep(WAIT_MAX) => self.blind(tenant),
        };
        let (settings, since) = match entry {
            Some(Entry::Settled(settings, since)) => (Some(settings), since),
            _ => (None, 0),
        };
        Some(NodeView {
            plane,
            tenant: tenant.into(),
            settings,
            since,
            known,
        })
    }

    /// Remembers that somebody sees no node though there may be some; what there is by now to see instead, if anything.
    fn blind(&self, tenant: &str) -> Option<Entry> {
        let mut entry = None;
        self.known.send_if_modified(|known| {
            let now = known.tenants.entry(tenant.to_owned()).or_insert(Entry::Blind);
            entry = Some(now.clone());
            false
        });
        entry
    }
}

impl NodeView {
    /// The node as this view has it; `None` if it is hidden.
    pub fn show(&self, node: &Object) -> Option<Object> {
        super::show(self.plane, self.settings.as_ref()?, node)
    }

    /// The revision of the super cluster at which this view began, as far as is known.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Ready when this view does not hold any more.
    pub fn replaced(&self) -> BoxFuture<'static, ()> {
        let (mut known, tenant, settings) = (self.known.clone(), self.tenant.clone(), self.settings.clone());
        Box::pin(async move {
            let is_another = |known: &Known| match known.tenants.get(&*tenant) {
                Some(Entry::Settled(now, _)) => Some(now) != settings.as_ref(),
                Some(Entry::Changing) => true,
                None | Some(Entry::Blind) => settings.is_some(),
            };
            // The views' own end is one as well.
            let _ = known.wait_for(is_another).await;
        })
    }
}

struct Follower {
    clusters: Informer,
    client: Client,
    world: World,
    changed: Arc<watch::Sender<Known>>,
}

impl Follower {
    async fn run(self) {
        let mut changes = self.clusters.subscribe();
        self.clusters.wait_synced().await;
        // Since they were last written nothing has changed, so what was read before the last start still goes on.
        self.changed.send_modify(|known| {
            for (key, cluster) in self.clusters.all() {
                let since = cluster.resource_version().parse().unwrap_or(0);
                let settings = Arc::new(Settings::of(&cluster));
                known
                    .tenants
                    .insert(key.name.to_string(), Entry::Settled(settings, since));
            }
        });
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => self.take(&change.key.name, change.new.as_ref()).await,
                Notice::Rescan => {
                    let all = self.clusters.all();
                    let gone: Vec<String> = (self.changed.borrow().tenants.iter())
                        .filter(|(name, entry)| {
                            **entry != Entry::Blind && !all.iter().any(|(key, _)| *key.name == ***name)
                        })
                        .map(|(name, _)| name.clone())
                        .collect();
                    for name in gone {
                        self.take(&name, None).await;
                    }
                    for (key, cluster) in &all {
                        self.take(&key.name, Some(cluster)).await;
                    }
                }
                Notice::Synced(_) | Notice::Removed(_) => {}
            }
        }
    }

    async fn take(&self, name: &str, cluster: Option<&Object>) {
        let Some(cluster) = cluster else {
            self.changed.send_modify(|known| {
                known.tenants.remove(name);
            });
            let gone_until = self.revision().await;
            self.changed.send_if_modified(|known| {
                known.gone_until = gone_until;
                false
            });
            return;
        };
        let settings = Arc::new(Settings::of(cluster));
        self.changed.send_if_modified(|known| {
            let entry = match known.tenants.get(name) {
                Some(Entry::Settled(before, _)) if *before == settings => return false,
                Some(_) => Entry::Changing,
                // Nobody sees anything by other settings, so these hold since they are there.
                None => {
                    let written = cluster.resource_version().parse().unwrap_or(0);
                    Entry::Settled(settings.clone(), known.gone_until.max(written))
                }
            };
            known.tenants.insert(name.to_owned(), entry);
            true
        });
        if self.changed.borrow().tenants.get(name) != Some(&Entry::Changing) {
            return;
        }
        let since = self.revision().await;
        self.changed.send_modify(|known| {
            known.tenants.insert(name.to_owned(), Entry::Settled(settings, since));
        });
    }

    /// The super cluster's revision now; what was read of it before was read by the settings of before.
    async fn revision(&self) -> u64 {
        let one = ListOptions {
            limit: Some(1),
            ..ListOptions::default()
        };
        loop {
            match self.client.list(&resource::NODES, None, &one).await {
                // Where it is no number nothing can be said to be older.
                Ok(list) => return list.resource_version.parse().unwrap_or(0),
                Err(error) => {
                    tracing::warn!(%error, "the super cluster's revision can't be read: a tenant's view of nodes waits");
                    self.world.clock.sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}
