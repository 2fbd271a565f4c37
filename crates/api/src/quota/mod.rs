//! ResourceQuotas: what an object counts for ([`usage`]), which objects a quota is for ([`scopes`]), and what a write
//! does to a quota's status ([`charge`]).
//!
//! Pure: whoever stores objects calls [`charge`] with every write and stores the new status with the object, so that
//! `status.used` is always the sum over what is stored.

mod scopes;
mod usage;

use serde_json::{Value, json};

use crate::{
    Resource,
    amounts::{Amounts, add, amounts, shown},
    quantity::Quantity,
};

pub use scopes::matches as matches_scopes;
pub use usage::{changes_with_updates, is_counted_kind, resources_of, usage};

/// Whether the status says what is used of all that the spec bounds.
pub fn is_counted(quota: &Value) -> bool {
    let hard = amounts(&quota["spec"]["hard"]);
    let used = &quota["status"]["used"];
    amounts(&quota["status"]["hard"]) == hard && hard.keys().all(|name| used.get(name).is_some())
}

/// Counting a quota's objects one by one.
pub struct Count<'a> {
    quota: &'a Value,
    hard: Amounts,
    used: Amounts,
}

impl<'a> Count<'a> {
    pub fn new(quota: &'a Value) -> Count<'a> {
        let hard = amounts(&quota["spec"]["hard"]);
        let used = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
        Count { quota, hard, used }
    }

    pub fn add(&mut self, resource: &Resource, object: &Value) {
        add(&mut self.used, &share(self.quota, &self.hard, resource, object));
    }

    /// The quota's status.
    pub fn status(&self) -> Value {
        json!({"hard": self.quota["spec"]["hard"], "used": written(&self.used)})
    }
}

/// What one object takes of a quota.
fn share(quota: &Value, hard: &Amounts, resource: &Resource, object: &Value) -> Amounts {
    if !matches_scopes(quota, resource, object) {
        return Amounts::new();
    }
    let mut taken = usage(resource, object);
    taken.retain(|name, amount| hard.contains_key(name) && !amount.is_zero());
    taken
}

/// Whether more may be taken than there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdraft {
    Refused,
    Allowed,
}

/// The quota's status after a write that makes `new` of `old`; `None` if it stays as it is. The error says why the
/// write is not to be, in upstream's words. The quota is [counted](is_counted).
pub fn charge(
    quota: &Value,
    resource: &Resource,
    old: Option<&Value>,
    new: Option<&Value>,
    overdraft: Overdraft,
) -> Result<Option<Value>, String> {
    let name = quota["metadata"]["name"].as_str().unwrap_or_default();
    let hard = amounts(&quota["spec"]["hard"]);
    let of = |object: Option<&Value>| object.map_or_else(Amounts::new, |it| share(quota, &hard, resource, it));
    if let (None, Some(new)) = (old, new)
        && let Some(missing) = usage::missing(quota, &hard, resource, new)
    {
        return Err(format!("failed quota: {name}: must specify {missing}"));
    }
    let (before, after) = (of(old), of(new));
    if let Some((name, _)) = after.iter().find(|(_, amount)| amount.is_negative()) {
        return Err(format!("quota usage is negative for resource(s): {name}"));
    }
    if before == after {
        return Ok(None);
    }
    let mut used = amounts(&quota["status"]["used"]);
    let zero = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(Quantity::ZERO);
    let (mut requested, mut was, mut limited) = (Amounts::new(), Amounts::new(), Amounts::new());
    for name in hard.keys() {
        let (less, more, now) = (zero(&before, name), zero(&after, name), zero(&used, name));
        if more > less && now + more - less > hard[name] {
            requested.insert(name.clone(), more - less);
            was.insert(name.clone(), now);
            limited.insert(name.clone(), hard[name]);
        }
        if more != less {
            // Never below nothing, whatever was written into the status.
            used.insert(name.clone(), (now + more - less).max(Quantity::ZERO));
        }
    }
    if !requested.is_empty() && overdraft == Overdraft::Refused {
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            shown(&requested),
            shown(&was),
            shown(&limited)
        ));
    }
    Ok(Some(json!({"hard": quota["spec"]["hard"], "used": written(&used)})))
}

fn written(amounts: &Amounts) -> Value {
    amounts
        .iter()
        .map(|(name, amount)| (name.clone(), Value::String(amount.to_string())))
        .collect::<serde_json::Map<String, Value>>()
        .into()
}

#[cfg(test)]
mod tests;
