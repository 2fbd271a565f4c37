//! All Pods of this node: a worker for each, started when the plane binds a Pod here or when the runtime has one that
//! the plane no longer knows.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Object, resource};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::context::Context;
use super::runtime_events::Wake;
use super::worker::{Signals, View, Worker, revision};
use crate::pod::observed::Observed;
use crate::pod::plan::Failure;
use crate::watch::{self as following, Delta, Selection};

/// The Pods of this node, for whoever must find one. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pods {
    handles: Arc<Mutex<HashMap<String, Handle>>>,
}

struct Handle {
    pod: watch::Sender<Arc<Pod>>,
    gone: watch::Sender<bool>,
    evicted: watch::Sender<Option<Failure>>,
    wake: Arc<Notify>,
    view: watch::Receiver<View>,
    task: AbortOnDropHandle<()>,
}

impl Pods {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wake(&self, whom: Wake<'_>) {
        let handles = self.lock();
        match whom {
            Wake::Pod(uid) => handles.get(uid).into_iter().for_each(|handle| handle.wake.notify_one()),
            Wake::All => handles.values().for_each(|handle| handle.wake.notify_one()),
        }
    }

    /// Ends a Pod for the machine's sake.
    pub fn evict(&self, uid: &str, failure: Failure) {
        if let Some(handle) = self.lock().get(uid) {
            handle.evicted.send_replace(Some(failure));
            handle.wake.notify_one();
        }
    }

    /// The newest Pod of that name, and what is known of it as it changes.
    pub fn find(&self, namespace: &str, name: &str) -> Option<watch::Receiver<View>> {
        let handles = self.lock();
        handles
            .values()
            .filter(|handle| {
                let view = handle.view.borrow();
                let metadata = &view.pod.metadata;
                metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
            })
            .max_by_key(|handle| {
                let view = handle.view.borrow();
                (!*handle.gone.borrow(), revision(&view.pod))
            })
            .map(|handle| handle.view.clone())
    }

    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.lock().values().map(|handle| handle.pod.borrow().clone()).collect()
    }

    /// Running containers' ids and where their logs are.
    pub fn running_logs(&self) -> Vec<(String, PathBuf)> {
        let handles = self.lock();
        let views = handles.values().map(|handle| handle.view.borrow().observed.clone());
        let observed: Vec<_> = views.collect();
        observed
            .iter()
            .flat_map(|observed| observed.running())
            .filter(|container| !container.log_path.is_empty())
            .map(|container| (container.id.clone(), PathBuf::from(&container.log_path)))
            .collect()
    }

    /// Ends all workers and waits until they have; their Pods run on.
    pub async fn stop(&self) {
        let handles = std::mem::take(&mut *self.lock());
        for handle in handles.into_values() {
            handle.task.abort();
            let _ = handle.task.await;
        }
    }

    /// Ends all workers; their Pods run on.
    pub fn drop_all(&self) {
        let handles = std::mem::take(&mut *self.lock());
        drop(handles);
    }

    fn forget(&self, uid: &str) {
        // Dropped outside the lock: it ends the worker's task.
        let handle = self.lock().remove(uid);
        drop(handle);
    }
}

/// Runs all Pods; never ends. Dropping it leaves containers as they are.
pub async fn run(context: Arc<Context>, pods: Pods) {
    context.services.synced().await;
    let selection = Selection {
        resource: resource::PODS,
        namespace: None,
        fields: Some(format!("spec.nodeName={}", context.node_name)),
    };
    // Unbounded in type only: it holds what the plane has said and this loop, which never waits for a Pod, takes at once.
    let (deltas, mut received) = mpsc::unbounded_channel();
    let (done, mut ended) = mpsc::unbounded_channel::<String>();
    let following = following::follow(context.client.clone(), selection, context.world.clone(), move |delta| {
        drop(deltas.send(delta))
    });
    let _following = AbortOnDropHandle::new(tokio::spawn(following));
    let mut dispatcher = Dispatcher {
        context,
        pods,
        done,
        finished: HashSet::new(),
    };
    loop {
        tokio::select! {
            delta = received.recv() => match delta {
                Some(delta) => dispatcher.take(delta).await,
                None => return,
            },
            Some(uid) = ended.recv() => {
                dispatcher.pods.forget(&uid);
                dispatcher.finished.insert(uid);
            }
        }
    }
}

