//! Jobs and CronJobs.

use serde_json::Value;

use super::{
    check::{Check, text},
    ingress::check_prefixed_path,
    job_policy,
    workload::{check_selector_matches, check_template},
};
use crate::{field::Path, names};

pub fn check_job(check: &mut Check, job: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &job["spec"];
    check_job_spec(check, &path, spec);
    if spec["selector"].is_null() {
        check.required(&path.field("selector"), "");
    } else {
        check.label_selector(&path.field("selector"), &spec["selector"]);
        check_selector_matches(check, &path, spec);
    }
    if old.is_none() && spec["manualSelector"] != true {
        let selected = &spec["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"];
        if *selected != job["metadata"]["uid"] {
            check.invalid(
                &path.field("selector"),
                spec["selector"].clone(),
                "`selector` not auto-generated",
            );
        }
    }
    if let Some(old) = old {
        check_job_update(check, &path, spec, &old["spec"]);
        return;
    }
    let last = spec["completions"]
        .as_i64()
        .filter(|count| *count > 0 && spec["completionMode"] == "Indexed");
    if let Some(last) = last {
        // Each Pod's host name is the Job's with its index.
        let name = text(&job["metadata"]["name"]);
        let host = format!("{name}-{}", last - 1);
        if !names::dns1123_label(&host).is_empty() {
            let metadata = Path::ROOT.field("metadata");
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            check.invalid(&metadata.field("name"), name, detail);
        }
    }
}

fn check_job_update(check: &mut Check, path: &Path, spec: &Value, old: &Value) {
    // A suspended Job that never started may still be placed elsewhere.
    let suspended = old["suspend"] == true;
    for field in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        check.immutable(&path.field(field), &spec[field], &old[field]);
    }
    if spec["completionMode"] != "Indexed" {
        check.immutable(&path.field("completions"), &spec["completions"], &old["completions"]);
    } else if spec["completions"] != old["completions"] && spec["completions"] != spec["parallelism"] {
        let detail = "can only be modified in tandem with spec.parallelism";
        check.invalid(&path.field("completions"), spec["completions"].clone(), detail);
    }
    let mut munged = spec["template"].clone();
    if suspended && munged["spec"].is_object() && old["template"]["spec"].is_object() {
        for field in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
            take_back(&mut munged["spec"], &old["template"]["spec"], field);
        }
        if !munged["metadata"].is_null() {
            munged["metadata"] = old["template"]["metadata"].clone();
        }
        for kind in ["containers", "initContainers"] {
            let before = old["template"]["spec"][kind].as_array();
            // Looked up, not indexed: that would put a null where there is none.
            let containers = munged["spec"].get_mut(kind).and_then(Value::as_array_mut);
            for (container, before) in containers.into_iter().flatten().zip(before.into_iter().flatten()) {
                take_back(container, before, "resources");
            }
        }
    }
    check.immutable(&path.field("template"), &munged, &old["template"]);
}

/// Makes a field what it was before, absent if it was.
fn take_back(tree: &mut Value, before: &Value, field: &str) {
    match before.get(field) {
        Some(value) => tree[field] = value.clone(),
        None => {
            tree.as_object_mut().map(|fields| fields.remove(field));
        }
    }
}

fn check_job_spec(check: &mut Check, path: &Path, spec: &Value) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        check.non_negative(&path.field(field), &spec[field]);
    }
    let mode_path = path.field("completionMode");
    check.one_of_or_none(&mode_path, &spec["completionMode"], &["Indexed", "NonIndexed"]);
    let indexed = spec["completionMode"] == "Indexed";
    if indexed && spec["completions"].is_null() {
        check.required(&path.field("completions"), "when completion mode is Indexed");
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        check.required(
            &path.field("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        );
    }
    if indexed {
        check_indexed_counts(check, path, spec);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if !spec[field].is_null() {
                check.invalid(
                    &path.field(field),
                    spec[field].clone(),
                    "requires indexed completion mode",
                );
            }
        }
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        let path = path.field("managedBy");
        check_prefixed_path(check, &path, manager);
        if manager.len() > MANAGER_BYTES_MAX {
            check.causes.push(crate::field::too_long(&path, MANAGER_BYTES_MAX));
        }
    }
    if !spec["podFailurePolicy"].is_null() {
        job_policy::check_failure_policy(check, &path.field("podFailurePolicy"), spec);
    }
    let success = path.field("successPolicy");
    if !spec["successPolicy"].is_null() {
        if indexed {
            job_policy::check_success_policy(check, &success, spec);
        } else {
            check.invalid(
                &success,
                spec["successPolicy"].clone(),
                "requires indexed completion mode",
            );
        }
    }
    let replacement = path.field("podReplacementPolicy");
    if !spec["podReplacementPolicy"].is_null() {
        if !spec["podFailurePolicy"].is_null() {
            check.one_of_or_none(&replacement, &spec["podReplacementPolicy"], &["Failed"]);
        } else {
            let supported = ["Failed", "TerminatingOrFailed"];
            check.one_of_or_none(&replacement, &spec["podReplacementPolicy"], &supported);
        }
    }
    let template_path = path.field("template");
    check_template(check, &template_path, &spec["template"]);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if !matches!(text(policy), "OnFailure" | "Never") {
        let spec_path = template_path.field("spec");
        let path = spec_path.field("restartPolicy");
        if policy == "Always" || policy.is_null() {
            check.required(&path, "valid values: \"OnFailure\", \"Never\"");
        } else {
            check.not_supported(&path, policy.clone(), &["Never", "OnFailure"]);
        }
    } else if policy == "OnFailure" && !spec["podFailurePolicy"].is_null() {
        let spec_path = template_path.field("spec");
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        check.invalid(&spec_path.field("restartPolicy"), policy.clone(), detail);
    }
}

