//! What a write makes of `metadata.managedFields`: the way of every create, update, patch and apply.

use serde_json::{Value, json};

use super::{
    check::check,
    conflict,
    filter::Filter,
    managed::{Managed, Manager, Operation, Owned, asks_to_reset},
    migration,
    set::Set,
    updater::{Force, Refused, Updater, Versions},
};
use crate::{
    Resource,
    status::{Reason, Status},
};

/// Owns what was there when somebody applied to an object that had no owners.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// One write, and who does it.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub versions: &'a dyn Versions,
    pub filter: &'a Filter,
    /// As it is written, not as it is stored.
    pub resource: &'a Resource,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub manager: &'a str,
    /// RFC 3339, UTC, whole seconds.
    pub now: &'a str,
}

impl Write<'_> {
    fn updater(&self) -> Updater<'_> {
        Updater {
            versions: self.versions,
            filter: self.filter,
        }
    }

    fn nothing(&self) -> Value {
        json!({"apiVersion": self.resource.api_version(), "kind": self.resource.kind})
    }

    /// For a new object.
    pub fn created(&self, new: &mut Value) {
        self.updated(&self.nothing(), new);
    }

    /// For an object that was changed by other means than applying.
    pub fn updated(&self, live: &Value, new: &mut Value) {
        let given = new["metadata"]
            .as_object_mut()
            .and_then(|metadata| metadata.remove("managedFields"))
            .unwrap_or_default();
        let managed = self.owners(live, &given);
        let owners = if managed.is_empty() && !uid(live).is_empty() {
            // Nobody owns anything of it until somebody applies to it.
            None
        } else {
            match self.changed(live, new, managed, self.manager) {
                Ok(managed) => managed.write(),
                // Rather what was true before than nothing.
                Err(_) => live["metadata"].get("managedFields").cloned(),
            }
        };
        set_owners(new, owners);
    }

    /// From whom the change takes: whom the writer names, or whom the object has.
    fn owners(&self, live: &Value, given: &Value) -> Managed {
        let of_live = || Managed::read(&live["metadata"]["managedFields"]).unwrap_or_default();
        if !self.subresource.is_empty() {
            return of_live();
        }
        if asks_to_reset(given) {
            return Managed::default();
        }
        match Managed::read(given) {
            Ok(managed) if !managed.is_empty() => managed,
            _ => of_live(),
        }
    }

    /// All owners after `manager` changed the object.
    fn changed(
        &self,
        live: &Value,
        new: &Value,
        managed: Managed,
        manager: &str,
    ) -> Result<Managed, super::check::Problems> {
        let api_version = self.resource.api_version();
        let (mut managed, own) = self.updater().update(live, new, &api_version, managed)?;
        let own = own.difference(stripped());
        if !own.is_empty() {
            let manager = Manager::new(manager, Operation::Update, &api_version, self.subresource);
            let set = match managed.remove(&manager) {
                Some(before) => own.union(before.set),
                None => own,
            };
            let time = Some(self.now.to_owned());
            managed.insert(manager, Owned { api_version, set, time });
        }
        managed.cap_updaters();
        Ok(managed)
    }

    /// The object with the configuration applied; `None` for `live` if there is none yet.
    pub fn applied(&self, live: Option<&Value>, config: &Value, force: Force) -> Result<Value, Status> {
        self.check_configuration(config)?;
        let nothing;
        let live = match live {
            Some(live) => live,
            None => {
                nothing = self.nothing();
                &nothing
            }
        };
        let plain = |problem: String| Status::new(Reason::Unknown, problem);
        let mut managed = Managed::read(&live["metadata"]["managedFields"])
            .map_err(|problem| plain(format!("failed to decode managed fields: {problem}")))?;
        let mut live = live.clone();
        set_owners(&mut live, None);
        if managed.is_empty() {
            managed = self
                .changed(&self.nothing(), &live, managed, BEFORE_FIRST_APPLY)
                .map_err(|problems| plain(format!("failed to create manager for existing fields: {problems}")))?;
        }
        let api_version = self.resource.api_version();
        let shape = self
            .versions
            .shape(&api_version)
            .ok_or_else(|| plain(format!("no corresponding type for {}", self.gvk())))?;
        check(shape, config).map_err(|problems| {
            plain(format!(
                "failed to create typed patch object ({}; {}): {problems}",
                self.place(config),
                self.gvk()
            ))
        })?;
        let manager = Manager::new(self.manager, Operation::Apply, &api_version, self.subresource);
        let updater = self.updater();
        let apply = |force| updater.apply(&live, config, &api_version, managed.clone(), &manager, force);
        let outcome = match apply(force) {
            Err(Refused::Conflicts(conflicts)) if self.manager == migration::KUBECTL => {
                let left = migration::unexplained(shape, &live, conflicts);
                if left.is_empty() {
                    apply(Force::Yes)
                } else {
                    Err(Refused::Conflicts(left))
                }
            }
            outcome => outcome,
        };
        let (new, mut managed) = outcome.map_err(|refused| match refused {
            Refused::Conflicts(conflicts) => conflict::refusal(&conflicts),
            Refused::Problem(problem) => plain(problem),
        })?;
        let changed = new.is_some();
        managed.retain(|other, owned| {
            if *other == manager {
                owned.set = std::mem::take(&mut owned.set).difference(stripped());
            }
            true
        });
        if changed && let Some(mut owned) = managed.remove(&manager) {
            owned.time = Some(self.now.to_owned());
            managed.insert(manager, owned);
        }
        let mut object = new.unwrap_or(live);
        set_owners(&mut object, managed.write());
        if self.manager == migration::KUBECTL {
            migration::keep_annotation(&mut object, config);
        }
        Ok(object)
    }

    /// A configuration is of this kind and version, and says nothing of owners.
    fn check_configuration(&self, config: &Value) -> Result<(), Status> {
        let bad = |message: String| Status::new(Reason::BadRequest, message);
        let text = |field: &str| config[field].as_str().unwrap_or("");
        if text("apiVersion") != self.resource.api_version() || text("kind") != self.resource.kind {
            let (group, version) = match text("apiVersion").split_once('/') {
                Some((group, version)) => (group, version),
                None => ("", text("apiVersion")),
            };
            let kind = text("kind");
            return Err(bad(format!("invalid object type: {group}/{version}, Kind={kind}")));
        }
        if config["metadata"]["managedFields"].is_array() {
            return Err(bad("metadata.managedFields must be nil".to_owned()));
        }
        Ok(())
    }

    fn gvk(&self) -> String {
        let Resource {
            group, version, kind, ..
        } = self.resource;
        format!("{group}/{version}, Kind={kind}")
    }

    fn place(&self, object: &Value) -> String {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
        format!("{}/{}", text("namespace"), text("name"))
    }
}

