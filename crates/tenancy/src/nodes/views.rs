//! What each tenant sees of the nodes now, and since when. One task follows all VirtualClusters; a tenant costs an entry.
//! What a tenant says of a node itself goes into its VirtualCluster, and comes back by the same way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{
    Object, PlaneId,
    resource::{self, VIRTUAL_CLUSTERS},
};
use client::{Client, Informer, ListOptions, Notice, Patch, Tasks};
use futures::future::BoxFuture;
use serde_json::json;
use tokio::sync::{broadcast, watch};
use world::World;

use super::marks::{self, Mark};
use crate::virtual_cluster::Settings;

/// A plane that is asked has been made for a VirtualCluster, of which is heard soon.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long after a failure the super cluster is asked for its revision again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How often a change is tried over when the VirtualCluster is written by somebody else at the same time.
const TRIES: usize = 10;

/// Changes of views that wait for a listener. One that falls behind takes all views for changed.
const CHANGES_MAX: usize = 256;

/// The views of all tenants. They end when this is dropped.
pub struct NodeViews {
    known: Arc<watch::Sender<Known>>,
    /// The super cluster, where VirtualClusters are written.
    writes: Client,
    changes: broadcast::Sender<PlaneId>,
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
    writes: Client,
    world: World,
}

/// Why what a tenant says of a node is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unmarked {
    /// It will not be, however often it is said.
    #[error("{0}")]
    Refused(String),
    #[error("what is said of a node can't be kept now: {0}")]
    Later(String),
}

impl NodeViews {
    /// `clusters` from [`crate::virtual_cluster::follow`], `super_client` for the plane that they are of. `writes` is the super
    /// cluster itself, where that is another.
    pub fn start(clusters: Informer, super_client: Client, writes: Client, world: World) -> NodeViews {
        let known = Arc::new(watch::Sender::new(Known::default()));
        let changes = broadcast::Sender::new(CHANGES_MAX);
        let tasks = Tasks::new();
        let follower = Follower {
            clusters,
            client: super_client,
            world: world.clone(),
            changed: known.clone(),
            changes: changes.clone(),
        };
        tasks.spawn(follower.run());
        NodeViews {
            known,
            writes,
            changes,
            world,
            _tasks: tasks,
        }
    }

    /// Tells, from when it is called, the planes whose view has become another.
    pub fn changes(&self) -> impl Fn() -> broadcast::Receiver<PlaneId> + Send + Sync + use<> {
        let changes = self.changes.clone();
        move || changes.subscribe()
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
            writes: self.writes.clone(),
            world: self.world.clone(),
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

    /// Keeps what the tenant says of a node, so that the node is shown as it is `wanted`; returns the revision from which it
    /// is shown so.
    pub async fn mark(&self, node: &Object, wanted: &Object) -> Result<u64, Unmarked> {
        let later = |error: client::Error| Unmarked::Later(error.to_string());
        for _ in 0..TRIES {
            let cluster = self.writes.get(&VIRTUAL_CLUSTERS, None, &self.tenant).await;
            let cluster = cluster.map_err(later)?;
            let settings = Settings::of(&cluster);
            let shown = super::show_unmarked(self.plane, &settings, node)
                .ok_or_else(|| Unmarked::Later("the node is not shown any more".to_owned()))?;
            let known = settings.marks.get(node.name()).cloned().unwrap_or_default();
            let mark = known.by_which(&shown, wanted.tree()).map_err(Unmarked::Refused)?;
            if mark == known {
                return self.until_marked(node.name(), &mark).await;
            }
            if settings.marks.len() >= marks::NODES_MAX && known.is_empty() {
                return Err(Unmarked::Refused(format!(
                    "something is said of {} nodes already, as many as can be kept",
                    marks::NODES_MAX
                )));
            }
            let patch = json!({
                "metadata": {"uid": cluster.uid(), "resourceVersion": cluster.resource_version()},
                "status": {"nodes": {node.name(): mark.to_status()}},
            });
            match self
                .writes
                .patch_sub(&VIRTUAL_CLUSTERS, None, &self.tenant, "status", &Patch::Merge(patch))
                .await
            {
                Ok(_) => return self.until_marked(node.name(), &mark).await,
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(later(error)),
            }
        }
        Err(Unmarked::Later(
            "others write the VirtualCluster all the time".to_owned(),
        ))
    }

    /// Who has said something sees it.
    async fn until_marked(&self, node: &str, mark: &Mark) -> Result<u64, Unmarked> {
        let mut known = self.known.clone();
        let since = |known: &Known| match known.tenants.get(&*self.tenant) {
            Some(Entry::Settled(settings, since)) => {
                let now = settings.marks.get(node).cloned().unwrap_or_default();
                (now == *mark).then_some(*since)
            }
            _ => None,
        };
        tokio::select! {
            seen = known.wait_for(|known| since(known).is_some()) => {
                seen.ok().and_then(|known| since(&known)).ok_or_else(|| Unmarked::Later("the platform is ending".to_owned()))
            }
            () = self.world.clock.sleep(WAIT_MAX) => {
                Err(Unmarked::Later("it is written, and not shown yet".to_owned()))
            }
        }
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
    changes: broadcast::Sender<PlaneId>,
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
        let plane = cluster.tree()["status"]["plane"].as_str();
        if let Some(plane) = plane.and_then(|plane| plane.parse().ok()) {
            // Nobody may be listening.
            let _ = self.changes.send(plane);
        }
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
