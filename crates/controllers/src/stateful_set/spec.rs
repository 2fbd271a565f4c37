//! What a StatefulSet asks for, read once.

use api::Object;
use serde_json::Value;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    OnDelete,
    Rolling,
}

/// When the claims of a Pod go with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    pub with_set: bool,
    pub with_replica: bool,
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub start: i64,
    pub replicas: i64,
    /// One after the other (`OrderedReady`), or all at once.
    pub ordered: bool,
    pub strategy: Strategy,
    /// Counted from `start`: what is below keeps the current revision. `None` without `rollingUpdate`.
    pub partition: Option<i64>,
    pub unavailable_max: i64,
    pub min_ready_seconds: i64,
    pub retention: Retention,
}

impl Spec {
    pub fn of(set: &Object) -> Spec {
        let spec = &set.tree()["spec"];
        let replicas = spec["replicas"].as_i64().unwrap_or(1).max(0);
        let strategy = &spec["updateStrategy"];
        let rolling = &strategy["rollingUpdate"];
        let retention = &spec["persistentVolumeClaimRetentionPolicy"];
        Spec {
            start: spec["ordinals"]["start"].as_i64().unwrap_or(0),
            replicas,
            ordered: spec["podManagementPolicy"] != "Parallel",
            strategy: if strategy["type"] == "OnDelete" {
                Strategy::OnDelete
            } else {
                Strategy::Rolling
            },
            partition: rolling.is_object().then(|| rolling["partition"].as_i64().unwrap_or(0)),
            unavailable_max: share(&rolling["maxUnavailable"], replicas).unwrap_or(1).max(1),
            min_ready_seconds: spec["minReadySeconds"].as_i64().unwrap_or(0),
            retention: Retention {
                with_set: retention["whenDeleted"] == "Delete",
                with_replica: retention["whenScaled"] == "Delete",
            },
        }
    }

    pub fn ordinals(&self) -> std::ops::Range<i64> {
        self.start..self.start + self.replicas
    }
}

/// A number, or a percentage of `whole` rounded down.
fn share(value: &Value, whole: i64) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let percent: i64 = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    Some(whole.saturating_mul(percent) / 100)
}
