//! A bounded good, of which no plane may have more than its share: one tenant's flood is not another's silence.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

#[derive(Clone)]
pub struct Shares {
    all_max: usize,
    plane_max: usize,
    /// Only planes that have some now.
    taken: Arc<Mutex<HashMap<Ipv4Addr, usize>>>,
}

/// One piece; given back by its drop.
pub struct Share {
    plane: Ipv4Addr,
    taken: Arc<Mutex<HashMap<Ipv4Addr, usize>>>,
}

impl Shares {
    pub fn new(all_max: usize, plane_max: usize) -> Shares {
        Shares {
            all_max,
            plane_max,
            taken: Arc::default(),
        }
    }

    pub fn take(&self, plane: Ipv4Addr) -> Option<Share> {
        let mut taken = self.taken.lock().expect("no one panics while holding it");
        // A sum over few: planes with something under way, which `all_max` bounds.
        if taken.values().sum::<usize>() >= self.all_max {
            return None;
        }
        let own = taken.entry(plane).or_default();
        if *own >= self.plane_max {
            return None;
        }
        *own += 1;
        Some(Share {
            plane,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().expect("no one panics while holding it");
        if let Some(own) = taken.get_mut(&self.plane) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.plane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_gets_its_share_and_no_more() {
        let shares = Shares::new(3, 2);
        let (a, b) = (Ipv4Addr::new(10, 104, 0, 1), Ipv4Addr::new(10, 104, 0, 2));

        let first = shares.take(a);
        let second = shares.take(a);
        assert!(first.is_some() && second.is_some());
        assert!(shares.take(a).is_none());
        let other = shares.take(b);
        assert!(other.is_some());
        assert!(shares.take(b).is_none(), "all are taken");

        drop(first);
        assert!(shares.take(b).is_some());
        drop((second, other));
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}
