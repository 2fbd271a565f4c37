//! What a CronJob needs now, given the Jobs that are its own.

use std::time::Duration;

use api::{
    Object,
    resource::{CRON_JOBS, JOBS},
};
use client::EventType;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::schedule::{self, MISSED_MAX, Schedule};
use crate::{job::Conditions, ownership, pod_template::set_metadata, time};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

#[derive(Debug, Default)]
pub struct Plan {
    /// Finished and more than are kept.
    pub forget: Vec<Object>,
    /// Still run, and are to make room (`Replace`).
    pub replace: Vec<Object>,
    pub start: Option<Start>,
    /// The status to write, without what `start` brings, as a merge patch; `None` if it stands.
    pub status: Option<Value>,
    pub tell: Vec<(EventType, &'static str, String)>,
    pub look_again: Option<Duration>,
}

#[derive(Debug)]
pub struct Start {
    pub body: Value,
    pub scheduled: Timestamp,
}

pub fn plan(cron_job: &Object, jobs: &[Object], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let active = settle(cron_job, jobs, &mut plan);
    forget(cron_job, jobs, &mut plan);
    let spec = &cron_job.tree()["spec"];
    if !cron_job.is_deleting() && spec["suspend"] != true {
        schedule(cron_job, &active, now, &mut plan);
    }
    plan
}

/// Those that run, with the status kept true.
fn settle<'a>(cron_job: &Object, jobs: &'a [Object], plan: &mut Plan) -> Vec<&'a Object> {
    let status = &cron_job.tree()["status"];
    let listed = status["active"].as_array();
    let known = |job: &Object| listed.into_iter().flatten().any(|active| active["uid"] == job.uid());
    let mut active = Vec::new();
    let mut last_success = status["lastSuccessfulTime"].clone();
    for job in jobs {
        let conditions = Conditions::of(job);
        let Some(finished) = conditions.finished() else {
            active.push(job);
            continue;
        };
        if known(job) {
            let how = finished["type"].as_str().unwrap_or("");
            let message = format!("Saw completed job: {}, condition: {how}", job.name());
            plan.tell.push((EventType::Normal, "SawCompletedJob", message));
        }
        let ended = &job.tree()["status"]["completionTime"];
        if finished["type"] == "Complete" && time::parse(ended) > time::parse(&last_success) {
            last_success = ended.clone();
        }
    }
    active.sort_by(|one, other| one.name().cmp(other.name()));
    let references: Vec<Value> = active.iter().map(|job| reference(job)).collect();
    let references = if references.is_empty() {
        Value::Null
    } else {
        json!(references)
    };
    let mut changed = json!({});
    if !same_jobs(&status["active"], &references) {
        changed["active"] = references;
    }
    if status["lastSuccessfulTime"] != last_success {
        changed["lastSuccessfulTime"] = last_success;
    }
    plan.status = (changed != json!({})).then_some(changed);
    active
}

fn same_jobs(one: &Value, other: &Value) -> bool {
    let uids = |list: &Value| -> std::collections::BTreeSet<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|job| job["uid"].as_str().map(str::to_owned)).collect()
    };
    uids(one) == uids(other)
}

pub fn reference(job: &Object) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": job.namespace(), "name": job.name(),
        "uid": job.uid(), "resourceVersion": job.resource_version()})
}

fn forget(cron_job: &Object, jobs: &[Object], plan: &mut Plan) {
    let spec = &cron_job.tree()["spec"];
    for (kind, limit) in [
        ("Complete", "successfulJobsHistoryLimit"),
        ("Failed", "failedJobsHistoryLimit"),
    ] {
        let Some(limit) = spec[limit].as_u64() else { continue };
        let mut finished: Vec<&Object> = jobs
            .iter()
            .filter(|job| !job.is_deleting() && Conditions::of(job).is_true(kind))
            .collect();
        finished.sort_by_key(|job| (time::parse(&job.tree()["status"]["startTime"]), job.name().to_owned()));
        let excess = finished
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        plan.forget.extend(finished.into_iter().take(excess).cloned());
    }
}

