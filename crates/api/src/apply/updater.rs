//! Who owns what after a write, and what an applied configuration takes away.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::Value;

use super::{
    check::Problems,
    compare::{Comparison, compare},
    conflict::Conflict,
    element::equal,
    fieldset::{fields_of, with_named_fields},
    filter::Filter,
    managed::{Managed, Manager, Owned},
    merge::merge,
    reconcile::reconcile,
    remove::remove,
    set::Set,
    shape::Shape,
};

/// What is known of the versions of one kind. Objects say their own in `apiVersion`.
pub trait Versions: Send + Sync {
    /// `None` if that version is not served (any more).
    fn shape(&self, api_version: &str) -> Option<Shape<'_>>;

    /// The object in another version; `None` if it is not served.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// Why a configuration is not applied.
#[derive(Debug)]
pub enum Refused {
    Conflicts(Vec<Conflict>),
    Problem(String),
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Refused {
        Refused::Problem(problems.to_string())
    }
}

/// What conflicts are for: found, or passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    Yes,
    No,
}

pub struct Updater<'a> {
    pub versions: &'a dyn Versions,
    pub filter: &'a Filter,
}

impl Updater<'_> {
    /// What `manager` owns after it changed `live` to `new` by other means than applying; all others own what is left
    /// to them.
    pub fn update(
        &self,
        live: &Value,
        new: &Value,
        api_version: &str,
        managed: Managed,
    ) -> Result<(Managed, Set), Problems> {
        let managed = self.reconciled(managed);
        let (managed, comparison) = match self.taken(live, new, api_version, managed, None, Force::Yes) {
            Ok(taken) => taken,
            Err(Refused::Problem(problem)) => return Err(Problems::of(problem)),
            Err(Refused::Conflicts(_)) => unreachable!("a forced write has no conflicts"),
        };
        Ok((managed, comparison.modified.union(comparison.added)))
    }

    /// The object with the configuration applied, or `None` if it is as it was; and who owns what then.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        api_version: &str,
        managed: Managed,
        manager: &Manager,
        force: Force,
    ) -> Result<(Option<Value>, Managed), Refused> {
        let shape = self.shape(api_version)?;
        let mut managed = self.reconciled(managed);
        let merged = merge(shape, live, config)
            .map_err(|problems| Refused::Problem(format!("failed to merge config: {problems}")))?;
        let last = managed.get(manager).cloned();
        let applied = Owned {
            api_version: api_version.to_owned(),
            set: self.filter.keep(fields_of(shape, config)),
            time: last.as_ref().and_then(|last| last.time.clone()),
        };
        managed.insert(manager.clone(), applied);
        let new = self.pruned(merged, &managed, last.as_ref(), api_version)?;
        let (managed, _) = self.taken(live, &new, api_version, managed, Some(manager), force)?;
        let same = same_but_for_nulls(live, &new);
        Ok(((!same).then_some(new), managed))
    }

    fn shape(&self, api_version: &str) -> Result<Shape<'_>, Refused> {
        self.versions
            .shape(api_version)
            .ok_or_else(|| Refused::Problem(format!("no corresponding type for {api_version}")))
    }

    /// The object in that version; `None` if it is not served.
    fn at<'v>(&self, object: &'v Value, api_version: &str) -> Option<Cow<'v, Value>> {
        if object["apiVersion"] == api_version {
            return Some(Cow::Borrowed(object));
        }
        self.versions.convert(object, api_version).map(Cow::Owned)
    }

    /// Takes from everybody but `manager` what the change gives to it or takes away, if that is not refused.
    fn taken(
        &self,
        live: &Value,
        new: &Value,
        api_version: &str,
        mut managed: Managed,
        manager: Option<&Manager>,
        force: Force,
    ) -> Result<(Managed, Comparison), Refused> {
        let whole = compare(self.shape(api_version)?, live, new)
            .map_err(|problems| Refused::Problem(format!("failed to compare objects: {problems}")))?;
        let mut comparisons: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        comparisons.insert(api_version.to_owned(), Some(self.filtered(whole)));
        for (_, owned) in managed.iter() {
            if !comparisons.contains_key(&owned.api_version) {
                let comparison = self.compared_at(live, new, &owned.api_version)?;
                comparisons.insert(owned.api_version.clone(), comparison);
            }
        }
        let of = |owned: &Owned| comparisons.get(&owned.api_version).and_then(Option::as_ref);
        let mut conflicts = Vec::new();
        if force == Force::No {
            for (other, owned) in managed.iter().filter(|(other, _)| Some(*other) != manager) {
                let Some(comparison) = of(owned) else { continue };
                let changed = |changes: &Set| owned.set.clone().intersection(changes);
                let taken = changed(&comparison.modified).union(changed(&comparison.added));
                conflicts.extend(taken.paths().into_iter().map(|path| Conflict {
                    manager: other.clone(),
                    path,
                }));
            }
        }
        if !conflicts.is_empty() {
            return Err(Refused::Conflicts(conflicts));
        }
        managed.retain(|other, owned| {
            if Some(other) == manager {
                return true;
            }
            // Who wrote in a version that is gone owns nothing.
            let Some(comparison) = of(owned) else { return false };
            for gone in [&comparison.modified, &comparison.added, &comparison.removed] {
                owned.set = std::mem::take(&mut owned.set).difference(gone);
            }
            true
        });
        let filtered = comparisons.remove(api_version).flatten().unwrap_or_default();
        Ok((managed, filtered))
    }

    fn compared_at(&self, live: &Value, new: &Value, api_version: &str) -> Result<Option<Comparison>, Refused> {
        let Some(shape) = self.versions.shape(api_version) else {
            return Ok(None);
        };
        let (Some(live), Some(new)) = (self.at(live, api_version), self.at(new, api_version)) else {
            return Ok(None);
        };
        Ok(Some(self.filtered(compare(shape, &live, &new)?)))
    }

    fn filtered(&self, comparison: Comparison) -> Comparison {
        Comparison {
            removed: self.filter.keep(comparison.removed),
            modified: self.filter.keep(comparison.modified),
            added: self.filter.keep(comparison.added),
        }
    }

    /// Without what the manager applied last time and does not now, unless somebody else owns it.
    fn pruned(
        &self,
        merged: Value,
        managed: &Managed,
        last: Option<&Owned>,
        api_version: &str,
    ) -> Result<Value, Refused> {
        let Some(last) = last.filter(|last| !last.set.is_empty()) else {
            return Ok(merged);
        };
        let (Some(shape), Some(converted)) = (
            self.versions.shape(&last.api_version),
            self.at(&merged, &last.api_version),
        ) else {
            return Ok(merged);
        };
        let pruned = remove(shape, &converted, &with_named_fields(&last.set, Some(shape)));
        let pruned = self.with_owned(converted.clone().into_owned(), pruned, &last.api_version, managed);
        let pruned = self.with_dangling(&converted, shape, pruned, last);
        match self.at(&pruned, api_version) {
            Some(pruned) => Ok(pruned.into_owned()),
            None => Err(Refused::Problem(format!(
                "failed to prune fields: no version {api_version}"
            ))),
        }
    }

    /// Puts back what others, or the new configuration, own; the version of what was pruned first.
    fn with_owned(&self, mut merged: Value, mut pruned: Value, version: &str, managed: &Managed) -> Value {
        let mut by_version: BTreeMap<&str, Set> = BTreeMap::new();
        for (_, owned) in managed.iter() {
            let set = by_version.entry(&owned.api_version).or_default();
            *set = std::mem::take(set).union(owned.set.clone());
        }
        let first = by_version.remove_entry(version);
        for (version, owned) in first.into_iter().chain(by_version) {
            let (Some(shape), Some(all), Some(left)) = (
                self.versions.shape(version),
                self.at(&merged, version),
                self.at(&pruned, version),
            ) else {
                continue;
            };
            let named = |set: &Set| with_named_fields(set, Some(shape));
            let kept = named(&fields_of(shape, &left)).union(named(&owned));
            let gone = named(&fields_of(shape, &all)).difference(&kept);
            let all = all.into_owned();
            pruned = remove(shape, &all, &gone);
            merged = all;
        }
        pruned
    }

    /// Puts back what the manager did not own: what nobody owns is not its to remove.
    fn with_dangling(&self, merged: &Value, shape: Shape<'_>, pruned: Value, last: &Owned) -> Value {
        let Some(pruned) = self.at(&pruned, &last.api_version) else {
            return merged.clone();
        };
        let named = |set: &Set| with_named_fields(set, Some(shape));
        let gone = named(&fields_of(shape, merged)).difference(&named(&fields_of(shape, &pruned)));
        remove(shape, merged, &gone.intersection(&named(&last.set)))
    }

    /// Sets as their types are now.
    fn reconciled(&self, mut managed: Managed) -> Managed {
        managed.retain(|_, owned| {
            let Some(shape) = self.versions.shape(&owned.api_version) else {
                return false;
            };
            if let Some(set) = reconcile(&owned.set, shape) {
                owned.set = set;
            }
            true
        });
        managed
    }
}

/// Whether two objects are the same; a null says no more than absence.
fn same_but_for_nulls(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let left = left.iter().filter(|(_, value)| !value.is_null());
            let right = right.iter().filter(|(_, value)| !value.is_null());
            left.clone().count() == right.clone().count()
                && left
                    .zip(right)
                    .all(|((name, left), (other, right))| name == other && same_but_for_nulls(left, right))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same_but_for_nulls(left, right))
        }
        _ => equal(left, right),
    }
}
