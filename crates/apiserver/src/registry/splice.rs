//! Putting `resourceVersion` into stored bytes without parsing them.

use bytes::Bytes;
use keyspace::Revision;

/// Where, in a canonically encoded object, the members of its `metadata` begin. `None` if there is no such place.
pub fn metadata_at(bytes: &[u8]) -> Option<usize> {
    const KEY: &[u8] = b"\"metadata\":{";
    let mut depth = 0_u32;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                if depth == 1 && bytes[at..].starts_with(KEY) {
                    return Some(at + KEY.len());
                }
                at += string_length(&bytes[at..])?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of the JSON string at the start of `bytes`, quotes included.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Appends the object with its `resourceVersion` to `out`.
pub fn splice_into(out: &mut Vec<u8>, stored: &[u8], revision: Revision) {
    // A dry run's object has no revision.
    match metadata_at(stored).filter(|_| revision.0 > 0) {
        Some(at) => {
            out.extend_from_slice(&stored[..at]);
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(revision.to_string().as_bytes());
            out.push(b'"');
            if stored.get(at) != Some(&b'}') {
                out.push(b',');
            }
            out.extend_from_slice(&stored[at..]);
        }
        None => out.extend_from_slice(stored),
    }
}

pub fn splice(stored: &[u8], revision: Revision) -> Bytes {
    let mut out = Vec::with_capacity(stored.len() + 48);
    splice_into(&mut out, stored, revision);
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_the_objects_own_metadata_is_touched() {
        let tree = json!({
            "data": {"metadata": {"a": "\"metadata\":{"}, "b": "\\"},
            "items": [{"metadata": {}}],
            "metadata": {"name": "one"},
            "spec": {"template": {"metadata": {"name": "two"}}},
        });

        let spliced: Value = serde_json::from_slice(&splice(tree.to_string().as_bytes(), Revision(7))).unwrap();

        let mut expected = tree;
        expected["metadata"]["resourceVersion"] = "7".into();
        assert_eq!(spliced, expected);
        assert_eq!(
            &*splice(b"{\"metadata\":{}}", Revision(1)),
            b"{\"metadata\":{\"resourceVersion\":\"1\"}}"
        );
    }

    proptest! {
        #[test]
        fn splicing_is_the_same_as_setting_the_field(data: std::collections::BTreeMap<String, String>, name: String) {
            let tree = json!({"data": data, "metadata": {"name": name}});

            let spliced: Value = serde_json::from_slice(&splice(tree.to_string().as_bytes(), Revision(42))).unwrap();

            let mut expected = tree;
            expected["metadata"]["resourceVersion"] = "42".into();
            prop_assert_eq!(spliced, expected);
        }
    }
}
