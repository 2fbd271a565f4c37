//! Reading many objects in the order of their keys: stored ones and, in between, those a plane has by birth.

use api::{
    Object, PlaneId, Status,
    keys::Layout,
    selector::{FieldSelector, LabelSelector},
};
use bytes::Bytes;
use keyspace::{KeyRange, KeyValue, Keyspace, Op, OpResult, Options, Range, Revision, TXN_OPS_MAX, Txn};

use super::{Kind, Stored, objects};
use crate::{
    planes::{Plane, refuse},
    query::Query,
    template,
};

/// Keys read at once when a limit is given and selectors may pass many by.
const PAGE_MIN: usize = 256;

/// A range of objects of one kind.
pub struct Scan<'a> {
    pub keyspace: &'a dyn Keyspace,
    pub layout: Layout,
    /// `None` for all planes of the keyspace.
    pub plane: Option<&'a Plane>,
    pub kind: &'a Kind,
    /// Of the keys; ends with `/`.
    pub prefix: String,
}

/// Which of a range's objects are wanted.
pub struct Ask {
    /// `None` is the current one.
    pub revision: Option<Revision>,
    pub limit: Option<usize>,
    /// What follows the prefix in the key of the last object that was had.
    pub after: Option<String>,
    pub selectors: Selectors,
}

pub struct Page {
    /// At which the items hold.
    pub revision: Revision,
    /// The keyspace's current one.
    pub now: Revision,
    pub items: Vec<Item>,
    /// Where to go on, if there is more.
    pub next: Option<Next>,
}

pub struct Next {
    pub after: String,
    /// `None` where selectors make it a guess.
    pub remaining: Option<usize>,
}

pub struct Item {
    pub key: Bytes,
    /// In a scan of all planes.
    pub plane: Option<PlaneId>,
    pub stored: Stored,
}

#[derive(Clone, Default)]
pub struct Selectors {
    pub label: LabelSelector,
    pub field: FieldSelector,
}

impl Selectors {
    pub fn parse(kind: &Kind, query: &Query) -> Result<Selectors, Status> {
        let selectable: Vec<&str> = kind
            .custom()
            .map(|custom| {
                custom
                    .selectable_fields
                    .iter()
                    .map(|path| path.trim_start_matches('.'))
                    .collect()
            })
            .unwrap_or_default();
        Ok(Selectors {
            label: LabelSelector::parse(&query.label_selector)?,
            field: FieldSelector::parse(kind.resource(), &selectable, &query.field_selector)?,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.label.is_everything() && self.field.is_everything()
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.is_everything() || (self.label.matches_object(object) && self.field.matches_object(object))
    }
}

impl Ask {
    pub fn everything() -> Ask {
        Ask {
            revision: None,
            limit: None,
            after: None,
            selectors: Selectors::default(),
        }
    }
}

impl<'a> Scan<'a> {
    pub fn of_plane(plane: &'a Plane, kind: &'a Kind, namespace: Option<&str>) -> Scan<'a> {
        Scan {
            keyspace: &*plane.keyspace,
            layout: plane.layout,
            plane: Some(plane),
            kind,
            prefix: plane
                .layout
                .prefix(plane.id, kind.storage(), kind.definition(), namespace),
        }
    }

    pub fn of_all_planes(keyspace: &'a dyn Keyspace, kind: &'a Kind) -> Scan<'a> {
        Scan {
            keyspace,
            layout: Layout::Shared,
            plane: None,
            kind,
            prefix: Layout::Shared.resource_prefix(kind.storage(), kind.definition()),
        }
    }

    /// The keys that can hold what is asked for.
    pub fn keys(&self, selectors: &Selectors) -> KeyRange {
        let one_name = !self.kind.is_namespaced() || self.prefix.ends_with(&self.namespace_end());
        match selectors.field.requires("metadata.name") {
            Some(name) if self.plane.is_some() && one_name && !name.contains('/') && !name.is_empty() => {
                KeyRange::one(format!("{}{name}", self.prefix))
            }
            _ => KeyRange::prefix(self.prefix.clone()),
        }
    }

    /// The last part of the prefix, if it ends with a namespace.
    fn namespace_end(&self) -> String {
        let Some(plane) = self.plane else {
            return "\0".to_owned();
        };
        let whole = plane
            .layout
            .prefix(plane.id, self.kind.storage(), self.kind.definition(), None);
        match self.prefix.strip_prefix(&whole) {
            Some(namespace) if !namespace.is_empty() => namespace.to_owned(),
            _ => "\0".to_owned(),
        }
    }

    /// What the plane has by birth in this range, by key.
    pub fn templates(&self) -> Vec<(String, &'static template::Entry)> {
        let Some(plane) = self.plane.filter(|plane| plane.is_templated()) else {
            return Vec::new();
        };
        if self.kind.custom().is_some() {
            return Vec::new();
        }
        let whole = plane.layout.prefix(plane.id, self.kind.storage(), None, None);
        template::entries(self.kind.storage())
            .iter()
            .map(|entry| (format!("{whole}{}", entry.suffix()), entry))
            .filter(|(key, _)| key.starts_with(&self.prefix))
            .collect()
    }

