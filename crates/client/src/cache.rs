//! What an informer holds, ordered by source, plane, namespace and name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use api::{Object, PlaneId};

use crate::{Change, ObjectKey, PlaneKey, SourceId};

/// The values under which an object is found in an index.
pub type IndexFn = Arc<dyn Fn(&ObjectKey, &Object) -> Vec<String> + Send + Sync>;

/// What changed last is looked at soon, by several, and stays as it came: parsed, in the buffer it was read into. Of an object
/// that was left alone for so many changes only its bytes are kept: thousands of tenants have far more of these.
const FRESH_MAX: usize = 256;

pub(crate) struct Cache {
    objects: BTreeMap<ObjectKey, Object>,
    /// The last changed, the oldest change first.
    fresh: VecDeque<ObjectKey>,
    indexes: HashMap<&'static str, Index>,
}

struct Index {
    values: IndexFn,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

impl Cache {
    pub(crate) fn new(indexes: Vec<(&'static str, IndexFn)>) -> Cache {
        let index = |(name, values)| {
            (
                name,
                Index {
                    values,
                    keys: HashMap::new(),
                },
            )
        };
        Cache {
            objects: BTreeMap::new(),
            fresh: VecDeque::new(),
            indexes: indexes.into_iter().map(index).collect(),
        }
    }

    /// Puts, replaces or (with `None`) removes; returns what changed, if anything did.
    pub(crate) fn set(&mut self, key: ObjectKey, new: Option<Object>) -> Option<Change> {
        let old = match &new {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        if old == new {
            return None;
        }
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.forget(&key, old);
            }
            if let Some(new) = &new {
                index.learn(&key, new);
            }
        }
        if new.is_some() {
            self.fresh.push_back(key.clone());
            self.rest();
        }
        Some(Change { key, old, new })
    }

    fn rest(&mut self) {
        while self.fresh.len() > FRESH_MAX {
            let oldest = self.fresh.pop_front();
            if let Some(object) = oldest.and_then(|key| self.objects.get_mut(&key)) {
                *object = object.at_rest();
            }
        }
    }

    /// Makes a source's part exactly `objects`; returns what changed.
    pub(crate) fn replace(&mut self, source: &SourceId, objects: Vec<(ObjectKey, Object)>) -> Vec<Change> {
        let kept: HashSet<&ObjectKey> = objects.iter().map(|(key, _)| key).collect();
        let gone: Vec<ObjectKey> = self
            .of_source(source)
            .map(|(key, _)| key)
            .filter(|key| !kept.contains(key))
            .cloned()
            .collect();
        let mut changes: Vec<Change> = gone.into_iter().filter_map(|key| self.set(key, None)).collect();
        changes.extend(
            objects
                .into_iter()
                .filter_map(|(key, object)| self.set(key, Some(object))),
        );
        changes
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.objects.iter()
    }

    /// Of one plane, in one namespace or (empty) in all.
    pub(crate) fn list(&self, plane: &PlaneKey, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let from = plane.object(namespace, "");
        let (plane, namespace) = (plane.clone(), namespace.to_owned());
        self.objects
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| key.plane == plane && (namespace.is_empty() || *key.namespace == *namespace))
    }

    pub(crate) fn by_index(&self, index: &str, value: &str) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let keys = self.indexes.get(index).and_then(|index| index.keys.get(value));
        keys.into_iter()
            .flatten()
            .filter_map(|key| self.objects.get_key_value(key))
    }

    pub(crate) fn count_by_index(&self, index: &str, value: &str) -> usize {
        let keys = self.indexes.get(index).and_then(|index| index.keys.get(value));
        keys.map_or(0, BTreeSet::len)
    }

    fn of_source(&self, source: &SourceId) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let first = PlaneKey {
            source: source.clone(),
            plane: PlaneId::LOWEST,
        };
        let source = source.clone();
        self.objects
            .range((Bound::Included(first.object("", "")), Bound::Unbounded))
            .take_while(move |(key, _)| key.plane.source == source)
    }

    /// Forgets a source that was taken away; nothing is reported as deleted.
    pub(crate) fn forget(&mut self, source: &SourceId) {
        let keys: Vec<ObjectKey> = self.of_source(source).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.set(key, None);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }
}

impl Index {
    fn learn(&mut self, key: &ObjectKey, object: &Object) {
        for value in (self.values)(key, object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn forget(&mut self, key: &ObjectKey, object: &Object) {
        for value in (self.values)(key, object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plane(source: &str, id: &str) -> PlaneKey {
        PlaneKey {
            source: SourceId::new(source),
            plane: id.repeat(16).parse().unwrap(),
        }
    }

    fn object(name: &str, node: &str) -> Object {
        Object::from_tree(json!({"metadata": {"name": name}, "spec": {"nodeName": node}}))
    }

    fn by_node() -> Vec<(&'static str, IndexFn)> {
        let node =
            |_: &ObjectKey, object: &Object| vec![object.tree()["spec"]["nodeName"].as_str().unwrap().to_owned()];
        vec![("node", Arc::new(node))]
    }

    #[test]
    fn a_relist_of_one_source_removes_what_is_gone_there_and_nothing_elsewhere() {
        let mut cache = Cache::new(by_node());
        let (here, there) = (plane("shared", "a"), plane("super", "b"));
        cache.set(here.object("n", "one"), Some(object("one", "x")));
        cache.set(here.object("n", "two"), Some(object("two", "x")));
        cache.set(there.object("n", "one"), Some(object("one", "x")));

        let changes = cache.replace(&here.source, vec![(here.object("n", "one"), object("one", "x"))]);

        assert_eq!(changes.len(), 1);
        assert!(changes[0].new.is_none());
        assert_eq!(cache.by_index("node", "x").count(), 2);
        assert!(cache.get(&there.object("n", "one")).is_some());
        assert!(cache.get(&here.object("n", "two")).is_none());
    }

    #[test]
    fn lists_keep_to_their_plane_and_namespace() {
        let mut cache = Cache::new(Vec::new());
        let (one, two) = (plane("shared", "a"), plane("shared", "b"));
        for (plane, namespace) in [(&one, "n"), (&one, "n-2"), (&two, "n")] {
            cache.set(plane.object(namespace, "x"), Some(object("x", "")));
        }

        assert_eq!(cache.list(&one, "n").count(), 1);
        assert_eq!(cache.list(&one, "").count(), 2);
        assert_eq!(cache.list(&two, "").count(), 1);
    }

    #[test]
    fn an_index_follows_its_objects() {
        let mut cache = Cache::new(by_node());
        let key = plane("shared", "a").object("n", "one");
        cache.set(key.clone(), Some(object("one", "x")));
        cache.set(key.clone(), Some(object("one", "y")));
        assert_eq!(
            (cache.by_index("node", "x").count(), cache.by_index("node", "y").count()),
            (0, 1)
        );

        cache.set(key, None);
        assert_eq!(cache.by_index("node", "y").count(), 0);
    }
}