struct Dispatcher {
    context: Arc<Context>,
    pods: Pods,
    /// Workers say here that they have ended.
    done: mpsc::UnboundedSender<String>,
    /// Pods that are ended here and still in the plane, held by finalizers.
    finished: HashSet<String>,
}

impl Dispatcher {
    async fn take(&mut self, delta: Delta) {
        match delta {
            Delta::All(objects) => {
                let known: HashSet<String> = objects.iter().map(|object| object.uid().to_owned()).collect();
                self.finished.retain(|uid| known.contains(uid));
                for object in &objects {
                    self.set(object);
                }
                let lost: Vec<String> = {
                    let handles = self.pods.lock();
                    handles.keys().filter(|uid| !known.contains(*uid)).cloned().collect()
                };
                for uid in lost {
                    self.gone(&uid);
                }
                self.adopt_orphans(&known).await;
            }
            Delta::Set(object) => self.set(&object),
            Delta::Gone(object) => {
                // Its last state says how much grace it was given.
                self.update(&object);
                self.gone(object.uid());
            }
        }
    }

    fn set(&mut self, object: &Object) {
        if self.finished.contains(object.uid()) || self.update(object) {
            return;
        }
        match object.view::<Pod>() {
            Ok(pod) => self.start(Arc::new(pod), false),
            Err(error) => tracing::error!(?object, %error, "a Pod could not be read"),
        }
    }

    /// Tells a running worker; false if there is none.
    fn update(&self, object: &Object) -> bool {
        let handles = self.pods.lock();
        let Some(handle) = handles.get(object.uid()) else {
            return false;
        };
        match object.view::<Pod>() {
            Ok(pod) => drop(handle.pod.send_replace(Arc::new(pod))),
            Err(error) => tracing::error!(?object, %error, "a Pod could not be read"),
        }
        true
    }

    fn gone(&mut self, uid: &str) {
        self.finished.remove(uid);
        if let Some(handle) = self.pods.lock().get(uid) {
            handle.gone.send_replace(true);
        }
    }

    fn start(&self, pod: Arc<Pod>, orphan: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (pod_sender, pod_receiver) = watch::channel(Arc::clone(&pod));
        let (gone_sender, gone_receiver) = watch::channel(orphan);
        let (evicted_sender, evicted_receiver) = watch::channel(None);
        let wake = Arc::new(Notify::new());
        let view = View {
            pod: Arc::clone(&pod),
            observed: Arc::new(Observed::default()),
        };
        let (view_sender, view_receiver) = watch::channel(view);
        let signals = Signals {
            pod: pod_receiver,
            gone: gone_receiver,
            evicted: evicted_receiver,
            wake: Arc::clone(&wake),
        };
        let worker = Worker::new(Arc::clone(&self.context), pod, signals, view_sender);
        let (done, id) = (self.done.clone(), uid.clone());
        let task = tokio::spawn(async move {
            worker.run().await;
            let _ = done.send(id);
        });
        let handle = Handle {
            pod: pod_sender,
            gone: gone_sender,
            evicted: evicted_sender,
            wake,
            view: view_receiver,
            task: AbortOnDropHandle::new(task),
        };
        self.pods.lock().insert(uid, handle);
    }

    /// Sandboxes that an earlier agent of this node made for Pods that the plane no longer has.
    async fn adopt_orphans(&mut self, known: &HashSet<String>) {
        let found = loop {
            match self.context.runtime.our_pods(&self.context.node_name).await {
                Ok(found) => break found,
                Err(error) => {
                    tracing::warn!(%error, "the runtime's sandboxes could not be listed");
                    self.context.world.clock.sleep(Duration::from_secs(1)).await;
                }
            }
        };
        for orphan in found {
            if known.contains(&orphan.uid) || self.pods.lock().contains_key(&orphan.uid) {
                continue;
            }
            tracing::info!(
                pod = orphan.name,
                namespace = orphan.namespace,
                "ending a Pod that the plane no longer has"
            );
            let mut pod = Pod::default();
            pod.metadata.uid = Some(orphan.uid);
            pod.metadata.name = Some(orphan.name);
            pod.metadata.namespace = Some(orphan.namespace);
            self.start(Arc::new(pod), true);
        }
    }
}
