//! The query options of requests: `ListOptions`, `CreateOptions`, `DeleteOptions` and their like, in one.

use api::{Reason, Status};

/// How a list's or get's `resourceVersion` is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// What stands after the `?`. Unknown options are ignored, as upstream does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub resource_version_match: Option<VersionMatch>,
    pub limit: Option<usize>,
    /// `continue`.
    pub continue_token: String,
    pub watch: bool,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
    /// Not empty means "change nothing"; the only value is `All`.
    pub dry_run: String,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: String,
    pub orphan_dependents: Option<bool>,
    /// `includeObject`, of Tables.
    pub include_object: String,
    pub pretty: bool,
    /// All options as they came, for those that only one subresource knows (`container`, `command`, `follow`).
    pub raw: Vec<(String, String)>,
}

/// What to do about fields that a kind does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl Query {
    pub fn parse(query: &str) -> Result<Query, Status> {
        let mut parsed = Query::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            parsed.raw.push((key.into_owned(), value.into_owned()));
        }
        for at in 0..parsed.raw.len() {
            let (key, value) = parsed.raw[at].clone();
            parsed.set(&key, value)?;
        }
        Ok(parsed)
    }

    /// The first value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.raw.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), Status> {
        match key {
            "labelSelector" => self.label_selector = value,
            "fieldSelector" => self.field_selector = value,
            "resourceVersion" => self.resource_version = value,
            "resourceVersionMatch" => {
                self.resource_version_match = match value.as_str() {
                    "" => None,
                    "Exact" => Some(VersionMatch::Exact),
                    "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                    _ => return Err(wrong(key, &value, "supported values: \"Exact\", \"NotOlderThan\"")),
                }
            }
            "limit" => {
                let limit: i64 = number(key, &value)?;
                self.limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
            }
            "continue" => self.continue_token = value,
            "watch" => self.watch = boolean(key, &value)?,
            "allowWatchBookmarks" => self.allow_watch_bookmarks = boolean(key, &value)?,
            "sendInitialEvents" => self.send_initial_events = Some(boolean(key, &value)?),
            "timeoutSeconds" => {
                let seconds: i64 = number(key, &value)?;
                self.timeout_seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
            }
            "dryRun" => match value.as_str() {
                "" => {}
                "All" => self.dry_run = value,
                _ => return Err(wrong(key, &value, "supported values: \"All\"")),
            },
            "fieldManager" => self.field_manager = value,
            "fieldValidation" => {
                self.field_validation = match value.as_str() {
                    "" | "Warn" => FieldValidation::Warn,
                    "Ignore" => FieldValidation::Ignore,
                    "Strict" => FieldValidation::Strict,
                    _ => return Err(wrong(key, &value, "supported values: \"Ignore\", \"Strict\", \"Warn\"")),
                }
            }
            "force" => self.force = boolean(key, &value)?,
            "gracePeriodSeconds" => self.grace_period_seconds = Some(number(key, &value)?),
            "propagationPolicy" => self.propagation_policy = value,
            "orphanDependents" => self.orphan_dependents = Some(boolean(key, &value)?),
            "includeObject" => self.include_object = value,
            "pretty" => self.pretty = value != "false" && value != "0",
            _ => {}
        }
        Ok(())
    }
}

/// As upstream's conversion of query values: an empty value is true, `0` and `false` are not.
fn boolean(key: &str, value: &str) -> Result<bool, Status> {
    match value.to_ascii_lowercase().as_str() {
        "" | "true" | "1" | "t" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => Err(wrong(key, value, "must be a boolean")),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Status> {
    value.parse().map_err(|_| wrong(key, value, "must be an integer"))
}

fn wrong(key: &str, value: &str, rule: &str) -> Status {
    Status::new(Reason::BadRequest, format!("{key}: Invalid value: {value:?}: {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_upstream_reads_them() {
        let query = Query::parse("watch=1&allowWatchBookmarks=&limit=0&labelSelector=a%3Db%2Cc&command=sh&command=-c");

        let query = query.unwrap();

        assert!(query.watch && query.allow_watch_bookmarks);
        assert_eq!(query.limit, None);
        assert_eq!(query.label_selector, "a=b,c");
        assert_eq!(query.option("command"), Some("sh"));
        assert_eq!(query.raw.iter().filter(|(key, _)| key == "command").count(), 2);
    }

    #[test]
    fn a_wrong_option_is_a_bad_request() {
        for query in ["limit=many", "dryRun=Some", "fieldValidation=Maybe", "watch=perhaps"] {
            assert_eq!(Query::parse(query).unwrap_err().code(), 400, "{query}");
        }
    }
}