    pub async fn page(&self, ask: Ask) -> Result<Page, Status> {
        let mut keys = self.keys(&ask.selectors);
        let mut templates = self.templates();
        templates.retain(|(key, _)| keys.contains(key.as_bytes()));
        if let Some(after) = &ask.after {
            let last = format!("{}{after}", self.prefix);
            templates.retain(|(key, _)| *key > last);
            keys.start = format!("{last}\0").into();
        }
        let mut collected = Collected {
            scan: self,
            ask: &ask,
            items: Vec::new(),
            overflow: None,
        };
        let mut templates = templates.into_iter().peekable();
        let mut revision = ask.revision;
        loop {
            let range = Range {
                keys: keys.clone(),
                revision,
                limit: ask.limit.map(|limit| {
                    let wanted = limit.saturating_sub(collected.items.len()) + 1;
                    if ask.selectors.is_everything() {
                        wanted
                    } else {
                        wanted.max(PAGE_MIN)
                    }
                }),
                content: keyspace::Content::Full,
            };
            let ranged = self.keyspace.range(range, Options::default()).await.map_err(refuse)?;
            let now = ranged.revision;
            let at = *revision.get_or_insert(now);
            // Before its record a plane had nothing.
            let born = self.plane.is_none_or(|plane| at >= plane.revision);
            let last = ranged.items.last().map(|item| item.key.clone());
            let mut left = ranged.count;
            for found in ranged.items {
                while let Some((key, entry)) = templates.next_if(|(key, _)| key.as_bytes() < &*found.key) {
                    if born && !collected.push_template(key, entry) {
                        break;
                    }
                }
                if collected.overflow.is_some() {
                    break;
                }
                templates.next_if(|(key, _)| key.as_bytes() == &*found.key);
                if !collected.push(found) {
                    break;
                }
                left -= 1;
            }
            let more = ranged.more && collected.overflow.is_none();
            if !more && collected.overflow.is_none() && born {
                for (key, entry) in templates.by_ref() {
                    if !collected.push_template(key, entry) {
                        break;
                    }
                }
            }
            if let Some(last) = last.filter(|_| more) {
                let mut next = last.to_vec();
                next.push(0);
                keys.start = next.into();
                continue;
            }
            let Collected { items, overflow, .. } = collected;
            let next = match overflow {
                None => None,
                Some(from_template) => {
                    let remaining = if ask.selectors.is_everything() {
                        let keys: Vec<String> = templates.map(|(key, _)| key).collect();
                        let unwritten = self.unwritten(&keys, at).await?;
                        Some(
                            (left + usize::from(from_template))
                                .saturating_add_signed(unwritten)
                                .max(1),
                        )
                    } else {
                        None
                    };
                    items.last().map(|item: &Item| Next {
                        after: String::from_utf8_lossy(&item.key[self.prefix.len()..]).into_owned(),
                        remaining,
                    })
                }
            };
            return Ok(Page {
                revision: at,
                now,
                items,
                next,
            });
        }
    }

    /// What the given templated keys add to the number of keys in the keyspace: one that is absent is an object all
    /// the same, one with a whiteout is none.
    async fn unwritten(&self, keys: &[String], revision: Revision) -> Result<isize, Status> {
        let mut objects = 0;
        for keys in keys.chunks(TXN_OPS_MAX) {
            let gets = keys.iter().map(|key| {
                Op::Range(Range {
                    revision: Some(revision),
                    ..Range::of(KeyRange::one(key.clone()))
                })
            });
            let txn = Txn {
                success: gets.collect(),
                ..Txn::default()
            };
            let txned = self.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
            for result in txned.results {
                let OpResult::Range(ranged) = result else { continue };
                match ranged.items.first() {
                    None => objects += 1,
                    Some(found) if *found.value == *template::WHITEOUT => objects -= 1,
                    Some(_) => {}
                }
            }
        }
        Ok(objects)
    }
}

struct Collected<'a> {
    scan: &'a Scan<'a>,
    ask: &'a Ask,
    items: Vec<Item>,
    /// The limit was reached and there is more; true if what comes next is a template's.
    overflow: Option<bool>,
}

impl Collected<'_> {
    /// False when the limit is reached.
    fn push(&mut self, found: KeyValue) -> bool {
        let key = found.key.clone();
        let plane = match self.scan.plane {
            Some(_) => None,
            None => {
                let (kind, layout) = (self.scan.kind, self.scan.layout);
                let parsed = layout.parse(kind.storage(), kind.definition(), &key);
                let Some(plane) = parsed.and_then(|parsed| parsed.plane) else {
                    return true;
                };
                Some(plane)
            }
        };
        match objects::stored(found) {
            Some(stored) => self.push_stored(key, plane, stored, false),
            None => true,
        }
    }

    fn push_template(&mut self, key: String, entry: &template::Entry) -> bool {
        match self.scan.plane {
            Some(plane) => self.push_stored(key.into(), None, objects::rendered(entry, plane), true),
            None => true,
        }
    }

    fn push_stored(&mut self, key: Bytes, plane: Option<PlaneId>, stored: Stored, template: bool) -> bool {
        if !self.ask.selectors.matches(&stored.object) {
            return true;
        }
        if self.ask.limit.is_some_and(|limit| self.items.len() >= limit) {
            self.overflow = Some(template);
            return false;
        }
        self.items.push(Item { key, plane, stored });
        true
    }
}
