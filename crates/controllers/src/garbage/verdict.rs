//! Whether an object may stay, given what became of its owners.

use api::Object;
use client::Propagation;
use serde_json::Value;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// An owner as a dependent names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub blocks: bool,
}

pub fn owners(object: &Object) -> Vec<Owner> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let references = object.tree()["metadata"]["ownerReferences"].as_array();
    let owner = |reference: &Value| Owner {
        api_version: text(&reference["apiVersion"]),
        kind: text(&reference["kind"]),
        name: text(&reference["name"]),
        uid: text(&reference["uid"]),
        blocks: reference["blockOwnerDeletion"] == true,
    };
    references.into_iter().flatten().map(owner).collect()
}

pub fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    let finalizers = object.tree()["metadata"]["finalizers"].as_array();
    finalizers.into_iter().flatten().any(|has| has == finalizer)
}

/// Being deleted, and gone only after its dependents.
pub fn waits_for_dependents(object: &Object) -> bool {
    object.is_deleting() && has_finalizer(object, FOREGROUND)
}

/// Being deleted, and its dependents are to be left alone.
pub fn orphans_dependents(object: &Object) -> bool {
    object.is_deleting() && has_finalizer(object, ORPHAN)
}

/// What matters here: nothing else that changes makes the collector look.
pub fn is_relevant(object: &Object) -> bool {
    let owned = object.tree()["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| !owners.is_empty());
    owned || waits_for_dependents(object) || orphans_dependents(object)
}

pub fn differs(old: &Object, new: &Object) -> bool {
    let fields = ["uid", "ownerReferences", "finalizers", "deletionTimestamp"];
    fields
        .iter()
        .any(|field| old.tree()["metadata"][field] != new.tree()["metadata"][field])
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Solid,
    Absent,
    /// Waits for its dependents to go before it goes itself.
    Waiting,
    /// Its kind is not known (any more): nothing can be said.
    Unknown,
}

#[derive(PartialEq, Eq, Debug)]
pub enum Verdict {
    Keep,
    /// It stays for its other owners; these references go.
    Strip(Vec<String>),
    Delete(Propagation),
}

pub fn judge(object: &Object, owners: &[(Owner, State)], has_dependents: bool) -> Verdict {
    let any = |state: State| owners.iter().any(|(_, owner)| *owner == state);
    if owners.is_empty() || any(State::Unknown) {
        return Verdict::Keep;
    }
    if any(State::Solid) {
        let gone = owners.iter().filter(|(_, state)| *state != State::Solid);
        let gone: Vec<String> = gone.map(|(owner, _)| owner.uid.clone()).collect();
        return if gone.is_empty() {
            Verdict::Keep
        } else {
            Verdict::Strip(gone)
        };
    }
    if any(State::Waiting) && has_dependents {
        // Its own dependents go first too, so that the owner's wait means all below it.
        return Verdict::Delete(Propagation::Foreground);
    }
    Verdict::Delete(if has_finalizer(object, ORPHAN) {
        Propagation::Orphan
    } else if has_finalizer(object, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(uid: &str) -> Owner {
        Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: uid.into(),
            uid: uid.into(),
            blocks: true,
        }
    }

    #[test]
    fn an_object_goes_with_its_last_owner_and_not_before() {
        use State::*;
        let background = Verdict::Delete(Propagation::Background);
        let cases = [
            (vec![], Verdict::Keep),
            (vec![Solid], Verdict::Keep),
            (vec![Absent], background),
            (vec![Absent, Absent], Verdict::Delete(Propagation::Background)),
            (vec![Solid, Absent], Verdict::Strip(vec!["1".into()])),
            (vec![Waiting, Solid], Verdict::Strip(vec!["0".into()])),
            (vec![Waiting], Verdict::Delete(Propagation::Background)),
            (vec![Absent, Unknown], Verdict::Keep),
        ];
        let object = Object::from_tree(json!({"metadata": {}}));
        for (states, expected) in cases {
            let owners: Vec<_> = states
                .iter()
                .enumerate()
                .map(|(place, state)| (owner(&place.to_string()), *state))
                .collect();
            assert_eq!(judge(&object, &owners, false), expected, "{states:?}");
        }
    }

    #[test]
    fn a_waiting_owner_waits_for_everything_below() {
        let object = Object::from_tree(json!({"metadata": {}}));

        let verdict = judge(&object, &[(owner("o"), State::Waiting)], true);

        assert_eq!(verdict, Verdict::Delete(Propagation::Foreground));
    }

    #[test]
    fn an_object_that_orphans_its_dependents_does_so_when_it_is_collected() {
        let object = Object::from_tree(json!({"metadata": {"finalizers": ["orphan"]}}));

        assert_eq!(
            judge(&object, &[(owner("o"), State::Absent)], true),
            Verdict::Delete(Propagation::Orphan)
        );
    }
}
