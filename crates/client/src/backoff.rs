//! Exponential back-off with jitter, so that many clients that lost one server do not return together.

use std::time::Duration;

use world::Random;

#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest,
            failures: 0,
        }
    }

    /// How long to wait after one more failure: between half and the whole of the doubled delay.
    pub fn next(&mut self, random: &dyn Random) -> Duration {
        let whole = exponential(self.first, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        let mut byte = [0u8; 2];
        random.fill(&mut byte);
        let fraction = f64::from(u16::from_le_bytes(byte)) / f64::from(u16::MAX);
        whole.mul_f64(0.5 + fraction / 2.0)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// `first * 2^failures`, at most `longest`.
pub(crate) fn exponential(first: Duration, longest: Duration, failures: u32) -> Duration {
    first
        .checked_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX))
        .map_or(longest, |delay| delay.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_longest_and_are_never_below_half() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        for failure in 0..80 {
            let whole = exponential(Duration::from_millis(100), Duration::from_secs(10), failure);

            let delay = backoff.next(&world::OsRandom);

            assert!(
                delay >= whole / 2 && delay <= whole,
                "{failure}: {delay:?} of {whole:?}"
            );
        }
        assert_eq!(
            exponential(Duration::from_millis(100), Duration::from_secs(10), 79),
            Duration::from_secs(10)
        );
    }
}
