//! The loop: Pods without a node are placed one by one, in order of priority and age; what does not fit waits until
//! something happens that may help.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use api::{Object, Resource, resource};
use client::{Change, Client, EventRecorder, Informer, InformerOptions, Notice, ObjectKey, PlaneKey, Sources, Tasks};
use tokio::sync::Notify;
use world::World;

use crate::{
    cluster::{Cluster, NAME, Pending},
    filter::Hears,
    place::{self, Decision, Nowhere},
    pod_info::PodInfo,
    preempt::{self, Outcome, Preemption},
    volumes::Claim,
};

pub struct Options {
    /// The one plane whose Pods and Nodes these are.
    pub sources: Sources,
    pub plane: PlaneKey,
    pub world: World,
}

/// Owns the loop's tasks.
pub struct Running {
    tasks: Tasks,
}

impl Running {
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

/// One kind of object that the loop looks at.
struct Sight {
    resource: Resource,
    see: fn(&mut Cluster, Change),
    forget_but: fn(&mut Cluster, &[(ObjectKey, Object)]),
}

fn sights() -> Vec<Sight> {
    let sight = |resource, see, forget_but| Sight {
        resource,
        see,
        forget_but,
    };
    vec![
        sight(resource::PODS, Cluster::see_pod, Cluster::forget_pods_but),
        sight(resource::NODES, Cluster::see_node, Cluster::forget_nodes_but),
        sight(
            resource::NAMESPACES,
            Cluster::see_namespace,
            Cluster::forget_namespaces_but,
        ),
        sight(
            resource::PERSISTENT_VOLUME_CLAIMS,
            Cluster::see_claim,
            Cluster::forget_claims_but,
        ),
        sight(
            resource::PERSISTENT_VOLUMES,
            Cluster::see_volume,
            Cluster::forget_volumes_but,
        ),
        sight(
            resource::STORAGE_CLASSES,
            Cluster::see_class,
            Cluster::forget_classes_but,
        ),
        sight(
            resource::POD_DISRUPTION_BUDGETS,
            Cluster::see_budget,
            Cluster::forget_budgets_but,
        ),
    ]
}

/// Starts the loop. Nothing is placed before everything is known.
pub fn start(options: Options) -> Result<Running, client::Error> {
    let tasks = Tasks::new();
    let sights = sights();
    let scheduler = Arc::new(Scheduler {
        client: options.sources.client(&options.plane)?,
        recorder: EventRecorder::start(&tasks, &options.world, NAME),
        plane: options.plane,
        cluster: Mutex::default(),
        unknown: Mutex::new((0..sights.len()).collect()),
        changed: Notify::new(),
    });
    for (place, sight) in sights.into_iter().enumerate() {
        let informer = Informer::start(&options.sources, sight.resource.clone(), InformerOptions::default());
        let scheduler = scheduler.clone();
        tasks.spawn(async move { scheduler.watch(place, &sight, &informer).await });
    }
    tasks.spawn(async move { scheduler.run().await });
    Ok(Running { tasks })
}

pub(crate) struct Scheduler {
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
    plane: PlaneKey,
    cluster: Mutex<Cluster>,
    /// Kinds that have not been read whole: before, what is missing would be taken for absent.
    unknown: Mutex<BTreeSet<usize>>,
    /// Something happened that may let a Pod be placed.
    changed: Notify,
}

impl Scheduler {
    async fn watch(&self, place: usize, sight: &Sight, informer: &Informer) {
        let mut changes = informer.subscribe();
        while let Some(notice) = changes.next().await {
            let whole = match &notice {
                Notice::Synced(source) => *source == self.plane.source,
                Notice::Rescan => informer.synced(&self.plane.source),
                _ => false,
            };
            match notice {
                Notice::Change(change) => (sight.see)(&mut self.lock(), change),
                Notice::Rescan => {
                    let there = informer.all();
                    let mut cluster = self.lock();
                    (sight.forget_but)(&mut cluster, &there);
                    for (key, object) in there {
                        let (old, new) = (None, Some(object));
                        (sight.see)(&mut cluster, Change { key, old, new });
                    }
                }
                Notice::Synced(_) | Notice::Removed(_) => {}
            }
            let mut unknown = self.unknown.lock().expect("no one panics while holding it");
            if whole {
                unknown.remove(&place);
            }
            if unknown.is_empty() {
                self.changed.notify_one();
            }
        }
    }

    async fn run(&self) {
        loop {
            // Woken for the first time when everything is known.
            self.changed.notified().await;
            self.tell_gated().await;
            self.look_at_pending().await;
            loop {
                let next = self.lock().waiting.next();
                let Some((key, pod)) = next else { break };
                self.place(&key, &pod).await;
            }
        }
    }

