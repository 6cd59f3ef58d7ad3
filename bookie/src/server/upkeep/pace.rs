//! Background work at a bounded rate.

use std::time::Duration;

use tokio::time::Instant;

/// Lets bytes pass at a rate, without a burst after a pause.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When the next bytes may pass.
    next: Instant,
}

impl Pace {
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), next: Instant::now() }
    }

    /// Accounts for `bytes` that were just moved; how long to wait before more.
    pub fn after(&mut self, bytes: u64) -> Duration {
        self.after_at(Instant::now(), bytes)
    }

    fn after_at(&mut self, now: Instant, bytes: u64) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.next = self.next.max(now) + cost;
        self.next - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_rate() {
        let mut pace = Pace::new(1000);
        let now = pace.next;
        assert_eq!(pace.after_at(now, 500), Duration::from_millis(500));
        assert_eq!(pace.after_at(now, 500), Duration::from_secs(1));
        let later = now + Duration::from_secs(5);
        assert_eq!(pace.after_at(later, 100), Duration::from_millis(100), "idle time is not saved up");
    }
}
