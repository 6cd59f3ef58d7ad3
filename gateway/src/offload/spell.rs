use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// Least time between two lines about the same trouble.
const REMIND: Duration = Duration::from_secs(600);

/// What the log says of a store in trouble: the first failure of a spell, a reminder now and then, and that it is over.
/// Steps of many partitions fail together, and each again and again.
#[derive(Debug, Default)]
pub(super) struct Spell {
    since: Option<Instant>,
    told: Option<Instant>,
    failures: u64,
}

impl Spell {
    pub fn failed(&mut self, reason: &dyn Display) {
        let now = Instant::now();
        self.failures += 1;
        self.since.get_or_insert(now);
        if self.told.is_some_and(|told| now.duration_since(told) < REMIND) {
            tracing::debug!(%reason, "the object tier waits");
            return;
        }
        self.told = Some(now);
        tracing::warn!(%reason, failures = self.failures, "the bucket does not work: segments stay on bookies until it does");
    }

    pub fn worked(&mut self) {
        let Some(since) = self.since.take() else { return };
        tracing::info!(seconds = since.elapsed().as_secs(), failures = self.failures, "the bucket works again");
        self.failures = 0;
    }
}
