//! How a watch learns that it has seen everything up to a revision.
//!
//! etcd has a request for it, but before 3.4.31 and 3.5.13 the answer could run ahead of events that were still on their
//! way (etcd#15220; the API server of Kubernetes draws the same line). For those, a key of ours is put, the *bookmark*,
//! and watched by the same watcher: its event comes in its place among all others. That costs a write, and needs the
//! watcher to watch all of the keyspace: events of two watchers of one stream have no order between them.

/// Where progress comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgressBy {
    /// etcd's own `WatchProgressRequest`.
    Request,
    /// A key of ours that is put.
    Bookmark,
}

impl ProgressBy {
    pub(crate) fn for_version(version: &str) -> ProgressBy {
        let mut numbers = version
            .split(['.', '-', '+'])
            .map(|number| number.parse::<u32>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        match (next(), next(), next()) {
            (0..=2, _, _) | (3, 0..=3, _) | (3, 4, 0..=30) | (3, 5, 0..=12) => ProgressBy::Bookmark,
            _ => ProgressBy::Request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_answer_too_early_are_not_asked() {
        for (version, expected) in [
            ("3.4.23", ProgressBy::Bookmark),
            ("3.4.30", ProgressBy::Bookmark),
            ("3.4.31", ProgressBy::Request),
            ("3.5.1", ProgressBy::Bookmark),
            ("3.5.12", ProgressBy::Bookmark),
            ("3.5.13", ProgressBy::Request),
            ("3.6.0-rc.1", ProgressBy::Request),
            ("4.0.0", ProgressBy::Request),
            ("", ProgressBy::Bookmark),
        ] {
            assert_eq!(ProgressBy::for_version(version), expected, "{version}");
        }
    }
}
