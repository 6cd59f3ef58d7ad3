//! The only place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use esker_types::Time;
use tokio::time::Instant;

/// Monotonic time for cores, and wall time for records. Clones agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock {
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// When `at` is, for sleeping.
    pub fn instant(&self, at: Time) -> Instant {
        self.origin + at.since(Time::ZERO)
    }

    /// Milliseconds since the Unix epoch: record time and retention, never safety.
    pub fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}
