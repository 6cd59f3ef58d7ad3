//! When to try again: exponential back-off with jitter, under a budget that all operations of a store share.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Tokens for retries. A store in trouble fails most requests; if each came back a few times, the trouble would grow.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    capacity: f64,
    state: Mutex<(f64, Instant)>,
}

/// In the budget's unit, a tenth of a retry.
const PER_RETRY: f64 = 10.0;
const PER_SUCCESS: f64 = 1.0;
const PER_SECOND: f64 = 10.0;

impl RetryBudget {
    pub(crate) fn new(capacity: u32) -> Self {
        let capacity = f64::from(capacity) * PER_RETRY;
        Self { capacity, state: Mutex::new((capacity, Instant::now())) }
    }

    /// Takes one token, or says that there is none.
    pub(crate) fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let filled = state.0 + now.duration_since(state.1).as_secs_f64() * PER_SECOND;
        *state = (filled.min(self.capacity), now);
        if state.0 < PER_RETRY {
            return false;
        }
        state.0 -= PER_RETRY;
        true
    }

    pub(crate) fn success(&self) {
        let mut state = self.state.lock();
        state.0 = (state.0 + PER_SUCCESS).min(self.capacity);
    }
}

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// The pause before retry number `retry` (from 0): doubling, and anywhere in its upper half, so that many clients do
/// not come back in step.
pub(crate) fn pause(retry: u32) -> Duration {
    let full = FIRST.saturating_mul(1 << retry.min(16)).min(LONGEST);
    // A freshly seeded hasher is the standard library's only source of randomness.
    let random = RandomState::new().hash_one(retry);
    full.mul_f64(0.5 + 0.5 * (random >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_bounds_a_burst_and_comes_back() {
        let budget = RetryBudget::new(3);
        let now = budget.state.lock().1;
        let taken = |at| (0..10).filter(|_| budget.take_at(at)).count();
        assert_eq!(taken(now), 3);
        (0..10).for_each(|_| budget.success());
        assert_eq!(taken(now), 1, "ten successes pay for one retry");
        assert_eq!(taken(now + Duration::from_secs(100)), 3, "never more than the burst");
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        for retry in 0..40 {
            let full = FIRST.saturating_mul(1 << retry.min(16)).min(LONGEST);
            let pause = pause(retry);
            assert!(pause >= full / 2 && pause <= full, "{retry}: {pause:?}");
        }
    }
}