fn schedule(cron_job: &Object, active: &[&Object], now: Timestamp, plan: &mut Plan) {
    let spec = &cron_job.tree()["spec"];
    let (line, zone) = (spec["schedule"].as_str().unwrap_or(""), spec["timeZone"].as_str());
    let schedule = match Schedule::parse(line, zone) {
        Ok(schedule) => schedule,
        Err(error) => {
            // Nothing to do until it is mended.
            let reason = match error {
                schedule::Error::TimeZone(_) => "UnknownTimeZone",
                schedule::Error::Schedule { .. } => "UnparseableSchedule",
            };
            return plan.tell.push((EventType::Warning, reason, error.to_string()));
        }
    };
    // A little after, so that the time has come by the wall clock too.
    let next = |after: Timestamp| {
        let until = schedule.next(after)?.duration_since(now);
        Some(until.unsigned_abs() + Duration::from_millis(1))
    };
    let deadline = spec["startingDeadlineSeconds"].as_i64();
    let last = time::parse(&cron_job.tree()["status"]["lastScheduleTime"]);
    let created = time::parse(&cron_job.tree()["metadata"]["creationTimestamp"]);
    let mut since = last.or(created).unwrap_or(now);
    if let Some(earliest) = deadline.and_then(|seconds| now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok())
    {
        since = since.max(earliest);
    }
    let Some((scheduled, missed)) = schedule::last_due(&schedule, since, now) else {
        // An `@every` counts from the last time; a crontab line goes by the clock.
        plan.look_again = match schedule {
            Schedule::Every(_) => next(since),
            Schedule::Crontab(_) => next(now),
        };
        return;
    };
    if missed > MISSED_MAX {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.tell
            .push((EventType::Warning, "TooManyMissedTimes", message.to_owned()));
    }
    plan.look_again = match schedule {
        Schedule::Every(_) => next(scheduled),
        Schedule::Crontab(_) => next(now),
    };
    if last == Some(scheduled) {
        return;
    }
    match spec["concurrencyPolicy"].as_str() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.tell
                .push((EventType::Normal, "JobAlreadyActive", message.to_owned()));
            return;
        }
        Some("Replace") => plan.replace = active.iter().map(|job| (*job).clone()).collect(),
        _ => {}
    }
    plan.start = Some(Start {
        body: job(cron_job, scheduled),
        scheduled,
    });
}