/// Puts back the times of `old` if nothing but times differs.
pub fn keep_times(old: &Value, new: &mut Value) {
    let (before, after) = (&old["metadata"]["managedFields"], &new["metadata"]["managedFields"]);
    let (Value::Array(entries), Value::Array(others)) = (before, after) else {
        return;
    };
    let same = before != after
        && entries.len() == others.len()
        && entries
            .iter()
            .zip(others)
            .all(|(one, other)| same_but(one, other, &["time"]))
        && same_but(old, new, &["metadata"])
        && same_but(
            &old["metadata"],
            &new["metadata"],
            &["managedFields", "resourceVersion"],
        );
    if same {
        set_owners(new, Some(before.clone()));
    }
}

/// Whether two maps are the same in all but these fields.
fn same_but(left: &Value, right: &Value, ignored: &[&str]) -> bool {
    fn kept<'v>(value: &'v Value, ignored: &'v [&str]) -> impl Iterator<Item = (&'v String, &'v Value)> {
        let fields = value.as_object().into_iter().flatten();
        fields.filter(move |(name, _)| !ignored.contains(&name.as_str()))
    }
    kept(left, ignored).eq(kept(right, ignored))
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or("")
}

fn set_owners(object: &mut Value, owners: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    match owners {
        Some(owners) => metadata.insert("managedFields".to_owned(), owners),
        None => metadata.remove("managedFields"),
    };
}

/// What nobody owns.
fn stripped() -> &'static Set {
    static STRIPPED: std::sync::OnceLock<Set> = std::sync::OnceLock::new();
    STRIPPED.get_or_init(|| {
        Set::of([
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    })
}

/// The name that a writer has who gives none: the first word of their user agent.
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or("");
    // Upstream's limit of a manager's name, and only what can be shown.
    name.chars()
        .filter(|c| !c.is_control())
        .take(MANAGER_CHARS_MAX)
        .collect()
}

/// Upstream's `FieldManagerMaxLength`.
pub const MANAGER_CHARS_MAX: usize = 128;
