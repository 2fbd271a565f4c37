//! When a CronJob fires: crontab lines, the usual `@` words, and time zones.

use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::{Timestamp, tz::TimeZone};

/// Missed times are looked for one by one up to this many, as upstream does; beyond, it is told that there are too many.
pub const MISSED_MAX: usize = 100;

#[derive(Debug)]
pub enum Schedule {
    Crontab(Box<Crontab>),
    /// `@every 1h30m`, from the last time on.
    Every(Duration),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unparseable schedule: {schedule:?}: {reason}")]
    Schedule { schedule: String, reason: String },
    #[error("unknown time zone {0}")]
    TimeZone(String),
}

impl Schedule {
    pub fn parse(schedule: &str, time_zone: Option<&str>) -> Result<Schedule, Error> {
        let wrong = |reason: &dyn std::fmt::Display| Error::Schedule {
            schedule: schedule.to_owned(),
            reason: reason.to_string(),
        };
        if let Some(zone) = time_zone {
            TimeZone::get(zone).map_err(|_| Error::TimeZone(zone.to_owned()))?;
        }
        let line = match schedule.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => match other.strip_prefix("@every ") {
                Some(every) => {
                    let every: jiff::SignedDuration = every.trim().parse().map_err(|error| wrong(&error))?;
                    let every = every.unsigned_abs();
                    // Whole seconds, at least one.
                    return Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1))));
                }
                None => other,
            },
        };
        if line.split_whitespace().count() != 5 {
            return Err(wrong(&"expected exactly 5 fields"));
        }
        // A question mark is a star, for users of other crons.
        let fields = line
            .split_whitespace()
            .map(|field| if field == "?" { "*" } else { field });
        let fields: Vec<&str> = fields.chain(time_zone).collect();
        let line = fields.join(" ");
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let crontab = cronexpr::parse_crontab_with(&line, options).map_err(|error| wrong(&error))?;
        Ok(Schedule::Crontab(Box::new(crontab)))
    }

    /// The first time after `after`; `None` if there is none (the 30th of February).
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*every).ok()
            }
            Schedule::Crontab(crontab) => Some(crontab.find_next(cronexpr::MakeTimestamp(after)).ok()?.timestamp()),
        }
    }
}

/// The last time at or before `now` that comes after `since`, and how many there were, up to [`MISSED_MAX`] and one more.
pub fn last_due(schedule: &Schedule, since: Timestamp, now: Timestamp) -> Option<(Timestamp, usize)> {
    let first = schedule.next(since).filter(|at| *at <= now)?;
    let (mut last, mut count) = (first, 1);
    while let Some(at) = schedule.next(last).filter(|at| *at <= now) {
        count += 1;
        if count > MISSED_MAX {
            // Too many to walk through: from shortly before now on, in steps that double until one hits.
            return Some((latest(schedule, last, now), count));
        }
        last = at;
    }
    Some((last, count))
}

/// The last time at or before `now`, if at least `known` is one.
fn latest(schedule: &Schedule, known: Timestamp, now: Timestamp) -> Timestamp {
    let mut back = Duration::from_secs(60);
    loop {
        let from = now.checked_sub(back).unwrap_or(known).max(known);
        let mut last = None;
        let mut at = schedule.next(from).filter(|at| *at <= now);
        while let Some(hit) = at {
            last = Some(hit);
            at = schedule.next(hit).filter(|at| *at <= now);
        }
        if let Some(last) = last {
            return last;
        }
        if from == known {
            return known;
        }
        back *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn lines_words_and_zones_say_when() {
        let cases = [
            ("*/15 * * * *", None, "2026-01-01T00:01:00Z", "2026-01-01T00:15:00Z"),
            ("0 12 * * MON", None, "2026-01-01T00:00:00Z", "2026-01-05T12:00:00Z"),
            ("@hourly", None, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@every 90s", None, "2026-01-01T00:00:00.5Z", "2026-01-01T00:01:30Z"),
            (
                "0 3 * * *",
                Some("Europe/Berlin"),
                "2026-01-01T12:00:00Z",
                "2026-01-02T02:00:00Z",
            ),
            (
                "0 3 * * *",
                Some("Asia/Tokyo"),
                "2026-07-01T12:00:00Z",
                "2026-07-01T18:00:00Z",
            ),
            // A day of the month or of the week, as cron has it.
            ("0 0 13 * 5", None, "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
        ];
        for (line, zone, after, expected) in cases {
            let schedule = Schedule::parse(line, zone).unwrap();
            assert_eq!(schedule.next(at(after)), Some(at(expected)), "{line}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_words() {
        for (line, zone) in [
            ("* * *", None),
            ("61 * * * *", None),
            ("", None),
            ("* * * * *", Some("Mars/Base")),
        ] {
            assert!(Schedule::parse(line, zone).is_err(), "{line:?} {zone:?}");
        }
    }

    #[test]
    fn of_missed_times_the_last_counts_however_many_there_are() {
        let minutely = Schedule::parse("* * * * *", None).unwrap();
        let since = at("2026-01-01T00:00:30Z");

        assert_eq!(last_due(&minutely, since, at("2026-01-01T00:00:59Z")), None);
        assert_eq!(
            last_due(&minutely, since, at("2026-01-01T00:03:10Z")),
            Some((at("2026-01-01T00:03:00Z"), 3))
        );
        assert_eq!(
            last_due(&minutely, since, at("2026-02-01T00:00:10Z")),
            Some((at("2026-02-01T00:00:00Z"), MISSED_MAX + 1))
        );
    }
}
