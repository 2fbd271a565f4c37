//! Rules of `metadata` that are alike for all kinds.

use std::time::SystemTime;

use serde_json::Value;
use world::{Clock, Random};

/// Upstream's `SimpleNameGenerator`: this many random characters of this alphabet (no vowels, nothing that looks like
/// another).
const GENERATED_CHARACTERS: usize = 5;
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A generated name's base is cut so that the whole is at most this long.
const GENERATED_NAME_MAX: usize = 63;

/// Now, as objects have it: RFC 3339, UTC, whole seconds.
pub fn now(clock: &dyn Clock) -> String {
    rfc3339(clock.wall())
}

pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// A moment of time as objects have it, read back.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    let seconds = u64::try_from(timestamp.as_second()).ok()?;
    Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

pub fn random_uid(random: &dyn Random) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// `base` and five random characters.
pub fn generate_name(base: &str, random: &dyn Random) -> String {
    let mut end = base.len().min(GENERATED_NAME_MAX - GENERATED_CHARACTERS);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.push_str(&random_suffix(random));
    name
}

pub fn random_suffix(random: &dyn Random) -> String {
    let mut bytes = [0; GENERATED_CHARACTERS];
    random.fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// What a client may not say of an object: it is computed, or not kept.
pub fn strip_on_write(tree: &mut Value) {
    if let Some(metadata) = tree["metadata"].as_object_mut() {
        for field in ["resourceVersion", "selfLink"] {
            metadata.remove(field);
        }
    }
}

/// A string field of `metadata`; empty if it is not there.
pub fn text<'a>(tree: &'a Value, field: &str) -> &'a str {
    tree["metadata"][field].as_str().unwrap_or("")
}

/// Sets a field of `metadata`, or takes it away.
pub fn set(tree: &mut Value, field: &str, value: Option<Value>) {
    let Some(metadata) = tree["metadata"].as_object_mut() else {
        return;
    };
    match value {
        Some(value) => {
            metadata.insert(field.to_owned(), value);
        }
        None => {
            metadata.remove(field);
        }
    }
}

/// Takes a field of `metadata` out.
pub fn take(tree: &mut Value, field: &str) -> Option<Value> {
    tree["metadata"].as_object_mut()?.remove(field)
}

pub fn finalizers(tree: &Value) -> Vec<String> {
    let finalizers = tree["metadata"]["finalizers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    finalizers.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub fn set_finalizers(tree: &mut Value, finalizers: Vec<String>) {
    set(tree, "finalizers", (!finalizers.is_empty()).then(|| finalizers.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_is_cut_to_fit() {
        let name = generate_name(&"x".repeat(100), &world::OsRandom);

        assert_eq!(name.len(), GENERATED_NAME_MAX);
        assert!(name.bytes().skip(58).all(|byte| ALPHABET.contains(&byte)));
        assert!(generate_name("web-", &world::OsRandom).starts_with("web-"));
    }

    #[test]
    fn time_is_in_whole_seconds_and_reads_back() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_767_225_600_900);

        assert_eq!(rfc3339(time), "2026-01-01T00:00:00Z");
        assert_eq!(
            parse_time("2026-01-01T00:00:00Z"),
            Some(time - std::time::Duration::from_millis(900))
        );
    }
}
