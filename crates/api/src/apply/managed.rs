//! `metadata.managedFields`: who owns which fields, and since when.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

use super::{fields, set::Set};

/// So many writers by update are told apart; older ones are put together (upstream's `DefaultMaxUpdateManagers`).
pub const UPDATERS_MAX: usize = 10;

/// The name under which they are.
const ANCIENT: &str = "ancient-changes";

/// How somebody came to own fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who owns fields. One who applies is the same whatever version they apply in, one who updates is not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Empty for those who apply.
    pub api_version: String,
    pub subresource: String,
}

impl Manager {
    pub fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Manager {
        Manager {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => api_version.to_owned(),
            },
            subresource: subresource.to_owned(),
        }
    }
}

/// As conflicts name them.
impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// What one owns, in the version in which they wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owned {
    pub api_version: String,
    pub set: Set,
    /// When they last changed something.
    pub time: Option<String>,
}

/// All owners of an object's fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Managed(BTreeMap<Manager, Owned>);

impl Managed {
    /// Reads `metadata.managedFields`.
    pub fn read(entries: &Value) -> Result<Managed, String> {
        let mut managed = Managed::default();
        for (at, entry) in entries.as_array().into_iter().flatten().enumerate() {
            let text = |field: &str| entry[field].as_str().unwrap_or("");
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
            }
            let set = fields::read(&entry["fieldsV1"]).map_err(|error| format!("error decoding set: {error}"))?;
            let mut manager = Manager::new(text("manager"), operation, api_version, text("subresource"));
            text("manager").clone_into(&mut manager.name);
            let owned = Owned {
                api_version: api_version.to_owned(),
                set,
                time: entry["time"].as_str().map(str::to_owned),
            };
            managed.0.insert(manager, owned);
        }
        Ok(managed)
    }

    /// As objects carry it, those who apply first, then by age; `None` if nobody owns anything.
    pub fn write(&self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut entries: Vec<(&Manager, &Owned)> = self.0.iter().collect();
        entries.sort_by(|left, right| order(*left, *right));
        Some(
            entries
                .into_iter()
                .map(|(manager, owned)| entry(manager, owned))
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, manager: &Manager) -> Option<&Owned> {
        self.0.get(manager)
    }

    pub fn insert(&mut self, manager: Manager, owned: Owned) {
        self.0.insert(manager, owned);
    }

    pub fn remove(&mut self, manager: &Manager) -> Option<Owned> {
        self.0.remove(manager)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &Owned)> {
        self.0.iter()
    }

    /// Changes what each owns; those that own nothing any more, or are not to be kept, are left out.
    pub fn retain(&mut self, mut keep: impl FnMut(&Manager, &mut Owned) -> bool) {
        self.0
            .retain(|manager, owned| keep(manager, owned) && !owned.set.is_empty());
    }

    /// Puts the oldest updaters of each version together until there are not too many.
    pub fn cap_updaters(&mut self) {
        let mut updaters: Vec<Manager> = self
            .0
            .keys()
            .filter(|manager| manager.operation == Operation::Update)
            .cloned()
            .collect();
        let mut count = updaters.len();
        if count <= UPDATERS_MAX {
            return;
        }
        updaters.sort_by_cached_key(|manager| (self.0[manager].time.clone(), manager.clone()));
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updaters {
            if count <= UPDATERS_MAX {
                break;
            }
            let version = self.0[&manager].api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, manager);
                continue;
            };
            let bucket = Manager::new(ANCIENT, Operation::Update, &version, "");
            let old = match manager == bucket {
                true => self.0.remove(first),
                false => self.0.remove(&bucket).or_else(|| self.0.remove(first)),
            };
            if let (Some(old), Some(newer)) = (old, self.0.remove(&manager)) {
                let set = newer.set.union(old.set);
                self.0.insert(bucket, Owned { set, ..newer });
            }
            count -= 1;
        }
    }
}

fn order((left, left_owned): (&Manager, &Owned), (right, right_owned): (&Manager, &Owned)) -> Ordering {
    // What has no time counts as the oldest.
    let key = |owned: &Owned| owned.time.clone().unwrap_or_default();
    left.operation
        .cmp(&right.operation)
        .then_with(|| key(left_owned).cmp(&key(right_owned)))
        .then_with(|| left.name.cmp(&right.name))
        .then_with(|| left_owned.api_version.cmp(&right_owned.api_version))
        .then_with(|| left.subresource.cmp(&right.subresource))
}

fn entry(manager: &Manager, owned: &Owned) -> Value {
    let mut entry = Map::new();
    let mut set = |field: &str, value: Value| entry.insert(field.to_owned(), value);
    set("apiVersion", owned.api_version.clone().into());
    set("fieldsType", "FieldsV1".into());
    set("fieldsV1", fields::write(&owned.set));
    if !manager.name.is_empty() {
        set("manager", manager.name.clone().into());
    }
    set("operation", manager.operation.as_str().into());
    if !manager.subresource.is_empty() {
        set("subresource", manager.subresource.clone().into());
    }
    if let Some(time) = &owned.time {
        set("time", time.clone().into());
    }
    Value::Object(entry)
}

/// Whether a writer asks to forget all owners: `[]`, or one empty entry.
pub fn asks_to_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one
            .as_object()
            .is_some_and(|fields| fields.values().all(|value| value.is_null() || *value == json!(""))),
        _ => false,
    }
}
