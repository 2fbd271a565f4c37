//! The order in which ready work is handed out: round robin over lanes, weighted, so that one lane's flood delays only
//! itself. With a single lane it is a plain queue.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

pub(crate) struct Lanes<K, L> {
    lanes: HashMap<L, VecDeque<K>>,
    /// Lanes that have work, the next one first, each with what it may still take in this turn. A lane without work
    /// is not kept at all.
    turns: VecDeque<(L, u32)>,
    len: usize,
}

impl<K, L: Hash + Eq + Clone> Lanes<K, L> {
    pub(crate) fn new() -> Lanes<K, L> {
        Lanes {
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
        }
    }

    pub(crate) fn push(&mut self, lane: L, weight: u32, key: K) {
        self.len += 1;
        let waiting = self.lanes.entry(lane.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back((lane, weight.max(1)));
        }
        waiting.push_back(key);
    }

    /// `weight` is asked when a lane's turn begins anew. Lanes that may not go on are passed by, and keep their place.
    pub(crate) fn pop(&mut self, weight: impl Fn(&L) -> u32, may_go: impl Fn(&L) -> bool) -> Option<K> {
        let next = self.turns.iter().position(|(lane, _)| may_go(lane))?;
        let (lane, left) = self.turns.remove(next)?;
        let waiting = self.lanes.get_mut(&lane)?;
        let key = waiting.pop_front()?;
        self.len -= 1;
        if waiting.is_empty() {
            self.lanes.remove(&lane);
        } else if left > 1 {
            self.turns.insert(next, (lane, left - 1));
        } else {
            let weight = weight(&lane).max(1);
            self.turns.push_back((lane, weight));
        }
        Some(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_in_one_lane_delays_only_itself() {
        let mut lanes = Lanes::new();
        (0..100).for_each(|n| lanes.push("greedy", 1, ("greedy", n)));
        (0..2).for_each(|n| lanes.push("regular", 1, ("regular", n)));

        let order: Vec<_> = std::iter::from_fn(|| lanes.pop(|_| 1, |_| true)).collect();

        let places = order.iter().enumerate().filter(|(_, (lane, _))| *lane == "regular");
        assert_eq!(places.map(|(place, _)| place).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(order.len(), 102);
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty() && lanes.len() == 0);
    }

    #[test]
    fn a_lane_that_may_not_go_on_is_passed_by_and_keeps_its_place() {
        let mut lanes = Lanes::new();
        (0..2).for_each(|n| lanes.push('a', 1, ('a', n)));
        (0..2).for_each(|n| lanes.push('b', 1, ('b', n)));

        assert_eq!(lanes.pop(|_| 1, |lane| *lane != 'a'), Some(('b', 0)));
        assert_eq!(lanes.pop(|_| 1, |_| false), None);
        assert_eq!(lanes.len(), 3);
        assert_eq!(lanes.pop(|_| 1, |_| true), Some(('a', 0)));
    }

    #[test]
    fn a_heavier_lane_gets_its_weight_in_each_turn() {
        let mut lanes = Lanes::new();
        (0..6).for_each(|n| lanes.push('a', 3, ('a', n)));
        (0..6).for_each(|n| lanes.push('b', 1, ('b', n)));

        let order: String = std::iter::from_fn(|| lanes.pop(|lane| if *lane == 'a' { 3 } else { 1 }, |_| true))
            .map(|(lane, _)| lane)
            .collect();

        assert_eq!(order, "aaabaaabbbbb");
    }
}
