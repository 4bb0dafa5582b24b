//! How long to wait before trying again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Doubles from try to try, with jitter, so that a thousand nodes do not come back in step.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next delay: between half and all of a value that doubles up to the greatest one.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = self.most.min(delay * 2);
        jitter(delay / 2, delay)
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random duration from `least` to `most`.
pub(super) fn jitter(least: Duration, most: Duration) -> Duration {
    // Every RandomState has other keys, which is random enough for this.
    let random = RandomState::new().hash_one(()) >> 32;
    let part = f64::from(u32::try_from(random).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    least + most.saturating_sub(least).mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for most in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.delay();
            assert!(delay <= Duration::from_millis(most) && delay >= Duration::from_millis(most / 2), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_millis(100));
    }
}
