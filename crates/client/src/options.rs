//! What a request may ask for besides its path.

use serde_json::{Value, json};

use crate::query::Query;

#[derive(Clone, Default, Debug)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub limit: Option<u32>,
    pub continue_token: Option<String>,
    pub resource_version: Option<String>,
    /// Ask for `PartialObjectMetadata` only.
    pub metadata_only: bool,
}

#[derive(Clone, Default, Debug)]
pub struct WatchOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Events after this revision; from now on if absent.
    pub resource_version: Option<String>,
    /// Begin with everything that exists, ended by a bookmark (`WatchList`).
    pub send_initial_events: bool,
    pub timeout_seconds: Option<u32>,
    /// Ask for `PartialObjectMetadata` only.
    pub metadata_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Default, Debug)]
pub struct DeleteOptions {
    pub grace_seconds: Option<u32>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only the object in this state.
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    /// Only the object with this uid, whatever its state.
    pub fn of_uid(uid: &str) -> DeleteOptions {
        DeleteOptions {
            uid: Some(uid.to_owned()),
            ..DeleteOptions::default()
        }
    }
}

/// How to change an object without putting it back whole.
#[derive(Clone, PartialEq, Debug)]
pub enum Patch {
    /// RFC 6902; a `test` operation makes it conditional.
    Json(Value),
    /// RFC 7386; `metadata.uid` and `metadata.resourceVersion` in it are preconditions.
    Merge(Value),
    /// Merges lists by key; built-in kinds only.
    Strategic(Value),
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Json(_) => "application/json-patch+json",
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
        }
    }

    pub fn body(&self) -> &Value {
        match self {
            Patch::Json(value) | Patch::Merge(value) | Patch::Strategic(value) => value,
        }
    }
}

impl ListOptions {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.text("labelSelector", self.label_selector.as_deref());
        query.text("fieldSelector", self.field_selector.as_deref());
        query.text("limit", self.limit.map(|limit| limit.to_string()).as_deref());
        query.text("continue", self.continue_token.as_deref());
        query.text("resourceVersion", self.resource_version.as_deref());
        query
    }
}

impl WatchOptions {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.text("watch", Some("true"));
        query.text("allowWatchBookmarks", Some("true"));
        query.text("labelSelector", self.label_selector.as_deref());
        query.text("fieldSelector", self.field_selector.as_deref());
        query.text("resourceVersion", self.resource_version.as_deref());
        query.text(
            "timeoutSeconds",
            self.timeout_seconds.map(|seconds| seconds.to_string()).as_deref(),
        );
        if self.send_initial_events {
            query.text("sendInitialEvents", Some("true"));
            query.text("resourceVersionMatch", Some("NotOlderThan"));
        }
        query
    }
}

impl DeleteOptions {
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = json!(uid);
        }
        if let Some(revision) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = json!(revision);
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = json!(match propagation {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            });
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_carries_only_what_was_asked() {
        let plain = DeleteOptions::default().body();
        let precise = DeleteOptions {
            grace_seconds: Some(0),
            propagation: Some(Propagation::Orphan),
            ..DeleteOptions::of_uid("u1")
        }
        .body();

        assert_eq!(plain, json!({"kind": "DeleteOptions", "apiVersion": "v1"}));
        assert_eq!(precise["preconditions"], json!({"uid": "u1"}));
        assert_eq!(precise["gracePeriodSeconds"], 0);
        assert_eq!(precise["propagationPolicy"], "Orphan");
    }
}
