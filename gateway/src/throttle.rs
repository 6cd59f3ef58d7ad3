//! Slows producers down before bookies run out of disk because the bucket does not take what it should.
//!
//! Nothing is refused: every batch waits a little, the longer the fuller the disks, and its connection is not read
//! meanwhile. Only a backlog of the offload counts: disks that are full of what must stay there are no reason.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_metadata_core::{BookieState, State};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Share of the disk in use, in percent, from which producers are slowed down.
const FROM: u64 = 80;
/// Share at which they get the least.
const TO: u64 = 95;
/// Least rate, bytes per second and gateway: a client must see that it gets on.
const LEAST: u64 = 256 << 10;
/// No batch waits longer: clients have time-outs.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The rate at which a gateway takes batches. Free unless disks fill up.
#[derive(Debug)]
pub struct Throttle {
    /// Bytes per second; `u64::MAX` = free.
    rate: AtomicU64,
    /// When the next batch may come.
    next: Mutex<Instant>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { rate: AtomicU64::new(u64::MAX), next: Mutex::new(Instant::now()) }
    }
}

impl Throttle {
    pub fn set(&self, bytes_per_second: u64) {
        self.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Waits until a batch of so many bytes may go on, at most two seconds. Says how long it was.
    pub async fn admit(&self, bytes: usize) -> Duration {
        let wait = self.wait(Instant::now(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        wait
    }

    fn wait(&self, now: Instant, bytes: usize) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == u64::MAX {
            return Duration::ZERO;
        }
        let seconds = bytes as f64 / rate.max(1) as f64;
        let cost = Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64()));
        let mut next = self.next.lock();
        let at = (*next).max(now);
        *next = (at + cost).min(now + WAIT_MAX);
        at - now
    }
}

/// The rate that the bookies' disks allow while `backlog` bytes wait and the bucket takes `drained` bytes per second.
pub fn allowed(used_percent: u64, backlog: u64, drained: u64) -> u64 {
    if used_percent < FROM || backlog == 0 {
        return u64::MAX;
    }
    let left = TO.saturating_sub(used_percent);
    // At the lower mark twice of what goes out, halfway as much, then less: the disks empty.
    (drained * 2 * left / (TO - FROM)).max(LEAST)
}

/// Share of the disk in use, in percent, of the bookie that would be the last of a write quorum: with it full, no segment
/// finds its members. Bookies that do not tell are not counted.
pub fn disk_used(state: &State) -> u64 {
    let tells = state.bookies().filter(|b| b.state != BookieState::Lost && b.session.is_some() && b.disk_total > 0);
    let mut shares: Vec<u64> = tells.map(|b| b.disk_used.saturating_mul(100) / b.disk_total).collect();
    shares.sort_unstable();
    let quorum = state.cluster().map_or(1, |cluster| usize::from(cluster.quorum.write)).max(1);
    shares.get(quorum - 1).or(shares.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAINED: u64 = 100 << 20;

    #[test]
    fn producers_are_slowed_only_by_a_backlog_on_full_disks() {
        assert_eq!(allowed(99, 0, DRAINED), u64::MAX, "nothing waits for the bucket");
        assert_eq!(allowed(FROM - 1, 1 << 40, 0), u64::MAX, "there is room");
        let rates: Vec<u64> = (FROM..=100).map(|used| allowed(used, 1, DRAINED)).collect();
        assert!(rates.is_sorted_by(|a, b| a >= b), "the fuller the slower: {rates:?}");
        assert!(rates[0] > DRAINED && rates.last() == Some(&LEAST));
        assert_eq!(allowed(FROM, 1, 0), LEAST, "the bucket takes nothing");
    }

    #[test]
    fn batches_come_at_the_rate_and_none_waits_for_long() {
        let (throttle, began) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.wait(began, usize::MAX), Duration::ZERO, "free");
        throttle.set(1 << 20);
        let mut now = began + Duration::from_secs(1);
        let first = now;
        for _ in 0..20 {
            now += throttle.wait(now, 1 << 18);
        }
        assert_eq!(now - first, Duration::from_millis(4_750), "5 MiB at 1 MiB/s, the last one goes on its way");
        throttle.set(1);
        assert!((0..3).all(|_| throttle.wait(now, usize::MAX) <= WAIT_MAX));
    }
}
