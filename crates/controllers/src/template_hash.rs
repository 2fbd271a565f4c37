//! When two Pod templates are one, and the short name that each has.

use serde_json::Value;

/// On the Pods and ReplicaSets of a Deployment; not part of the template it is made from.
pub const HASH_LABEL: &str = "pod-template-hash";

/// A template without its hash, and without what says nothing.
pub fn plain(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    if let Some(metadata) = template["metadata"].as_object_mut() {
        metadata.remove("creationTimestamp");
    }
    prune(&mut template);
    template
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !value.is_null());
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Ten letters and digits, as upstream's; the same template gives the same hash until `collisions` changes.
pub fn hash(template: &Value, collisions: i64) -> String {
    let mut hash = 0x811c_9dc5u32;
    digest(&plain(template), &mut hash);
    if collisions > 0 {
        feed(&collisions.to_le_bytes(), &mut hash);
    }
    // Vowels and what looks like them are left out, so that no words come about.
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let digits = hash.to_string();
    digits
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// FNV-1a.
fn feed(bytes: &[u8], hash: &mut u32) {
    for byte in bytes {
        *hash = (*hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
}

/// Keys in order, whatever order the tree keeps them in.
fn digest(value: &Value, hash: &mut u32) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            feed(b"{", hash);
            for (key, value) in fields {
                feed(key.as_bytes(), hash);
                feed(b":", hash);
                digest(value, hash);
            }
            feed(b"}", hash);
        }
        Value::Array(items) => {
            feed(b"[", hash);
            items.iter().for_each(|item| digest(item, hash));
            feed(b"]", hash);
        }
        plain => feed(plain.to_string().as_bytes(), hash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_does_not_depend_on_order_or_on_itself_and_changes_with_collisions() {
        let one =
            json!({"metadata": {"labels": {"app": "web", "pod-template-hash": "x"}}, "spec": {"a": 1, "b": null}});
        let other = json!({"spec": {"a": 1}, "metadata": {"labels": {"app": "web"}}});

        assert_eq!(hash(&one, 0), hash(&other, 0));
        assert_ne!(hash(&one, 0), hash(&one, 1));
        assert!((1..=10).contains(&hash(&one, 0).len()));
    }
}
