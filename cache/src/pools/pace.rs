//! A bound on bytes per second.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets `bytes_per_second` pass on average, with bursts of up to a tenth of a second's worth.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When the bytes granted so far are paid for.
    paid_until: Mutex<Option<Instant>>,
}

const BURST: Duration = Duration::from_millis(100);

impl Pace {
    /// 0 for no bound.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid_until: Mutex::new(None) }
    }

    /// Waits until `bytes` may pass. Order among waiters is that of their calls.
    pub(crate) async fn pass(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        tokio::time::sleep_until(self.turn(Instant::now(), bytes)).await;
    }

    /// When `bytes` that are asked for now may pass.
    fn turn(&self, now: Instant, bytes: u64) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let mut paid_until = self.paid_until.lock();
        let turn = paid_until.unwrap_or(earliest).max(earliest);
        *paid_until = Some(turn + cost);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time() {
        let pace = Pace::new(1 << 20);
        let start = Instant::now() + Duration::from_secs(1);
        let mut now = start;
        for _ in 0..50 {
            now = now.max(pace.turn(now, 1 << 18));
        }
        let took = (now - start).as_secs_f64();
        assert!((12.0..12.5).contains(&took), "12.5 MiB at 1 MiB/s took {took} s");
    }
}
