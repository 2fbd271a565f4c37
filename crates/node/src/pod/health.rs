//! What probes have found, per container instance; and the counting of successes and failures as pure state.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as Spec, Probe};

use super::observed::Container;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    pub fn of(self, spec: &Spec) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => spec.startup_probe.as_ref(),
            ProbeKind::Liveness => spec.liveness_probe.as_ref(),
            ProbeKind::Readiness => spec.readiness_probe.as_ref(),
        }
    }

    /// As in events: `Liveness probe failed`.
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "startup",
            ProbeKind::Liveness => "liveness",
            ProbeKind::Readiness => "readiness",
        }
    }
}

/// The verdicts so far. What is absent has no probe, or none that has run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health(BTreeMap<(String, ProbeKind), bool>);

impl Health {
    /// Returns whether that is news.
    pub fn record(&mut self, container_id: &str, kind: ProbeKind, passed: bool) -> bool {
        self.0.insert((container_id.to_owned(), kind), passed) != Some(passed)
    }

    pub fn verdict(&self, container_id: &str, kind: ProbeKind) -> Option<bool> {
        self.0.get(&(container_id.to_owned(), kind)).copied()
    }

    /// Forgets containers that are gone.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(id, _), _| keep(id));
    }

    /// Up, as far as the startup probe can tell.
    pub fn is_started(&self, spec: &Spec, container: &Container) -> bool {
        spec.startup_probe.is_none() || self.verdict(&container.id, ProbeKind::Startup) == Some(true)
    }

    pub fn is_ready(&self, spec: &Spec, container: &Container) -> bool {
        self.is_started(spec, container)
            && (spec.readiness_probe.is_none() || self.verdict(&container.id, ProbeKind::Readiness) == Some(true))
    }

    /// Which probe condemns the container, if any does.
    pub fn failed(&self, container: &Container) -> Option<ProbeKind> {
        [ProbeKind::Startup, ProbeKind::Liveness]
            .into_iter()
            .find(|kind| self.verdict(&container.id, *kind) == Some(false))
    }
}

/// Counts results in a row against a probe's thresholds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    in_a_row: u32,
}

impl Counter {
    pub fn new(probe: &Probe) -> Counter {
        let at_least_one =
            |value: Option<i32>, default: u32| value.map_or(default, |value| value.max(1).unsigned_abs());
        Counter {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            last: None,
            in_a_row: 0,
        }
    }

    /// The verdict, if this result reaches a threshold.
    pub fn record(&mut self, passed: bool) -> Option<bool> {
        if self.last == Some(passed) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.last = Some(passed);
            self.in_a_row = 1;
        }
        let threshold = if passed {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.in_a_row >= threshold).then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_come_at_the_thresholds_and_not_before() {
        let mut counter = Counter::new(&Probe {
            success_threshold: Some(2),
            failure_threshold: Some(3),
            ..Default::default()
        });

        let verdicts: Vec<Option<bool>> = [true, true, false, false, true, false, false, false, false, true]
            .into_iter()
            .map(|passed| counter.record(passed))
            .collect();

        let (pass, fail) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, pass, None, None, None, None, None, fail, fail, None]);
    }

    #[test]
    fn defaults_are_one_success_and_three_failures() {
        let mut counter = Counter::new(&Probe::default());

        assert_eq!(counter.record(true), Some(true));
        assert_eq!(counter.record(false), None);
        assert_eq!(counter.record(false), None);
        assert_eq!(counter.record(false), Some(false));
    }
}