    async fn place(&self, key: &ObjectKey, pod: &Arc<PodInfo>) {
        enum Act {
            Bind(String),
            Provide(String),
            Fail(String, Option<Preemption>),
        }
        let act = {
            let mut cluster = self.lock();
            match place::place(pod, &cluster.snapshot) {
                Decision::Node(node) => {
                    // Assumed: the next Pod sees the room taken, before the binding has come back.
                    cluster.assume(key, pod, &node);
                    if self.waits_for_volumes(&cluster, pod) {
                        Act::Provide(node)
                    } else {
                        Act::Bind(node)
                    }
                }
                Decision::Nowhere(nowhere) => {
                    let (message, preemption) = give_way(pod, &nowhere, &mut cluster);
                    let hears = if preemption.is_some() {
                        nowhere.hears.and(Hears::POD_GONE)
                    } else {
                        nowhere.hears
                    };
                    cluster.waiting.put_aside(key, hears);
                    Act::Fail(message, preemption)
                }
            }
        };
        match act {
            Act::Bind(node) => self.bind(key, pod, &node).await,
            Act::Provide(node) => self.provide(key, pod, node).await,
            Act::Fail(message, preemption) => {
                if let Some(preemption) = &preemption {
                    self.preempt(pod, preemption).await;
                }
                let node = preemption.map(|preemption| preemption.node);
                self.tell_unschedulable(key, pod, &message, node.as_deref()).await;
            }
        }
    }

    fn waits_for_volumes(&self, cluster: &Cluster, pod: &PodInfo) -> bool {
        let namespace = pod.pod.namespace();
        let mut claims = pod
            .claims
            .iter()
            .map(|name| cluster.snapshot.volumes.claim(namespace, name));
        claims.any(|claim| matches!(claim, Claim::Waits(_)))
    }

    /// Has volumes bound or made for the node that was chosen; the Pod is bound when they are there.
    async fn provide(&self, key: &ObjectKey, pod: &Arc<PodInfo>, node: String) {
        let pending = Pending {
            pod: pod.clone(),
            node: node.clone(),
        };
        self.lock().pending.insert(key.clone(), pending);
        let chosen = self.choose_volumes(pod, &node);
        for (claim, volume) in chosen {
            let done = match volume {
                Some(volume) => self.keep_volume(&volume, &claim).await,
                None => self.select_node(&claim, &node).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, pod = %key, "a volume could not be provided");
                return self.give_back(key, pod);
            }
        }
    }

    /// Each claim that waits, with the free volume it is to have; `None`: one is to be made.
    fn choose_volumes(&self, pod: &PodInfo, node: &str) -> Vec<(Object, Option<Object>)> {
        let cluster = self.lock();
        let volumes = &cluster.snapshot.volumes;
        let Some(node) = cluster.snapshot.nodes.get(node) else {
            return Vec::new();
        };
        let mut taken = BTreeSet::new();
        let mut chosen = Vec::new();
        for name in &pod.claims {
            let Claim::Waits(claim) = volumes.claim(pod.pod.namespace(), name) else {
                continue;
            };
            let free = volumes.free_for(claim, &node.node);
            let free = free.filter(|volume| taken.insert(volume.name().to_owned()));
            chosen.push((claim.clone(), free.cloned()));
        }
        chosen
    }

    /// Binds those whose volumes are there; gives those back whose volumes cannot be made where they should.
    async fn look_at_pending(&self) {
        let pending: Vec<(ObjectKey, Pending)> = {
            let cluster = self.lock();
            let pending = cluster.pending.iter();
            pending.map(|(key, pending)| (key.clone(), pending.clone())).collect()
        };
        for (key, Pending { pod, node }) in pending {
            let (ready, lost) = {
                let cluster = self.lock();
                let volumes = &cluster.snapshot.volumes;
                let namespace = pod.pod.namespace();
                let claims: Vec<Claim<'_>> = pod.claims.iter().map(|name| volumes.claim(namespace, name)).collect();
                let ready = claims.iter().all(|claim| matches!(claim, Claim::Bound(_)));
                // Who makes volumes takes its mark away if it cannot there; a volume may turn out to be elsewhere.
                let lost = !cluster.snapshot.nodes.contains_key(&node)
                    || claims.iter().any(|claim| match claim {
                        Claim::Waits(claim) => {
                            claim.annotation(crate::bind::SELECTED) != Some(node.as_str())
                                && !volumes.keep_one_for(claim)
                        }
                        Claim::Bound(volume) => {
                            let there = cluster.snapshot.nodes.get(&node);
                            there.is_some_and(|node| !api::volumes::is_reached(volume, &node.node))
                        }
                        Claim::Missing | Claim::Leaving => true,
                        Claim::Unbound => false,
                    });
                (ready, lost)
            };
            if lost {
                self.give_back(&key, &pod);
            } else if ready {
                self.lock().pending.remove(&key);
                self.bind(&key, &pod, &node).await;
            }
        }
    }

    /// What was assumed did not come about: it waits again, for the next change and not in a loop.
    pub(crate) fn give_back(&self, key: &ObjectKey, pod: &Arc<PodInfo>) {
        let mut cluster = self.lock();
        cluster.give_back(key, pod.uid());
        cluster.waiting.put(key.clone(), pod.clone());
        cluster.waiting.put_aside(key, Hears::ALL);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no one panics while holding it")
    }
}

/// The message to tell, and whom to preempt, if that helps.
fn give_way(pod: &Arc<PodInfo>, nowhere: &Nowhere, cluster: &mut Cluster) -> (String, Option<Preemption>) {
    let mut message = nowhere.message.clone();
    if nowhere.refusals.is_empty() {
        return (message, None);
    }
    match preempt::preempt(pod, nowhere, &cluster.snapshot, &cluster.budgets()) {
        Outcome::Found(preemption) => {
            cluster.nominate(pod, Some(&preemption.node));
            (message, Some(preemption))
        }
        Outcome::UnderWay => (message, None),
        Outcome::Nothing(why) => {
            message.push(' ');
            message.push_str(&why);
            (message, None)
        }
    }
}
