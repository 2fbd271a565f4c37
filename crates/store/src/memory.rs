//! Keeping the values that are in memory within their budget: a hand goes round the keys, and what was not asked for since
//! it last came by is given up, if it is on the disk.

use std::sync::{Arc, atomic::Ordering};

use crate::engine::{Engine, Space, lock};

/// Keys that are looked at under one hold of a keyspace's lock.
const SLICE_KEYS: usize = 1000;

/// What is freed beyond need, so that this is not done at each read: a part of the budget.
const SLACK_PART: usize = 16;

impl Engine {
    /// Gives up values until they are within the budget.
    pub fn make_room(&self) {
        let budget = self.memory.budget();
        if self.memory.used() > budget {
            self.give_up(budget - budget / SLACK_PART);
        }
    }

    /// Others are asked for than those that are in memory.
    pub fn make_more_room(&self) {
        let budget = self.memory.budget();
        self.give_up(budget - budget / SLACK_PART * 2);
    }

    fn give_up(&self, until: usize) {
        let spaces = self.all_spaces();
        // Once round all keys takes their marks, the second time takes the values.
        for _ in 0..2 {
            for space in &spaces {
                if !self.cool(space, until) {
                    return;
                }
            }
        }
    }

    /// Once round a keyspace. False when there is no need to go on.
    fn cool(&self, space: &Arc<Space>, until: usize) -> bool {
        let began_at = lock(&space.hand).clone();
        let mut after = began_at.clone();
        let mut wrapped = false;
        loop {
            let over = self.memory.used().saturating_sub(until);
            if over == 0 || self.checkpoints.stopping.load(Ordering::Acquire) {
                *lock(&space.hand) = after;
                return false;
            }
            if space.view.read().resident() == 0 {
                return true;
            }
            let (given_up, last) = space.view.write_behind().cool(after.as_ref(), SLICE_KEYS, over);
            // Freed under no lock.
            drop(given_up);
            let at_end = last.is_none();
            if at_end && (wrapped || began_at.is_none()) || wrapped && last > began_at {
                *lock(&space.hand) = last;
                return true;
            }
            wrapped |= at_end;
            after = last;
        }
    }
}