/// Upstream's bounds of what one status can say of indexes.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;

const FAILED_INDEXES_MAX: i64 = 100_000;

const MANAGER_BYTES_MAX: usize = 63;

fn check_indexed_counts(check: &mut Check, path: &Path, spec: &Value) {
    let number = |field: &str| spec[field].as_i64();
    let mut above = |field: &str, most: i64, detail: String| {
        if let Some(value) = number(field).filter(|value| *value > most) {
            check.invalid(&path.field(field), value, detail);
        }
    };
    above(
        "parallelism",
        INDEXED_PARALLELISM_MAX,
        format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"),
    );
    if let Some(completions) = number("completions") {
        let detail = "must be less than or equal to completions".to_owned();
        above("maxFailedIndexes", completions, detail);
    }
    let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
    above("maxFailedIndexes", FAILED_INDEXES_MAX, detail);
}

/// A CronJob's name leaves room for the time in its Jobs' names.
const CRON_JOB_NAME_MAX: usize = 52;

pub fn check_cron_job(check: &mut Check, cron_job: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &cron_job["spec"];
    let schedule = text(&spec["schedule"]);
    if schedule.is_empty() {
        check.required(&path.field("schedule"), "");
    } else if let Err(problem) = parse_schedule(schedule) {
        check.invalid(&path.field("schedule"), schedule, problem);
    } else if schedule.contains("TZ") && old.is_none() {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        check.invalid(&path.field("schedule"), schedule, detail);
    }
    for field in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        check.non_negative(&path.field(field), &spec[field]);
    }
    let policy = path.field("concurrencyPolicy");
    check.one_of(&policy, &spec["concurrencyPolicy"], &["Allow", "Forbid", "Replace"]);
    if let Some(zone) = spec["timeZone"].as_str() {
        check_time_zone(check, &path.field("timeZone"), zone);
    }
    let template = path.field("jobTemplate");
    check_job_spec(check, &template.field("spec"), &spec["jobTemplate"]["spec"]);
    let name = text(&cron_job["metadata"]["name"]);
    if old.is_none() && name.len() > CRON_JOB_NAME_MAX && names::dns1123_subdomain(name).is_empty() {
        let metadata = Path::ROOT.field("metadata");
        check.invalid(&metadata.field("name"), name, "must be no more than 52 characters");
    }
}

/// Whether it may be the name of a time zone; which there are is for whoever keeps the time.
fn check_time_zone(check: &mut Check, path: &Path, zone: &str) {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    let part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.starts_with('-')
            && part.len() <= 14
            && part.bytes().all(letter)
    };
    if zone.is_empty() {
        check.invalid(path, zone, "timeZone must be nil or non-empty string");
    } else if !zone.split('/').all(part) {
        check.invalid(path, zone, format!("unknown time zone {zone}"));
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        check.invalid(path, zone, detail);
    }
}

/// Whether a schedule has the form that cron reads: five fields, or a descriptor.
fn parse_schedule(schedule: &str) -> Result<(), String> {
    let schedule = match schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => schedule,
    };
    if let Some(descriptor) = schedule.strip_prefix('@') {
        let every = descriptor
            .strip_prefix("every ")
            .map(str::trim)
            .filter(|rest| !rest.is_empty());
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        return if known.contains(&descriptor) || every.is_some() {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: @{descriptor}"))
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let rules: [(u32, u32, &[&str]); 5] = [
        (0, 59, &[]),
        (0, 23, &[]),
        (1, 31, &[]),
        (1, 12, &MONTHS),
        (0, 6, &DAYS),
    ];
    for (field, (low, high, words)) in fields.iter().zip(rules) {
        for part in field.split(',') {
            check_schedule_part(part, low, high, words)?;
        }
    }
    Ok(())
}

fn check_schedule_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(at) = words.iter().position(|word| *word == text.to_lowercase()) {
            return Ok(low + at as u32);
        }
        text.parse().map_err(|_| format!("failed to parse int from {text}"))
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, number(step)?),
        None => (part, 1),
    };
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if matches!(range, "*" | "?") {
        return Ok(());
    }
    let (start, end) = match range.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(range)?, number(range)?),
    };
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {part}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_checked() {
        for good in [
            "* * * * *",
            "*/5 0-3 1,15 jan-dec mon",
            "@hourly",
            "@every 5m",
            "0 0 * * 0",
            "TZ=UTC 1 2 3 4 5",
        ] {
            assert!(parse_schedule(good).is_ok(), "{good}");
        }
        for (bad, words) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(parse_schedule(bad).unwrap_err(), words);
        }
    }
}
