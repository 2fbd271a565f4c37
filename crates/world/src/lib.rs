//! The seam to the outside world: clock, randomness and disk, passed in and never reached for, so that what is built
//! on it runs under a seeded simulation that can be replayed (idea 7 of the house). Uses nothing of ours.
//!
//! Start reading at [`Clock`] and [`Disk`]; [`World::real`] is what the binary passes in, [`sim`] is what tests do.

mod clock;
mod disk;
mod random;
pub mod sim;

pub use clock::{Clock, RealClock};
pub use disk::{Disk, DiskFile, DiskLock, LockError, RealDisk};
pub use random::{OsRandom, Random};

use std::sync::Arc;

/// What a room is given of the outside world. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub disk: Arc<dyn Disk>,
}

impl World {
    pub fn real() -> World {
        World {
            clock: Arc::new(RealClock::new()),
            random: Arc::new(OsRandom),
            disk: Arc::new(RealDisk),
        }
    }
}
