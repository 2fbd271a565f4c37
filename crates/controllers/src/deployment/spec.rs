//! What a Deployment asks for, read once.

use api::Object;
use serde_json::Value;

/// Not an aim but upstream's way of saying "no deadline".
const NO_DEADLINE: i64 = i32::MAX as i64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// At most `surge` Pods above, `unavailable` below the aim while old ones are replaced.
    Rolling { surge: i64, unavailable: i64 },
    /// All old Pods go before the first new one comes.
    Recreate,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    pub replicas: i64,
    pub strategy: Strategy,
    pub paused: bool,
    pub min_ready_seconds: i64,
    pub history_limit: Option<i64>,
    pub deadline_seconds: Option<i64>,
}

impl Spec {
    pub fn of(deployment: &Object) -> Spec {
        let spec = &deployment.tree()["spec"];
        let replicas = spec["replicas"].as_i64().unwrap_or(1);
        Spec {
            replicas,
            strategy: strategy(&spec["strategy"], replicas),
            paused: spec["paused"] == true,
            min_ready_seconds: spec["minReadySeconds"].as_i64().unwrap_or(0),
            history_limit: spec["revisionHistoryLimit"]
                .as_i64()
                .filter(|limit| *limit != NO_DEADLINE),
            deadline_seconds: spec["progressDeadlineSeconds"]
                .as_i64()
                .filter(|seconds| *seconds != NO_DEADLINE),
        }
    }

    /// Pods there may be at once.
    pub fn most(&self) -> i64 {
        self.replicas + self.surge()
    }

    pub fn surge(&self) -> i64 {
        match self.strategy {
            Strategy::Rolling { surge, .. } => surge,
            Strategy::Recreate => 0,
        }
    }

    /// Pods that may be missing, never more than there should be.
    pub fn unavailable(&self) -> i64 {
        match self.strategy {
            Strategy::Rolling { unavailable, .. } => unavailable.min(self.replicas),
            Strategy::Recreate => 0,
        }
    }
}

fn strategy(strategy: &Value, replicas: i64) -> Strategy {
    if strategy["type"] == "Recreate" {
        return Strategy::Recreate;
    }
    let rolling = &strategy["rollingUpdate"];
    // The server fills in a quarter each; a plane that does not is treated as if it had.
    let quarter = Value::from("25%");
    let given = |field: &str| rolling.get(field).filter(|value| !value.is_null()).cloned();
    let surge = share(&given("maxSurge").unwrap_or(quarter.clone()), replicas, Round::Up);
    let mut unavailable = share(&given("maxUnavailable").unwrap_or(quarter), replicas, Round::Down);
    // With neither, nothing could ever move (percentages may round to this).
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Strategy::Rolling { surge, unavailable }
}

enum Round {
    Up,
    Down,
}

/// A number, or a percentage of `whole`.
fn share(value: &Value, whole: i64, round: Round) -> i64 {
    let percent = value
        .as_str()
        .and_then(|text| text.strip_suffix('%'))
        .and_then(|text| text.parse::<i64>().ok());
    match (value.as_i64(), percent) {
        (Some(number), _) => number,
        (None, Some(percent)) => {
            let hundredths = percent.saturating_mul(whole);
            match round {
                Round::Up => hundredths.saturating_add(99).div_euclid(100),
                Round::Down => hundredths.div_euclid(100),
            }
        }
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_round_surge_up_and_unavailability_down_and_are_never_both_none() {
        let cases = [
            (json!({}), 3, (1, 0)),
            (json!({"maxSurge": "25%", "maxUnavailable": "25%"}), 10, (3, 2)),
            (json!({"maxSurge": 0, "maxUnavailable": "10%"}), 5, (0, 1)),
            (json!({"maxSurge": 2, "maxUnavailable": 0}), 5, (2, 0)),
        ];
        for (rolling, replicas, (surge, unavailable)) in cases {
            let read = strategy(&json!({"type": "RollingUpdate", "rollingUpdate": rolling}), replicas);
            assert_eq!(read, Strategy::Rolling { surge, unavailable }, "{rolling}");
        }
        assert_eq!(strategy(&json!({"type": "Recreate"}), 3), Strategy::Recreate);
    }
}
