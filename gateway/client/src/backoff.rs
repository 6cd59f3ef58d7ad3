use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// Waits that double, each shortened by up to a half, so that many clients do not come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    jitter: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: FIRST, jitter: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// Of the next wait, at most.
    pub(crate) fn peek(&self) -> Duration {
        self.next
    }

    pub(crate) fn take(&mut self) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        full - full.mul_f64((self.jitter >> 40) as f64 / (1u64 << 25) as f64)
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.take()).await;
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_bounds() {
        let mut backoff = Backoff::new(7);
        for expected in [20, 40, 80, 160, 320, 640, 1000, 1000] {
            let full = Duration::from_millis(expected);
            assert_eq!(backoff.peek(), full);
            let wait = backoff.take();
            assert!(wait <= full && wait >= full / 2, "{wait:?} of {full:?}");
        }
    }
}
