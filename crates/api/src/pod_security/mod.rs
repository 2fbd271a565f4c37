//! Pod Security Standards: what a Pod may ask of its machine, by the levels that its namespace is labelled with.
//!
//! The rules are those of upstream's newest version, whichever version a label names. [`Policy`] reads labels,
//! [`violations`] checks a Pod, in upstream's words.

mod baseline;
mod restricted;

use serde_json::Value;

use crate::{
    field::{self, Path},
    status::Cause,
};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// From the laxest to the strictest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// A level and the version that it was asked for in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standard {
    pub level: Level,
    version: String,
}

impl Standard {
    /// `restricted:latest`.
    pub fn shown(&self) -> String {
        format!("{}:{}", self.level.as_str(), self.version)
    }
}

/// What a namespace's labels say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    pub enforce: Standard,
    pub warn: Standard,
}

impl Policy {
    /// Where a label says nothing or nonsense, anything is allowed (upstream falls back to its defaults likewise).
    pub fn of_labels(labels: &Value) -> Policy {
        let text = |mode: &str| labels[format!("{PREFIX}{mode}")].as_str();
        let standard = |mode: &str| Standard {
            level: text(mode).and_then(Level::parse).unwrap_or(Level::Privileged),
            version: text(&format!("{mode}-version"))
                .filter(|version| is_version(version))
                .unwrap_or("latest")
                .to_owned(),
        };
        let (enforce, mut warn) = (standard("enforce"), standard("warn"));
        if text("warn").is_none() && enforce.level > warn.level {
            warn.level = enforce.level;
            if text("warn-version").is_none() {
                warn.version.clone_from(&enforce.version);
            }
        }
        Policy { enforce, warn }
    }
}

fn is_version(text: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    text == "latest" || text.strip_prefix("v1.").is_some_and(number)
}

/// What is wrong with a namespace's labels.
pub fn check_labels(labels: &Value) -> Vec<Cause> {
    let metadata = Path::ROOT.field("metadata");
    let path = metadata.field("labels");
    let mut causes = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let (level, version) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
        if let Some(text) = labels[&level].as_str().filter(|text| Level::parse(text).is_none()) {
            let detail = "must be one of privileged, baseline, restricted";
            causes.push(field::invalid(&path.key(&level), text, detail));
        }
        if let Some(text) = labels[&version].as_str().filter(|text| !is_version(text)) {
            let detail = "must be \"latest\" or \"v1.x\"";
            causes.push(field::invalid(&path.key(&version), text, detail));
        }
    }
    causes
}

/// One rule that a Pod breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Violation {
        Violation {
            reason: reason.into(),
            detail: detail.into(),
        }
    }
}

/// `reason (detail), reason (detail)`.
pub fn shown(violations: &[Violation]) -> String {
    let parts: Vec<String> = violations
        .iter()
        .map(|violation| format!("{} ({})", violation.reason, violation.detail))
        .collect();
    parts.join(", ")
}

/// The rules of a level that a Pod (or template) breaks, those of a laxer level first.
pub fn violations(level: Level, metadata: &Value, spec: &Value) -> Vec<Violation> {
    match level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::check(metadata, spec, level),
        Level::Restricted => {
            let mut found = baseline::check(metadata, spec, level);
            found.extend(restricted::check(spec));
            found
        }
    }
}

// What the rules are made of.

/// All containers, in upstream's order.
fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten())
}

fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or("")
}

/// The names of containers that are like this.
fn named(spec: &Value, is: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(spec).filter(|container| is(container)).map(name).collect()
}

/// `container "a"`, `containers "a", "b"`.
fn these(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

fn plural(noun: &str, count: usize) -> String {
    if count == 1 {
        noun.to_owned()
    } else {
        format!("{noun}s")
    }
}

fn quoted<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("\"{}\"", text.as_ref())).collect();
    quoted.join(", ")
}

/// Each once, in order.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let set: std::collections::BTreeSet<&str> = texts.collect();
    set.into_iter().collect()
}

/// `pod and containers "a", "b"`: who says something that may not be said.
fn sayers(pod: bool, names: &[&str]) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    if pod {
        parts.push("pod".to_owned());
    }
    if !names.is_empty() {
        parts.push(these(names));
    }
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// Whether the Pod has a user namespace of its own, where root is nobody outside.
fn has_own_users(spec: &Value) -> bool {
    spec["hostUsers"] == false
}

fn is_windows(spec: &Value) -> bool {
    spec["os"]["name"] == "windows"
}

#[cfg(test)]
mod tests;
