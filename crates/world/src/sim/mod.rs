//! A world that is made up, and the same each time it is made from the same seed.

mod clock;
mod disk;
mod random;

pub use clock::SimClock;
pub use disk::{SECTOR_BYTES, SimDisk};
pub use random::SimRandom;

use std::sync::Arc;

use crate::World;

/// The strings of a simulated [`World`].
#[derive(Clone)]
pub struct Sim {
    pub clock: Arc<SimClock>,
    pub random: Arc<SimRandom>,
    pub disk: Arc<SimDisk>,
}

impl Sim {
    pub fn new(seed: u64) -> Sim {
        Sim {
            clock: Arc::new(SimClock::new()),
            random: Arc::new(SimRandom::new(seed)),
            disk: Arc::new(SimDisk::new(seed)),
        }
    }

    pub fn world(&self) -> World {
        World {
            clock: self.clock.clone(),
            random: self.random.clone(),
            disk: self.disk.clone(),
        }
    }
}
