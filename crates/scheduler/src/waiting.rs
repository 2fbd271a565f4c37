//! Pods that wait for a node: in order of priority and age, and put aside while nothing has happened that could help.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use client::ObjectKey;

use crate::{filter::Hears, pod_info::PodInfo};

/// The highest priority first, then the oldest.
type Order = (Reverse<i64>, String, ObjectKey);

#[derive(Default)]
pub struct Waiting {
    pods: HashMap<ObjectKey, Entry>,
    active: BTreeSet<Order>,
}

struct Entry {
    pod: Arc<PodInfo>,
    /// What would help; `None` while it is active.
    aside: Option<Hears>,
}

fn order(key: &ObjectKey, pod: &PodInfo) -> Order {
    let created = pod.pod.tree()["metadata"]["creationTimestamp"].as_str().unwrap_or("");
    (Reverse(pod.priority), created.to_owned(), key.clone())
}

impl Waiting {
    /// A Pod that waits. One that is known is looked at again only if something changed that matters.
    pub fn put(&mut self, key: ObjectKey, pod: Arc<PodInfo>) {
        let known = self.take(&key);
        let aside = known.and_then(|known| {
            let tree = |pod: &PodInfo| {
                let tree = pod.pod.tree();
                (tree["spec"].clone(), tree["metadata"]["labels"].clone())
            };
            let same = known.pod.uid() == pod.uid() && tree(&known.pod) == tree(&pod);
            known.aside.filter(|_| same)
        });
        if aside.is_none() {
            self.active.insert(order(&key, &pod));
        }
        self.pods.insert(key, Entry { pod, aside });
    }

    /// One that was tried in vain.
    pub fn put_aside(&mut self, key: &ObjectKey, hears: Hears) {
        if let Some(entry) = self.pods.get_mut(key) {
            self.active.remove(&order(key, &entry.pod));
            entry.aside = Some(hears);
        }
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.take(key).map(|entry| entry.pod)
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Entry> {
        let entry = self.pods.remove(key)?;
        self.active.remove(&order(key, &entry.pod));
        Some(entry)
    }

    /// Something happened: those whom it may help are looked at again.
    pub fn wake(&mut self, event: Hears) {
        for (key, entry) in &mut self.pods {
            if entry.aside.is_some_and(|hears| hears.meets(event)) {
                entry.aside = None;
                self.active.insert(order(key, &entry.pod));
            }
        }
    }

    pub fn next(&self) -> Option<(ObjectKey, Arc<PodInfo>)> {
        let (_, _, key) = self.active.first()?;
        Some((key.clone(), self.pods.get(key)?.pod.clone()))
    }

    pub fn retain(&mut self, keep: impl Fn(&PodInfo) -> bool) {
        let gone: Vec<ObjectKey> = self
            .pods
            .iter()
            .filter(|(_, entry)| !keep(&entry.pod))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| drop(self.take(key)));
    }

    #[cfg(test)]
    pub fn is_active(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|entry| entry.aside.is_none())
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}
