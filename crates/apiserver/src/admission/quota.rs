//! `ResourceQuota`: what a namespace may hold. Usage is a part of every write.
//!
//! A quota's `status.used` is stored in one transaction with the object that changes it, made, changed or taken away,
//! and that transaction compares that no quota of the namespace has changed since they were read. So usage is exact at
//! every revision, over crashes and among several servers, and nobody has to add it up again. Only a quota that was
//! just made or bounds something new is counted over all objects, by its maker or by the next write that concerns it;
//! whoever writes before it has counted changes the quota too, and the count is done again.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use api::{
    Object, Resource, Status,
    quota::{self, Count, Overdraft},
    resource::Scope,
};
use keyspace::{Comparand, Compare, KeyRange, Op, Options, Range, Relation, Revision};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    planes::{Plane, refuse},
    registry::{Beside, Kind, Place, Registry, refuse_forbidden, scan},
};

const QUOTAS: Resource = Resource::built_in("", "v1", "resourcequotas", "ResourceQuota", Scope::Namespaced);

/// Objects read at once while a quota is counted.
const COUNT_PAGE: usize = 500;

/// A count is tried so many times over when others write at the same time; failing that, the next write does it.
const COUNT_TRIES: usize = 20;

/// Namespaces that share a turn. More than the machine has cores, so that they seldom wait for one another.
const TURNS: usize = 64;

/// Writers to one namespace that has quotas go one after the other: all of them change the same keys, so that all but
/// one would have been in vain. The comparison is what makes it right; this only spares the tries.
pub(crate) struct Turns(Vec<Arc<Mutex<()>>>);

impl Default for Turns {
    fn default() -> Turns {
        Turns((0..TURNS).map(|_| Arc::default()).collect())
    }
}

impl Turns {
    async fn take(&self, plane: &Plane, namespace: &str) -> OwnedMutexGuard<()> {
        let mut hasher = DefaultHasher::new();
        (plane.id, namespace).hash(&mut hasher);
        let turn = &self.0[hasher.finish() as usize % TURNS];
        Arc::clone(turn).lock_owned().await
    }
}

/// What a write costs.
#[derive(Default)]
pub(crate) struct Charge {
    /// What the write has to do besides.
    pub beside: Beside,
    /// To be held until the write is done.
    pub turn: Option<OwnedMutexGuard<()>>,
}

/// The quotas of a namespace as they were at a revision.
struct Quotas {
    range: KeyRange,
    revision: Revision,
    found: Vec<(bytes::Bytes, Object)>,
}

impl Quotas {
    async fn read(plane: &Plane, namespace: &str) -> Result<Quotas, Status> {
        let range = KeyRange::prefix(plane.layout.prefix(plane.id, &QUOTAS, None, Some(namespace)));
        let ranged = plane
            .keyspace
            .range(Range::of(range.clone()), Options::default())
            .await
            .map_err(refuse)?;
        let found = ranged.items.into_iter();
        Ok(Quotas {
            range,
            revision: ranged.revision,
            found: found.map(|item| (item.key, Object::from_stored(item.value))).collect(),
        })
    }

    /// None was made or changed since.
    fn unchanged(&self) -> Compare {
        Compare {
            keys: self.range.clone(),
            relation: Relation::Less,
            comparand: Comparand::ModRevision(Revision(self.revision.0 + 1)),
        }
    }
}

impl Registry {
    /// What it costs to make `new` of `old` at a place; refused if that is more than there is.
    pub(crate) async fn charge(
        &self,
        place: &Place<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        overdraft: Overdraft,
    ) -> Result<Charge, Status> {
        let Some(namespace) = place.namespace.filter(|_| may_change(place.kind.storage(), old, new)) else {
            return Ok(Charge::default());
        };
        let quotas = Quotas::read(place.plane, namespace).await?;
        let mut charge = Charge::default();
        charge.beside.compares.push(quotas.unchanged());
        if quotas.found.is_empty() {
            return Ok(charge);
        }
        charge.turn = Some(self.quota_turns().take(place.plane, namespace).await);
        let quotas = Quotas::read(place.plane, namespace).await?;
        charge.beside.compares = vec![quotas.unchanged()];
        charge.beside.ops = self.charged(place, &quotas, old, new, overdraft).await?;
        Ok(charge)
    }

    async fn charged(
        &self,
        place: &Place<'_>,
        quotas: &Quotas,
        old: Option<&Value>,
        new: Option<&Value>,
        overdraft: Overdraft,
    ) -> Result<Vec<Op>, Status> {
        let mut ops = Vec::new();
        let own = place.key();
        for (key, object) in &quotas.found {
            // The write is of that quota itself.
            if **key == *own.as_bytes() {
                continue;
            }
            let mut tree = object.tree().clone();
            let counted = quota::is_counted(&tree);
            if !counted {
                tree["status"] = self.count_quota(place, &tree, quotas.revision).await?;
            }
            match quota::charge(&tree, place.kind.storage(), old, new, overdraft) {
                Ok(Some(status)) => tree["status"] = status,
                Ok(None) if counted => continue,
                Ok(None) => {}
                Err(why) => return Err(refuse_forbidden(place.kind, place.name, &why)),
            }
            ops.push(Op::put(key.clone(), Object::from_tree(tree).bytes().clone()));
        }
        Ok(ops)
    }

