//! PodDisruptionBudgets: how many Pods may go now.

use std::{sync::Arc, time::Duration};

use api::{
    Object,
    resource::{DEPLOYMENTS, POD_DISRUPTION_BUDGETS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS},
    selector::LabelSelector,
};
use client::{Error, EventRecorder, EventType, Informer, ObjectKey, Outcome, Patch, Sources, Tasks};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use world::World;

use crate::{fairness, informers::Informers, ownership, pods, time};

const WORKERS: usize = 3;

/// Who evicts notes it in `disruptedPods`; a Pod that is still there after this was not deleted after all. Upstream's number.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

struct Disruption {
    sources: Sources,
    budgets: Informer,
    pods: Informer,
    /// Kinds that say how many Pods they want, by name of the kind.
    scaled: Vec<Informer>,
    replica_sets: Informer,
    recorder: EventRecorder,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, world: &World, tasks: &Tasks) {
    let queue = fairness::by_plane(world);
    let scaled = [
        &informers.deployments,
        &informers.replica_sets,
        &informers.replication_controllers,
        &informers.stateful_sets,
    ];
    let shared = Arc::new(Disruption {
        sources: sources.clone(),
        budgets: informers.budgets.clone(),
        pods: informers.pods.clone(),
        scaled: scaled.into_iter().cloned().collect(),
        replica_sets: informers.replica_sets.clone(),
        recorder: EventRecorder::start(tasks, world, "controllermanager"),
        world: world.clone(),
    });
    client::enqueue(tasks, &shared.budgets, &queue, |key, _| vec![key.clone()], Vec::new);
    let (budgets, all) = (shared.budgets.clone(), shared.budgets.clone());
    let of_pod = move |key: &ObjectKey, pod: &Object| {
        let budgets = budgets.list(&key.plane, key.namespace()).into_iter();
        let concerned = budgets.filter(|budget| selector(budget).matches_object(pod));
        concerned.map(|budget| key.sibling(budget.name())).collect()
    };
    client::enqueue(tasks, &shared.pods, &queue, of_pod, move || all.keys());
    for informer in &shared.scaled {
        // A change of scale concerns the budgets of its namespace; there are few.
        let (budgets, all) = (shared.budgets.clone(), shared.budgets.clone());
        let of_scaled = move |key: &ObjectKey, _: &Object| {
            let budgets = budgets.list(&key.plane, key.namespace()).into_iter();
            budgets.map(|budget| key.sibling(budget.name())).collect()
        };
        client::enqueue(tasks, informer, &queue, of_scaled, move || all.keys());
    }
    client::run(tasks, "disruption budgets", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

/// None selects nothing, an empty one all of the namespace.
fn selector(budget: &Object) -> LabelSelector {
    let selector = &budget.tree()["spec"]["selector"];
    if selector.is_null() {
        return LabelSelector::nothing();
    }
    LabelSelector::from_json(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

impl Disruption {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        let needed = [&self.budgets, &self.pods];
        if !needed
            .into_iter()
            .chain(&self.scaled)
            .all(|informer| informer.synced(source))
        {
            return Ok(Outcome::Done);
        }
        let Some(budget) = self.budgets.get(key) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        let selector = selector(&budget);
        let mut pods = self.pods.list(&key.plane, key.namespace());
        pods.retain(|pod| selector.matches_object(pod));
        let expected = self.expected(key, &budget, &pods);
        if let Err(why) = &expected {
            self.recorder.record(
                &client,
                &budget,
                EventType::Warning,
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {why}"),
            );
        }
        if pods.is_empty() {
            self.recorder
                .record(&client, &budget, EventType::Normal, "NoPods", "No matching pods found");
        }
        let (status, again) = status(&budget, &pods, expected.as_ref().ok().copied(), time::now(&self.world));
        if let Some(status) = status {
            let metadata = json!({"uid": budget.uid(), "resourceVersion": budget.resource_version()});
            let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
            match client
                .patch_sub(&POD_DISRUPTION_BUDGETS, key.namespace(), &key.name, "status", &patch)
                .await
            {
                // Who evicts writes here too: what it wrote comes back as a change.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                done => drop(done?),
            }
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    /// How many Pods there should be, and how many of them must work.
    fn expected(&self, key: &ObjectKey, budget: &Object, pods: &[Object]) -> Result<Expected, String> {
        let spec = &budget.tree()["spec"];
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let (most_gone, least) = (&spec["maxUnavailable"], &spec["minAvailable"]);
        if !most_gone.is_null() {
            let scale = self.scale(key, pods)?;
            let gone = amount(most_gone, scale).ok_or("maxUnavailable cannot be read")?;
            let healthy = (scale - gone).max(0);
            return Ok(Expected { pods: scale, healthy });
        }
        match least {
            Value::Null => Ok(Expected {
                pods: count,
                healthy: 1.min(count),
            }),
            Value::Number(_) => Ok(Expected {
                pods: count,
                healthy: least.as_i64().unwrap_or(0),
            }),
            percent => {
                let scale = self.scale(key, pods)?;
                let healthy = amount(percent, scale).ok_or("minAvailable cannot be read")?;
                Ok(Expected { pods: scale, healthy })
            }
        }
    }

    /// The sum of what the Pods' controllers want.
    fn scale(&self, key: &ObjectKey, pods: &[Object]) -> Result<i64, String> {
        let mut wanted = std::collections::BTreeMap::<String, i64>::new();
        for pod in pods {
            let Some(controller) = ownership::controller_of(pod) else {
                continue;
            };
            let (kind, name) = match controller.kind {
                kind if *kind == *REPLICA_SETS.kind => {
                    let set = self.replica_sets.get(&key.sibling(controller.name));
                    let above = set.as_ref().and_then(ownership::controller_of);
                    match above.filter(|above| *above.kind == *DEPLOYMENTS.kind) {
                        Some(above) => (DEPLOYMENTS.kind.to_string(), above.name.to_owned()),
                        None => (kind.to_owned(), controller.name.to_owned()),
                    }
                }
                kind => (kind.to_owned(), controller.name.to_owned()),
            };
            let known = [&DEPLOYMENTS, &REPLICA_SETS, &REPLICATION_CONTROLLERS, &STATEFUL_SETS];
            if !known.iter().any(|resource| resource.kind == kind) {
                return Err(format!("found no controllers with a scale for pod \"{}\"", pod.name()));
            }
            let informer = self.scaled.iter().find(|informer| informer.resource().kind == kind);
            let object = informer.and_then(|informer| informer.get(&key.sibling(&name)));
            let replicas = object.map_or(0, |object| object.tree()["spec"]["replicas"].as_i64().unwrap_or(1));
            wanted.insert(format!("{kind}/{name}"), replicas);
        }
        Ok(wanted.values().sum())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Expected {
    pods: i64,
    healthy: i64,
}

/// A number, or a percentage of `whole` rounded up.
fn amount(value: &Value, whole: i64) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let percent: i64 = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    Some((whole.saturating_mul(percent) + 99) / 100)
}

/// The status to write, as a merge patch; `None` if it stands; and when a Pod that was to go is looked at again.
fn status(
    budget: &Object,
    pods: &[Object],
    expected: Option<Expected>,
    now: Timestamp,
) -> (Option<Value>, Option<Duration>) {
    let told = &budget.tree()["status"];
    let (disrupted, again) = disrupted(told, pods, now);
    let healthy = pods
        .iter()
        .filter(|pod| pods::is_ready(pod) && !pod.is_deleting() && !disrupted.contains_key(pod.name()))
        .count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    // What cannot be worked out allows nothing.
    let allowed = expected.map_or(0, |expected| {
        if expected.pods <= 0 {
            0
        } else {
            (healthy - expected.healthy).max(0)
        }
    });
    let (state, reason) = match expected {
        None => ("False", "SyncFailed"),
        Some(_) if allowed > 0 => ("True", "SufficientPods"),
        Some(_) => ("False", "InsufficientPods"),
    };
    let generation = &budget.tree()["metadata"]["generation"];
    let mut new = json!({
        "disruptionsAllowed": allowed, "currentHealthy": healthy,
        "desiredHealthy": expected.map_or(told["desiredHealthy"].as_i64().unwrap_or(0), |expected| expected.healthy),
        "expectedPods": expected.map_or(told["expectedPods"].as_i64().unwrap_or(0), |expected| expected.pods),
        "observedGeneration": generation,
    });
    let old = pods::condition(budget, "DisruptionAllowed");
    let said = old.is_some_and(|old| old["status"] == state && old["reason"] == reason);
    if !said {
        let since = old.filter(|old| old["status"] == state);
        let since = since.map_or_else(|| json!(time::text(now)), |old| old["lastTransitionTime"].clone());
        new["conditions"] = json!([{"type": "DisruptionAllowed", "status": state, "reason": reason, "message": "",
            "observedGeneration": generation, "lastTransitionTime": since}]);
    }
    let gone = told["disruptedPods"].as_object().into_iter().flatten();
    let gone: Map<String, Value> = gone
        .filter(|(name, _)| !disrupted.contains_key(name.as_str()))
        .map(|(name, _)| (name.clone(), Value::Null))
        .collect();
    let clears = !gone.is_empty();
    if clears {
        new["disruptedPods"] = Value::Object(gone);
    }
    let mut fields = new.as_object().into_iter().flatten();
    let stands = !clears && fields.all(|(field, value)| told[field] == *value);
    ((!stands).then_some(new), again)
}

/// Pods whose eviction was granted and that have not left yet.
fn disrupted<'a>(
    told: &'a Value,
    pods: &[Object],
    now: Timestamp,
) -> (std::collections::BTreeMap<&'a str, Timestamp>, Option<Duration>) {
    let mut again = None;
    let listed = told["disruptedPods"].as_object().into_iter().flatten();
    let still = listed.filter_map(|(name, since)| {
        let since = time::parse(since)?;
        // One that is leaving counts as gone by itself.
        let there = pods.iter().any(|pod| pod.name() == name && !pod.is_deleting());
        let waited = u64::try_from(now.as_second() - since.as_second()).unwrap_or(0);
        let left = DELETION_TIMEOUT
            .checked_sub(Duration::from_secs(waited))
            .filter(|left| !left.is_zero());
        if there && let Some(left) = left {
            again = Some(again.map_or(left, |before: Duration| before.min(left)));
        }
        (there && left.is_some()).then_some((name.as_str(), since))
    });
    let still = still.collect();
    (still, again)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    fn pod(name: &str, ready: bool) -> Object {
        let ready = if ready { "True" } else { "False" };
        Object::from_tree(
            json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
        )
    }

    fn budget(status: Value) -> Object {
        Object::from_tree(json!({"metadata": {"name": "b", "generation": 1}, "status": status}))
    }

    #[test]
    fn as_many_may_go_as_work_beyond_those_that_must() {
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let expected = |healthy: i64| Some(Expected { pods: 3, healthy });

        let (told, _) = status(&budget(Value::Null), &pods, expected(1), now());
        let told = told.unwrap();
        assert_eq!(
            (&told["disruptionsAllowed"], &told["currentHealthy"]),
            (&json!(1), &json!(2))
        );
        assert_eq!(told["conditions"][0]["reason"], "SufficientPods");
        assert_eq!(status(&budget(told), &pods, expected(1), now()).0, None);

        let (told, _) = status(&budget(Value::Null), &pods, expected(2), now());
        assert_eq!(told.unwrap()["conditions"][0]["reason"], "InsufficientPods");
        let (told, _) = status(&budget(Value::Null), &pods, None, now());
        assert_eq!(told.unwrap()["disruptionsAllowed"], 0);
    }

    #[test]
    fn a_pod_that_was_evicted_counts_as_gone_until_it_is_or_for_two_minutes() {
        let pods = [pod("a", true), pod("b", true)];
        let expected = Some(Expected { pods: 2, healthy: 1 });
        let noted = |at: &str| budget(json!({"disruptedPods": {"a": at}}));

        let (told, again) = status(&noted("2026-01-01T00:00:00Z"), &pods, expected, now());
        assert_eq!(told.unwrap()["disruptionsAllowed"], 0);
        assert_eq!(again, Some(Duration::from_secs(60)));
        let (told, _) = status(&noted("2025-12-31T23:58:00Z"), &pods, expected, now());
        let told = told.unwrap();
        assert_eq!(
            (&told["disruptionsAllowed"], &told["disruptedPods"]["a"]),
            (&json!(1), &Value::Null)
        );
    }

    #[test]
    fn percentages_are_rounded_up() {
        assert_eq!(amount(&json!("50%"), 5), Some(3));
        assert_eq!(amount(&json!(2), 5), Some(2));
    }
}
