//! Where a Pod should run, of the nodes where it can.

use api::Object;

use crate::{
    filter::{self, Reasons},
    node_info::{NodeInfo, Placed},
};

/// Scores are 0 to 100; higher is better.
pub type Score = fn(&Placed, &NodeInfo) -> i64;

/// Each score and its weight. Spreading a workload counts most, as upstream's default constraints do.
pub const SCORES: &[(Score, i64)] = &[(least_allocated, 1), (balanced, 1), (spread, 2)];

/// The best node, or why there is none.
pub fn place<'a>(
    pod: &Object,
    asks: &Placed,
    nodes: impl Iterator<Item = &'a NodeInfo>,
) -> Result<&'a str, Vec<Reasons>> {
    let mut against = Vec::new();
    let mut best: Option<(i64, &NodeInfo)> = None;
    for node in nodes {
        let reasons = filter::reasons_against(pod, asks, node);
        if !reasons.is_empty() {
            against.push(reasons);
            continue;
        }
        let score = SCORES.iter().map(|(score, weight)| score(asks, node) * weight).sum();
        // Equal scores go to the first by name, so that a decision can be repeated.
        if best.is_none_or(|(best_score, best_node)| (score, best_node.name()) > (best_score, node.name())) {
            best = Some((score, node));
        }
    }
    best.map(|(_, node)| node.name()).ok_or(against)
}

/// The share that would be left free, over processor and memory.
fn least_allocated(asks: &Placed, node: &NodeInfo) -> i64 {
    let shares = ["cpu", "memory"].map(|name| 100 - used_after(asks, node, name));
    shares.iter().sum::<i64>() / 2
}

/// Processor and memory should fill up alike.
fn balanced(asks: &Placed, node: &NodeInfo) -> i64 {
    100 - (used_after(asks, node, "cpu") - used_after(asks, node, "memory")).abs()
}

/// Pods of one workload apart from one another.
fn spread(asks: &Placed, node: &NodeInfo) -> i64 {
    let Some(owner) = &asks.owner else { return 100 };
    let siblings = node
        .pods()
        .filter(|placed| placed.owner.as_ref() == Some(owner))
        .count();
    100 / (1 + i64::try_from(siblings).unwrap_or(i64::MAX - 1))
}

/// Percent of the node that is taken with the Pod on it.
fn used_after(asks: &Placed, node: &NodeInfo, name: &str) -> i64 {
    let amount = |amounts: &crate::request::Amounts| amounts.get(name).copied().unwrap_or(0);
    let has = amount(&node.allocatable).max(1);
    let used = amount(&node.requested).saturating_add(amount(&asks.requested));
    (used.saturating_mul(100) / has).clamp(0, 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::{node, pod};
    use serde_json::json;

    #[test]
    fn an_empty_node_is_better_than_a_busy_one() {
        let mut busy = node("a", |_| {});
        let (object, asks) = pod(json!({"containers": [{"resources": {"requests": {"cpu": "400m"}}}]}));
        busy.put("one", asks.clone());
        let empty = node("b", |_| {});

        assert_eq!(place(&object, &asks, [&busy, &empty].into_iter()), Ok("b"));
    }

    #[test]
    fn pods_of_one_workload_are_spread_and_ties_go_by_name() {
        let (object, mut asks) = pod(json!({}));
        asks.owner = Some("rs".to_owned());
        let mut first = node("a", |_| {});
        let second = node("b", |_| {});
        assert_eq!(place(&object, &asks, [&second, &first].into_iter()), Ok("a"));

        first.put("one", asks.clone());
        assert_eq!(place(&object, &asks, [&first, &second].into_iter()), Ok("b"));
    }

    #[test]
    fn where_no_node_will_do_each_says_why() {
        let (object, asks) = pod(json!({"nodeSelector": {"zone": "b"}}));
        let only = node("a", |_| {});

        assert_eq!(place(&object, &asks, [&only].into_iter()).unwrap_err().len(), 1);
    }
}
