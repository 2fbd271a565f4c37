//! The names of a definition beside those of a plane's others: accepted as far as nobody has them yet, and what its
//! conditions say about it, in upstream's words (`apiextensions-apiserver/pkg/controller/status`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The names that other definitions of the same group have.
#[derive(Default)]
pub struct Taken {
    /// Plurals, singulars and short names: what stands in paths and on command lines.
    pub resources: BTreeSet<String>,
    /// Kinds and kinds of lists.
    pub kinds: BTreeSet<String>,
}

/// Sets the accepted names, the conditions and the stored versions of a definition's status, with the write itself, so
/// that what it defines is served when its maker has the answer.
pub fn accept(tree: &mut Value, taken: &Taken, now: &str) {
    let wanted = with_defaults(&tree["spec"]["names"]);
    let mut accepted = tree["status"]["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = json!({"plural": "", "kind": ""});
    }
    let mut conflict: Option<(&str, String)> = None;
    for (field, set, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("shortNames", &taken.resources, "ShortNamesConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        let names: Vec<&str> = match &wanted[field] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect(),
        };
        let clashes: Vec<String> = names
            .into_iter()
            .filter(|name| !name.is_empty() && set.contains(*name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        match clashes.as_slice() {
            [] => put(&mut accepted, field, &wanted[field]),
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    put(&mut accepted, "categories", &wanted["categories"]);
    tree["status"]["acceptedNames"] = accepted;
    match conflict {
        None => {
            set_condition(tree, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
            let message = "the initial names have been accepted";
            set_condition(tree, "Established", "True", "InitialNamesAccepted", message, now);
        }
        Some((reason, message)) => {
            set_condition(tree, "NamesAccepted", "False", reason, &message, now);
            if !is_true(tree, "Established") {
                let message = "not all names are accepted";
                set_condition(tree, "Established", "False", "NotAccepted", message, now);
            }
        }
    }
    keep_stored_version(tree);
}

/// Whether a definition waits for names that others have.
pub fn waits(tree: &Value) -> bool {
    condition(tree, "NamesAccepted").is_some_and(|it| it["status"] == "False")
}

fn with_defaults(names: &Value) -> Value {
    let mut names = names.clone();
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if names["listKind"].is_null() {
        names["listKind"] = format!("{kind}List").into();
    }
    if names["singular"].is_null() {
        names["singular"] = kind.to_lowercase().into();
    }
    names
}

fn put(accepted: &mut Value, field: &str, value: &Value) {
    let Some(fields) = accepted.as_object_mut() else { return };
    if value.is_null() {
        fields.remove(field);
    } else {
        fields.insert(field.to_owned(), value.clone());
    }
}

/// Objects may be stored in that version from now on.
fn keep_stored_version(tree: &mut Value) {
    let mut stored: Vec<Value> = tree["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    let storage = tree["spec"]["versions"]
        .as_array()
        .and_then(|versions| versions.iter().find(|version| version["storage"] == true))
        .map(|version| version["name"].clone());
    if let Some(storage) = storage.filter(|storage| !stored.contains(storage)) {
        stored.push(storage);
    }
    tree["status"]["storedVersions"] = stored.into();
}

fn condition<'a>(tree: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = tree["status"]["conditions"].as_array()?;
    conditions.iter().find(|it| it["type"] == kind)
}

fn is_true(tree: &Value, kind: &str) -> bool {
    condition(tree, kind).is_some_and(|it| it["status"] == "True")
}

/// Sets a condition; its time is that of the last change of its status.
pub fn set_condition(tree: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let conditions = &mut tree["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut new = json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(condition) => {
            if condition["status"] == status {
                new["lastTransitionTime"] = condition["lastTransitionTime"].clone();
            }
            // What was set once by the names stays set.
            if kind != "Established" || condition["status"] != status {
                *condition = new;
            }
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(short: &str) -> Value {
        json!({"spec": {"names": {"plural": "hats", "kind": "Hat", "shortNames": [short]},
            "versions": [{"name": "v1", "storage": true}]}})
    }

    fn taken(names: &[&str]) -> Taken {
        Taken {
            resources: names.iter().map(|name| (*name).to_owned()).collect(),
            kinds: BTreeSet::new(),
        }
    }

    #[test]
    fn names_that_nobody_has_are_accepted() {
        let mut hats = definition("ht");

        accept(&mut hats, &taken(&["coats"]), "then");
        let first = hats.clone();
        accept(&mut hats, &taken(&[]), "now");

        assert_eq!(
            first["status"]["acceptedNames"],
            json!({"plural": "hats", "singular": "hat", "kind": "Hat", "listKind": "HatList", "shortNames": ["ht"]})
        );
        assert!(is_true(&first, "Established") && !waits(&first));
        assert_eq!(first["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(hats, first, "nothing changes when nothing changed");
    }

    #[test]
    fn one_name_in_use_keeps_a_new_definition_back_and_not_one_that_is_served() {
        let mut new = definition("ct");
        let mut served = definition("ht");
        accept(&mut served, &taken(&[]), "then");
        served["spec"]["names"]["shortNames"] = json!(["ct"]);

        for tree in [&mut new, &mut served] {
            accept(tree, &taken(&["coats", "ct"]), "now");
        }

        let said = condition(&new, "NamesAccepted").unwrap();
        assert_eq!(said["reason"], "ShortNamesConflict");
        assert_eq!(said["message"], "\"ct\" is already in use");
        assert!(!is_true(&new, "Established") && waits(&new));
        assert!(is_true(&served, "Established") && waits(&served));
        assert_eq!(served["status"]["acceptedNames"]["shortNames"], json!(["ht"]));
    }
}
