//! When a container that ended may start again: at once the first time, then after 10 s, doubling to 5 min, and from
//! the beginning again once it has been well for 10 min. All of it is read from the containers that exist (their
//! delay is an annotation), so a restart of the agent neither forgives nor punishes.

use super::observed::{Container, Nanos, SECOND};

const INITIAL_SECONDS: u64 = 10;
const MAX_SECONDS: u64 = 300;
/// Upstream's `flowcontrol.Backoff` forgets after twice the maximum.
const FORGIVEN_AFTER_SECONDS: u64 = 2 * MAX_SECONDS;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Start now, and write `backoff_seconds` on the new container for the time after it.
    Now { backoff_seconds: u64 },
    /// Not before `at`.
    Later { at: Nanos, delay_seconds: u64 },
}

/// May `ended`, a container that has exited, be followed by another now?
pub fn restart(ended: &Container, now: Nanos) -> Restart {
    let lived_seconds = (ended.finished_at.saturating_sub(ended.created_at) / SECOND).max(0) as u64;
    if ended.backoff_seconds == 0 || lived_seconds > FORGIVEN_AFTER_SECONDS {
        return Restart::Now {
            backoff_seconds: INITIAL_SECONDS,
        };
    }
    let delay_seconds = ended.backoff_seconds.min(MAX_SECONDS);
    let at = ended.finished_at.saturating_add(delay_seconds as i64 * SECOND);
    if now < at {
        Restart::Later { at, delay_seconds }
    } else {
        Restart::Now {
            backoff_seconds: (delay_seconds * 2).min(MAX_SECONDS),
        }
    }
}

/// A delay as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::observed::State;

    fn ended(backoff_seconds: u64, created_s: i64, finished_s: i64) -> Container {
        Container {
            id: "c".into(),
            sandbox_id: "s".into(),
            name: "main".into(),
            attempt: 0,
            state: State::Exited,
            created_at: created_s * SECOND,
            started_at: created_s * SECOND,
            finished_at: finished_s * SECOND,
            exit_code: 1,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            hash: String::new(),
            backoff_seconds,
            log_path: String::new(),
            message_file: None,
            message_from_log: false,
        }
    }

    #[test]
    fn delays_double_up_to_five_minutes_and_are_forgiven_after_ten() {
        for (backoff, lived, since, expected) in [
            (0, 1, 0, Restart::Now { backoff_seconds: 10 }),
            (10, 1, 10, Restart::Now { backoff_seconds: 20 }),
            (160, 1, 160, Restart::Now { backoff_seconds: 300 }),
            (300, 1, 300, Restart::Now { backoff_seconds: 300 }),
            (300, 601, 0, Restart::Now { backoff_seconds: 10 }),
            (
                10,
                1,
                9,
                Restart::Later {
                    at: 111 * SECOND,
                    delay_seconds: 10,
                },
            ),
        ] {
            let container = ended(backoff, 100, 100 + lived);

            let restart = restart(&container, (100 + lived + since) * SECOND);

            assert_eq!(restart, expected, "{backoff} {lived} {since}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (seconds, text) in [(0, "0s"), (10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")] {
            assert_eq!(go_duration(seconds), text);
        }
    }
}
