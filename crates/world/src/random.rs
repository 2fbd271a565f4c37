//! Randomness as the outside world gives it.

use rand::TryRngCore;

pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`; good enough for keys and ids.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's generator.
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rngs::OsRng
            .try_fill_bytes(bytes)
            .expect("the operating system has randomness");
    }
}
