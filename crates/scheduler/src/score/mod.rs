//! Where a Pod should run, of the nodes where it can.

mod liking;
mod node;
mod resources;
mod spread;
#[cfg(test)]
mod tests;

use crate::{cycle::Cycle, node_info::NodeInfo};

pub struct Score {
    pub name: &'static str,
    pub weight: i64,
    pub run: fn(&Cycle<'_>, &NodeInfo) -> i64,
    pub scale: Scale,
}

/// How raw scores become 0 to 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// They are so already.
    Percent,
    /// By the highest: it gets 100.
    Most,
    /// By the highest, which gets 0.
    Least,
    /// From the lowest (0) to the highest (100).
    Range,
}

/// With upstream's weights.
pub const SCORES: &[Score] = &[
    Score {
        name: "TaintToleration",
        weight: 3,
        run: node::taints_preferred_not,
        scale: Scale::Least,
    },
    Score {
        name: "NodeAffinity",
        weight: 2,
        run: node::affinity_preferred,
        scale: Scale::Most,
    },
    Score {
        name: "PodTopologySpread",
        weight: 2,
        run: spread::spread,
        scale: Scale::Least,
    },
    Score {
        name: "InterPodAffinity",
        weight: 2,
        run: liking::liking,
        scale: Scale::Range,
    },
    Score {
        name: "NodeResourcesFit",
        weight: 1,
        run: resources::least_allocated,
        scale: Scale::Percent,
    },
    Score {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        run: resources::balanced,
        scale: Scale::Percent,
    },
    Score {
        name: "ImageLocality",
        weight: 1,
        run: node::images_there,
        scale: Scale::Percent,
    },
];

/// The best of `nodes`; of equals the first by name, so that a decision can be repeated.
pub fn best<'a>(cycle: &Cycle<'_>, nodes: &[&'a NodeInfo]) -> Option<&'a NodeInfo> {
    if let [only] = nodes {
        return Some(only);
    }
    let mut totals = vec![0; nodes.len()];
    for score in SCORES {
        let raw: Vec<i64> = nodes.iter().map(|node| (score.run)(cycle, node)).collect();
        for (total, scaled) in totals.iter_mut().zip(scale(score.scale, &raw)) {
            *total += scaled * score.weight;
        }
    }
    let ranked = nodes.iter().zip(totals);
    ranked
        .max_by(|(one, ones), (other, others)| ones.cmp(others).then_with(|| other.name().cmp(one.name())))
        .map(|(node, _)| *node)
}

fn scale(scale: Scale, raw: &[i64]) -> Vec<i64> {
    let highest = raw.iter().max().copied().unwrap_or(0);
    let lowest = raw.iter().min().copied().unwrap_or(0);
    let scaled = |value: i64| match scale {
        Scale::Percent => value.clamp(0, 100),
        Scale::Most if highest <= 0 => 0,
        Scale::Most => value * 100 / highest,
        Scale::Least if highest <= 0 => 100,
        Scale::Least => 100 - value * 100 / highest,
        Scale::Range if highest == lowest => 0,
        Scale::Range => (value - lowest) * 100 / (highest - lowest),
    };
    raw.iter().map(|value| scaled(*value)).collect()
}
