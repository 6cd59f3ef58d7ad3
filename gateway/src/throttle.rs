//! Slows producers down before bookies run out of disk because the bucket does not take what it should.
//!
//! Every batch waits a little, the longer the fuller the disks, and its connection is not read meanwhile. Only when more
//! come than may wait are some refused, to be sent again. Only a backlog of the offload counts: disks that are full of what must stay there are no reason.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_metadata_core::{BookieState, State};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Least rate, bytes per second and gateway: a client must see that it gets on.
const LEAST: u64 = 256 << 10;
/// No batch waits longer: clients have time-outs.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// No batch keeps others waiting longer: the largest at the least rate.
const COST_MAX: Duration = Duration::from_secs(64);

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

    /// Waits until a batch of so many bytes may go on, at most two seconds. Says how long it was, and whether it may: if
    /// not, nothing was done and it may be sent again.
    pub async fn admit(&self, bytes: usize) -> (Duration, bool) {
        let place = self.place(Instant::now(), bytes);
        let wait = place.unwrap_or(WAIT_MAX);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        (wait, place.is_some())
    }

    /// The time until its turn. None: too many are before it.
    fn place(&self, now: Instant, bytes: usize) -> Option<Duration> {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == u64::MAX {
            return Some(Duration::ZERO);
        }
        let seconds = bytes as f64 / rate.max(1) as f64;
        let mut next = self.next.lock();
        let at = (*next).max(now);
        if at - now > WAIT_MAX {
            return None;
        }
        *next = at + Duration::from_secs_f64(seconds.min(COST_MAX.as_secs_f64()));
        Some(at - now)
    }
}

/// Shares of a bookie's disk, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// In use, and producers are slowed down.
    pub from: u64,
    /// In use, and they get the least.
    pub to: u64,
}

/// The rate that the bookies' disks allow while `backlog` bytes wait and the bucket takes `drained` bytes per second.
pub fn allowed(marks: Marks, used_percent: u64, backlog: u64, drained: u64) -> u64 {
    if used_percent < marks.from || backlog == 0 {
        return u64::MAX;
    }
    let left = marks.to.saturating_sub(used_percent);
    // At the lower mark twice of what goes out, halfway as much, then less: the disks empty.
    (drained.saturating_mul(2 * left) / (marks.to - marks.from).max(1)).max(LEAST)
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
    const MARKS: Marks = Marks { from: 80, to: 95 };

    #[test]
    fn producers_are_slowed_only_by_a_backlog_on_full_disks() {
        assert_eq!(allowed(MARKS, 99, 0, DRAINED), u64::MAX, "nothing waits for the bucket");
        assert_eq!(allowed(MARKS, 79, 1 << 40, 0), u64::MAX, "there is room");
        let rates: Vec<u64> = (80..=100).map(|used| allowed(MARKS, used, 1, DRAINED)).collect();
        assert!(rates.is_sorted_by(|a, b| a >= b), "the fuller the slower: {rates:?}");
        assert!(rates[0] > DRAINED && rates.last() == Some(&LEAST));
        assert_eq!(allowed(MARKS, 80, 1, 0), LEAST, "the bucket takes nothing");
    }

    #[test]
    fn batches_come_at_the_rate_and_none_waits_for_long() {
        let (throttle, began) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.place(began, usize::MAX), Some(Duration::ZERO), "free");
        throttle.set(1 << 20);
        let mut now = began + Duration::from_secs(1);
        let first = now;
        for _ in 0..20 {
            now += throttle.place(now, 1 << 18).expect("one at a time is never too many");
        }
        assert_eq!(now - first, Duration::from_millis(4_750), "5 MiB at 1 MiB/s, the last one goes on its way");
    }

    #[test]
    fn many_at_once_do_not_pass_faster_than_one() {
        let (throttle, began) = (Throttle::default(), Instant::now() + Duration::from_secs(1));
        throttle.set(1 << 20);
        let passed = |second: u64| {
            let now = began + Duration::from_secs(second);
            let places: Vec<_> = (0..1_000).filter_map(|_| throttle.place(now, 1 << 18)).collect();
            assert!(places.iter().all(|wait| *wait <= WAIT_MAX));
            places.len()
        };
        let count: usize = (0..60).map(passed).sum();
        assert_eq!(count, 9 + 59 * 4, "a thousand producers, every second for a minute, at 1 MiB/s");
        throttle.set(1);
        assert!(throttle.place(began + Duration::from_secs(70), usize::MAX).is_some(), "one passes, whatever its size");
        assert!(throttle.place(began + Duration::from_secs(70) + COST_MAX, 1).is_some(), "and keeps nobody for long");
    }
}
