//! When a Job ends early: by how its Pods failed, or by which of them succeeded.

use std::collections::HashSet;

use serde_json::Value;

use super::check::{Check, Seen, list, text};
use crate::{
    field::{self, Path},
    names,
};

const RULES_MAX: usize = 20;

const EXIT_CODES_MAX: usize = 255;

const PATTERNS_MAX: usize = 20;

const INDEXES_BYTES_MAX: usize = 64 * 1024;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Go's `%q` of a list.
fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

pub fn check_failure_policy(check: &mut Check, path: &Path, spec: &Value) {
    let rules = list(&spec["podFailurePolicy"]["rules"]);
    let rules_path = path.field("rules");
    if rules.len() > RULES_MAX {
        check.causes.push(field::too_many(&rules_path, rules.len(), RULES_MAX));
    }
    let pod = &spec["template"]["spec"];
    let containers: HashSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|kind| list(&pod[kind]))
        .map(|container| text(&container["name"]))
        .collect();
    for (at, rule) in rules.iter().enumerate() {
        let path = rules_path.index(at);
        let action = text(&rule["action"]);
        let action_path = path.field("action");
        if action.is_empty() {
            check.required(&action_path, format!("valid values: {}", quoted(&ACTIONS)));
        } else if action == "FailIndex" && spec["backoffLimitPerIndex"].is_null() {
            check.invalid(&action_path, action, "requires the backoffLimitPerIndex to be set");
        } else if !ACTIONS.contains(&action) {
            check.not_supported(&action_path, action, &ACTIONS);
        }
        if !rule["onExitCodes"].is_null() {
            check_exit_codes(check, &path.field("onExitCodes"), &rule["onExitCodes"], &containers);
        }
        check_conditions(check, &path.field("onPodConditions"), &rule["onPodConditions"]);
        match (rule["onExitCodes"].is_null(), list(&rule["onPodConditions"]).is_empty()) {
            (false, false) => check.causes.push(field::invalid_whole(
                &path,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            )),
            (true, true) => check.causes.push(field::invalid_whole(
                &path,
                "specifying one of OnExitCodes and OnPodConditions is required",
            )),
            _ => {}
        }
    }
}

fn check_exit_codes(check: &mut Check, path: &Path, codes: &Value, containers: &HashSet<&str>) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    let operator = text(&codes["operator"]);
    if operator.is_empty() {
        let detail = format!("valid values: {}", quoted(&OPERATORS));
        check.required(&path.field("operator"), detail);
    } else if !OPERATORS.contains(&operator) {
        check.not_supported(&path.field("operator"), operator, &OPERATORS);
    }
    if let Some(name) = codes["containerName"].as_str()
        && !containers.contains(name)
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        check.invalid(&path.field("containerName"), name, detail);
    }
    let values_path = path.field("values");
    let values = list(&codes["values"]);
    if values.is_empty() {
        check.invalid(&values_path, codes["values"].clone(), "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        check
            .causes
            .push(field::too_many(&values_path, values.len(), EXIT_CODES_MAX));
    }
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let mut seen = Seen::default();
    for (at, value) in values.iter().enumerate() {
        let path = values_path.index(at);
        if operator == "In" && number(value) == 0 {
            check.invalid(&path, value.clone(), "must not be 0 for the In operator");
        }
        if seen.again(value.to_string()) {
            check.duplicate(&path, value.clone());
        }
    }
    if values.windows(2).any(|pair| number(&pair[0]) > number(&pair[1])) {
        check.invalid(&values_path, codes["values"].clone(), "must be ordered");
    }
}

fn check_conditions(check: &mut Check, path: &Path, patterns: &Value) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    let patterns = list(patterns);
    if patterns.len() > PATTERNS_MAX {
        check.causes.push(field::too_many(path, patterns.len(), PATTERNS_MAX));
    }
    for (at, pattern) in patterns.iter().enumerate() {
        let path = path.index(at);
        let kind = text(&pattern["type"]);
        check.named(&path.field("type"), kind, names::qualified_name(kind));
        let status = text(&pattern["status"]);
        if status.is_empty() {
            let detail = format!("valid values: {}", quoted(&STATUSES));
            check.required(&path.field("status"), detail);
        } else if !STATUSES.contains(&status) {
            check.not_supported(&path.field("status"), status, &STATUSES);
        }
    }
}

pub fn check_success_policy(check: &mut Check, path: &Path, spec: &Value) {
    let rules = list(&spec["successPolicy"]["rules"]);
    let rules_path = path.field("rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        check.required(&rules_path, detail);
    }
    if rules.len() > RULES_MAX {
        check.causes.push(field::too_many(&rules_path, rules.len(), RULES_MAX));
    }
    let completions = spec["completions"].as_i64().unwrap_or(0);
    for (at, rule) in rules.iter().enumerate() {
        let path = rules_path.index(at);
        let (count, indexes) = (&rule["succeededCount"], &rule["succeededIndexes"]);
        if count.is_null() && indexes.is_null() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            check.required(&path, detail);
        }
        let mut total = 0;
        let indexes_path = path.field("succeededIndexes");
        if let Some(indexes) = indexes.as_str() {
            if indexes.len() > INDEXES_BYTES_MAX {
                check.causes.push(field::too_long(&indexes_path, INDEXES_BYTES_MAX));
            }
            match count_indexes(indexes, completions) {
                Ok(found) => total = found,
                Err(why) => {
                    let detail = format!("error parsing succeededIndexes: {why}");
                    check.invalid(&indexes_path, indexes, detail);
                }
            }
        }
        let count_path = path.field("succeededCount");
        check.non_negative(&count_path, count);
        if let Some(count) = count.as_i64() {
            if count > completions {
                let detail =
                    format!("must be less than or equal to {completions} (the number of specified completions)");
                check.invalid(&count_path, count, detail);
            }
            if indexes.is_string() && count > total {
                let detail = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes \
                     field)"
                );
                check.invalid(&count_path, count, detail);
            }
        }
    }
}

/// How many indexes `1,3-5` names, rising and below the number of completions.
fn count_indexes(indexes: &str, completions: i64) -> Result<i64, String> {
    if indexes.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total): (Option<i64>, i64) = (None, 0);
    for interval in indexes.split(',') {
        let number = |text: &str| {
            let parsed = text.parse::<i64>();
            parsed.map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let mut parts = interval.split('-');
        let first = number(parts.next().unwrap_or(""))?;
        let end = parts.next().map(number).transpose()?;
        if parts.next().is_some() {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        for index in [Some(first), end].into_iter().flatten() {
            if index >= completions {
                return Err(format!("too large index: {:?}", index.to_string()));
            }
        }
        let end = match end {
            Some(end) if first >= end => {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
            Some(end) => end,
            None => first,
        };
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}