    /// The status of a quota over what its namespace (that of `place`) held at that revision.
    pub(crate) async fn count_quota(
        &self,
        place: &Place<'_>,
        tree: &Value,
        revision: Revision,
    ) -> Result<Value, Status> {
        let mut count = Count::new(tree);
        let hard = tree["spec"]["hard"].as_object();
        for (group, plural) in quota::resources_of(hard.into_iter().flatten().map(|(name, _)| name)) {
            let Some(kind) = self.countable(place.plane, &group, &plural).await? else {
                continue;
            };
            let scan = scan::Scan::of_plane(place.plane, &kind, place.namespace);
            let mut after = None;
            loop {
                let ask = scan::Ask {
                    revision: Some(revision),
                    limit: Some(COUNT_PAGE),
                    after: after.take(),
                    selectors: scan::Selectors::default(),
                };
                let page = scan.page(ask).await?;
                for item in &page.items {
                    count.add(kind.storage(), item.stored.object.tree());
                }
                match page.next {
                    Some(next) => after = Some(next.after),
                    None => break,
                }
            }
        }
        Ok(count.status())
    }

    /// A namespaced kind that the plane stores, in any version.
    async fn countable(&self, plane: &Plane, group: &str, plural: &str) -> Result<Option<Kind>, Status> {
        let built_in = api::table::resources().iter().find(|info| {
            let resource = &info.resource;
            resource.group == group && resource.plural == plural && info.is_stored()
        });
        if let Some(info) = built_in {
            let counted = info.resource.scope == Scope::Namespaced && quota::is_counted_kind(&info.resource);
            return Ok(counted.then_some(Kind::BuiltIn(info)));
        }
        let custom = self.planes().custom_resources(plane).await?;
        let found = custom.served.iter().find(|custom| {
            let resource = &custom.info.resource;
            resource.group == group && resource.plural == plural && resource.scope == Scope::Namespaced
        });
        Ok(found.cloned().map(Kind::Custom))
    }

    /// Counts the quota at that place, if it is not counted. What goes wrong is left to the next write.
    pub(crate) async fn settle_quota(&self, place: &Place<'_>) {
        for _ in 0..COUNT_TRIES {
            match self.try_settle(place, quota::is_counted).await {
                Ok(false) => {}
                Ok(true) | Err(_) => return,
            }
        }
    }

    /// False if somebody wrote in between.
    async fn try_settle(&self, place: &Place<'_>, is_settled: fn(&Value) -> bool) -> Result<bool, Status> {
        let found = place.read().await?;
        let Some(stored) = found.stored.filter(|stored| !is_settled(stored.object.tree())) else {
            return Ok(true);
        };
        let mut tree = stored.object.tree().clone();
        tree["status"] = self.count_quota(place, &tree, found.now).await?;
        let object = Object::from_tree(tree);
        let put = place.put(self.planes(), found.guard, &object, None, Beside::default());
        Ok(put.await?.is_some())
    }

    /// Counts the quotas on objects of a definition that is gone with all of its objects, at once and by no write of theirs.
    pub(crate) async fn recount_quotas_of(&self, plane: &Plane, definition: &Object) {
        let spec = &definition.tree()["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = format!("count/{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
        let Ok((_, quotas)) = self.list_objects(plane, &QUOTAS, None).await else {
            return;
        };
        let info = api::table::find("", "v1", &QUOTAS.plural).expect("quotas are a built-in kind");
        let kind = Kind::BuiltIn(info);
        for quota in quotas {
            if quota.tree()["spec"]["hard"].get(&name).is_none() {
                continue;
            }
            let place = Place {
                plane,
                kind: &kind,
                namespace: Some(quota.namespace()),
                name: quota.name(),
            };
            for _ in 0..COUNT_TRIES {
                match self.try_settle(&place, |_| false).await {
                    Ok(false) => {}
                    Ok(true) | Err(_) => break,
                }
            }
        }
    }
}

/// Whether such a write may change what is used at all: a cheap look that most updates end with.
fn may_change(resource: &Resource, old: Option<&Value>, new: Option<&Value>) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return quota::is_counted_kind(resource);
    };
    let part_of_status = match &*resource.plural {
        "pods" => "phase",
        "persistentvolumeclaims" => "allocatedResources",
        _ => "",
    };
    quota::changes_with_updates(resource)
        && (old["spec"] != new["spec"] || old["status"][part_of_status] != new["status"][part_of_status])
}