/// Named after its minute, so that one time starts one Job however often it is tried.
fn job(cron_job: &Object, scheduled: Timestamp) -> Value {
    let template = &cron_job.tree()["spec"]["jobTemplate"];
    let mut job = json!({
        "apiVersion": JOBS.api_version(), "kind": JOBS.kind,
        "metadata": {"name": format!("{}-{}", cron_job.name(), scheduled.as_second() / 60),
            "ownerReferences": [ownership::reference(cron_job, &CRON_JOBS)]},
        "spec": template["spec"],
    });
    for map in ["labels", "annotations"] {
        if template["metadata"][map].is_object() {
            job["metadata"][map] = template["metadata"][map].clone();
        }
    }
    let zone = cron_job.tree()["spec"]["timeZone"].as_str();
    let zone = zone.and_then(|zone| jiff::tz::TimeZone::get(zone).ok());
    let text = match zone {
        Some(zone) => scheduled.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        None => time::text(scheduled),
    };
    set_metadata(&mut job, "annotations", SCHEDULED_AT, &text);
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron_job(change: impl FnOnce(&mut Value)) -> Object {
        let mut tree = json!({
            "metadata": {"name": "tick", "namespace": "n", "uid": "c", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "suspend": false,
                "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
                "jobTemplate": {"metadata": {"labels": {"app": "tick"}}, "spec": {"template": {}}}}});
        change(&mut tree);
        Object::from_tree(tree)
    }

    fn job(name: &str, condition: Option<&str>, ended: &str) -> Object {
        let conditions = condition.map(|kind| json!([{"type": kind, "status": "True"}]));
        Object::from_tree(json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "status": {"conditions": conditions, "startTime": ended, "completionTime": ended}}))
    }

    #[test]
    fn it_fires_when_its_time_has_come_and_sleeps_until_then() {
        let early = plan(&cron_job(|_| {}), &[], at("2026-01-01T00:00:45Z"));
        assert!(early.start.is_none());
        assert_eq!(early.look_again, Some(Duration::from_millis(15_001)));

        let due = plan(&cron_job(|_| {}), &[], at("2026-01-01T00:01:00.2Z"));
        let start = due.start.unwrap();
        assert_eq!(start.scheduled, at("2026-01-01T00:01:00Z"));
        assert_eq!(start.body["metadata"]["name"], "tick-29453761");
        assert_eq!(start.body["metadata"]["labels"], json!({"app": "tick"}));
        assert_eq!(
            start.body["metadata"]["annotations"][SCHEDULED_AT],
            "2026-01-01T00:01:00Z"
        );

        let done = cron_job(|tree| tree["status"]["lastScheduleTime"] = json!("2026-01-01T00:01:00Z"));
        assert!(plan(&done, &[], at("2026-01-01T00:01:30Z")).start.is_none());
    }

    #[test]
    fn of_missed_times_only_the_last_is_made_up_for_within_the_deadline() {
        let now = at("2026-01-01T00:10:20Z");

        let late = plan(&cron_job(|_| {}), &[], now);
        assert_eq!(late.start.unwrap().scheduled, at("2026-01-01T00:10:00Z"));
        let strict = cron_job(|tree| tree["spec"]["startingDeadlineSeconds"] = json!(10));
        assert!(plan(&strict, &[], now).start.is_none());
        let weeks = plan(&cron_job(|_| {}), &[], at("2026-01-15T00:00:10Z"));
        assert_eq!(weeks.tell[0].1, "TooManyMissedTimes");
        assert!(weeks.start.is_some());
    }

    #[test]
    fn what_still_runs_is_left_waited_for_or_replaced() {
        let now = at("2026-01-01T00:01:00Z");
        let running = [job("tick-1", None, "2026-01-01T00:00:40Z")];
        let with = |policy: &str| cron_job(|tree| tree["spec"]["concurrencyPolicy"] = json!(policy));

        assert!(plan(&with("Allow"), &running, now).start.is_some());
        let forbids = plan(&with("Forbid"), &running, now);
        assert_eq!(
            (forbids.start.is_some(), forbids.tell[0].1),
            (false, "JobAlreadyActive")
        );
        let replaces = plan(&with("Replace"), &running, now);
        assert_eq!((replaces.start.is_some(), replaces.replace.len()), (true, 1));
    }

    #[test]
    fn history_is_kept_to_its_limits_and_the_status_is_true() {
        let jobs = [
            job("a", Some("Complete"), "2026-01-01T00:00:31Z"),
            job("b", Some("Complete"), "2026-01-01T00:00:35Z"),
            job("c", Some("Failed"), "2026-01-01T00:00:33Z"),
            job("d", None, "2026-01-01T00:00:36Z"),
        ];
        let told = cron_job(|tree| tree["status"] = json!({"active": [{"uid": "b"}]}));

        let plan = plan(&told, &jobs, at("2026-01-01T00:00:40Z"));

        assert_eq!(plan.forget.iter().map(Object::name).collect::<Vec<_>>(), ["a"]);
        let status = plan.status.unwrap();
        assert_eq!(status["active"][0]["name"], "d");
        assert_eq!(status["lastSuccessfulTime"], "2026-01-01T00:00:35Z");
        assert_eq!(plan.tell[0].2, "Saw completed job: b, condition: Complete");
    }

    #[test]
    fn what_is_suspended_or_wrong_does_not_fire() {
        let now = at("2026-01-01T00:05:00Z");

        let suspended = plan(&cron_job(|tree| tree["spec"]["suspend"] = json!(true)), &[], now);
        assert!(suspended.start.is_none() && suspended.look_again.is_none());
        let wrong = plan(
            &cron_job(|tree| tree["spec"]["timeZone"] = json!("Mars/Base")),
            &[],
            now,
        );
        assert_eq!(
            (wrong.tell[0].1, &*wrong.tell[0].2),
            ("UnknownTimeZone", "unknown time zone Mars/Base")
        );
    }
}
