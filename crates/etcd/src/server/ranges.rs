//! Whether ranges of keys that were granted cover one that is asked for.

use std::ops::Bound;

use bytes::Bytes;
use keyspace::KeyRange;

/// The first key behind a range; `None` if there is none.
type End = Option<Bytes>;

/// `granted` as etcd has them: a key and the end of its range, empty for the one key, `\0` for all from the key on.
pub fn cover(granted: Vec<(Bytes, Bytes)>, keys: &KeyRange) -> bool {
    let mut granted: Vec<(Bytes, End)> = granted
        .into_iter()
        .map(|(key, end)| (key.clone(), end_of(&key, &end)))
        .collect();
    granted.sort();
    let wanted: End = match &keys.end {
        Bound::Unbounded => None,
        Bound::Excluded(end) => Some(end.clone()),
        Bound::Included(end) => Some(behind(end)),
    };
    // Everything before it is covered.
    let mut reached = keys.start.clone();
    for (start, end) in granted {
        if wanted.as_ref().is_some_and(|wanted| *wanted <= reached) {
            return true;
        }
        if start > reached {
            return false;
        }
        match end {
            None => return true,
            Some(end) => reached = reached.max(end),
        }
    }
    wanted.is_some_and(|wanted| wanted <= reached)
}

fn end_of(key: &Bytes, end: &Bytes) -> End {
    match &end[..] {
        b"" => Some(behind(key)),
        b"\0" => None,
        _ => Some(end.clone()),
    }
}

/// The next key there can be.
fn behind(key: &Bytes) -> Bytes {
    [&key[..], b"\0"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(granted: &[(&'static str, &'static str)], keys: KeyRange) -> bool {
        let granted = granted.iter().map(|(key, end)| (Bytes::from(*key), Bytes::from(*end)));
        cover(granted.collect(), &keys)
    }

    #[test]
    fn ranges_next_to_each_other_cover_what_lies_across() {
        let halves = [("b", "d"), ("a", "b")];
        assert!(covers(&halves, KeyRange::between("a", "d")));
        assert!(covers(&halves, KeyRange::one("c")));
        assert!(!covers(&halves, KeyRange::one("d")));
        assert!(!covers(&halves, KeyRange::between("a", "e")));
        assert!(!covers(&[("a", "b"), ("c", "d")], KeyRange::between("a", "d")));
        assert!(!covers(&[], KeyRange::one("a")));
        assert!(covers(&[("a", "\0")], KeyRange::prefix("z")));
        assert!(!covers(&[("a", "")], KeyRange::prefix("a")));
        assert!(covers(
            &[("\0", "\0")],
            KeyRange {
                start: "\0".into(),
                end: Bound::Unbounded
            }
        ));
        assert!(covers(
            &[("a", "b"), ("aa", "ab"), ("b", "c")],
            KeyRange::between("ab", "c")
        ));
    }
}
