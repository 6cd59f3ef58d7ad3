//! Moves the closed segments of this gateway's partitions to the bucket, and old ones out of it.
//!
//! One task looks at the partitions that this gateway owns and starts what is due, a step at a time for each, a bounded
//! number at once. Nothing of it is on the way of an append: a bucket in trouble leaves segments on bookies.

mod bucket;
mod claim;
mod config;
mod copy;
mod delete;
mod spell;
mod survey;
mod sweep;
mod work;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use esker_cache_core::steps::{Event, Policy, Step, Tier};
use esker_metadata_core::{PartitionInfo, PartitionRecord};
use esker_types::{AllRules, PartitionId, SessionId, WallMs};
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bucket::Bucket;
pub use config::ObjectsConfig;
pub use sweep::{Swept, sweep_page};

use crate::gateway::Gateway;
use crate::throttle;
use spell::Spell;
use work::{Failure, Work};

/// Least time between two looks at all partitions: news come in bursts.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// Longest time: ages are reached without news.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Looks take at most one part of so many of the time.
const LOOK_SHARE: u32 = 20;
/// A partition that had nothing to do and whose record has not changed since is left alone for so long, or for a quarter of
/// the shortest time that decides when something is due.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Seconds over which the rate to the bucket is averaged.
const SMOOTHING: f64 = 10.0;
const RETRY_MIN: Duration = Duration::from_millis(100);

/// What is remembered of a partition with history.
struct Slot {
    /// None while a step is under way.
    tier: Option<Tier<AllRules>>,
    failures: u32,
    not_before: Instant,
    /// The record with which there was nothing to do.
    idle_with: Option<Arc<PartitionRecord>>,
}

/// A step to be done.
struct Due {
    partition: PartitionId,
    tier: Tier<AllRules>,
    info: PartitionInfo,
    step: Step,
}

struct Done {
    partition: PartitionId,
    tier: Tier<AllRules>,
    /// The step used the bucket.
    stored: bool,
    failure: Option<Failure>,
}

struct Driver {
    gateway: Arc<Gateway>,
    work: Arc<Work>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    places: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
    slots: HashMap<PartitionId, Slot>,
    /// Where the last look stopped for want of a place: the next one begins there.
    from: PartitionId,
    spell: Spell,
    counted: Option<Instant>,
    /// Bytes that had gone to the bucket at the last count, and how many go in a second of late.
    drained: (u64, f64),
}

/// Runs until `cancel`.
pub async fn run(gateway: Arc<Gateway>, bucket: Bucket, tasks: TaskTracker, cancel: CancellationToken) {
    let incarnation = gateway.incarnation();
    let places = Arc::new(Semaphore::new(gateway.config.objects.concurrency as usize));
    let (done, mut finished) = mpsc::channel::<Done>(places.available_permits());
    let work =
        Arc::new(Work { gateway: gateway.clone(), bucket: bucket.clone(), names: AtomicU64::new(1), incarnation });
    let mut driver = Driver {
        gateway: gateway.clone(),
        work,
        tasks,
        cancel: cancel.clone(),
        places,
        done,
        slots: HashMap::new(),
        from: PartitionId(0),
        spell: Spell::default(),
        counted: None,
        drained: (0, 0.0),
    };
    let mut claiming = std::pin::pin!(claim::claimed(&gateway, &bucket));
    let mut ours = false;
    loop {
        let seen = gateway.view.revision();
        let pause = driver.look(ours);
        // Cancel-safe: nothing is taken from a wait that loses, and the claim goes on where it was.
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = &mut claiming, if !ours => {
                ours = true;
                driver.tasks.spawn(sweep::run(gateway.clone(), bucket.clone(), cancel.clone()));
            }
            Some(one) = finished.recv() => driver.settle(one),
            () = changed(&gateway, seen, pause) => {}
        }
    }
}

async fn changed(gateway: &Gateway, seen: u64, pause: Duration) {
    tokio::time::sleep(pause).await;
    let _ = tokio::time::timeout(LOOK_MAX, gateway.view.changed(seen)).await;
}

impl Driver {
    /// Starts what is due, as far as there are places. Gives the time to wait before the next look.
    fn look(&mut self, ours: bool) -> Duration {
        let (gateway, began) = (self.gateway.clone(), Instant::now());
        let Some(session) = gateway.standing.borrow().session else {
            self.slots.clear();
            return LOOK_MIN;
        };
        if self.counted.is_none_or(|at| at.elapsed() >= LOOK_MAX) {
            self.count(session);
        }
        if ours && self.places.available_permits() > 0 {
            self.start_due(session);
        }
        (began.elapsed() * LOOK_SHARE).max(LOOK_MIN)
    }

    /// What waits, how fast it goes, and whether producers must wait for it.
    fn count(&mut self, session: SessionId) {
        let (gateway, now) = (&self.gateway, Instant::now());
        let metrics = &gateway.metrics;
        let seconds = self.counted.map_or(1.0, |at| now.duration_since(at).as_secs_f64());
        let drained = metrics.offloaded_bytes.get();
        let rate = (drained - self.drained.0) as f64 / seconds;
        self.drained = (drained, self.drained.1 + (rate - self.drained.1) / SMOOTHING);
        self.counted = Some(now);
        let (backlog, used) = gateway.view.read(|state| {
            (survey::backlog(state, session, gateway.clock.wall_ms(), metrics), throttle::disk_used(state))
        });
        gateway.throttle.set(throttle::allowed(gateway.config.objects.marks(), used, backlog, self.drained.1 as u64));
    }

    fn start_due(&mut self, session: SessionId) {
        let gateway = self.gateway.clone();
        let mut ours = gateway.view.read(|state| survey::with_history(state, session));
        self.slots.retain(|id, slot| slot.tier.is_none() || ours.binary_search(id).is_ok());
        let at = ours.partition_point(|id| *id < self.from);
        ours.rotate_left(at);
        for id in ours {
            let Ok(permit) = self.places.clone().try_acquire_owned() else {
                self.from = id;
                return;
            };
            if let Some(due) = self.due(id, session) {
                self.start(permit, due);
            }
        }
    }

    /// The next step of a partition, if it can be done now.
    fn due(&mut self, id: PartitionId, session: SessionId) -> Option<Due> {
        let (gateway, now) = (&self.gateway, Instant::now());
        if let Some(slot) = self.slots.get(&id)
            && (slot.tier.is_none() || now < slot.not_before)
        {
            let unchanged = |slot: &Slot| {
                let record = gateway.view.read(|state| state.partition(id).cloned());
                slot.idle_with.as_ref().zip(record).is_some_and(|(seen, record)| Arc::ptr_eq(seen, &record))
            };
            if slot.tier.is_none() || slot.idle_with.is_none() || unchanged(slot) {
                return None;
            }
        }
        let objects = &gateway.config.objects;
        let shortest = objects.grave_grace.0.min(objects.retention_interval.0).min(objects.fold_age.0);
        let idle = (shortest / 4).clamp(LOOK_MIN, IDLE_MAX);
        let (info, policy): (PartitionInfo, Policy) =
            gateway.view.read(|state| survey::of(state, session, objects, id))?;
        let fresh = || Slot { tier: Some(Tier::new(info.record.epoch)), failures: 0, not_before: now, idle_with: None };
        let slot = self.slots.entry(id).or_insert_with(fresh);
        let mut tier = slot.tier.take()?;
        if tier.epoch() != info.record.epoch {
            tier = Tier::new(info.record.epoch);
        }
        match tier.next(WallMs(gateway.clock.wall_ms()), &info, &policy) {
            Some(step) => {
                slot.idle_with = None;
                Some(Due { partition: id, tier, info, step })
            }
            None => {
                (slot.tier, slot.not_before, slot.idle_with) = (Some(tier), now + idle, Some(info.record));
                None
            }
        }
    }

    fn start(&self, permit: OwnedSemaphorePermit, due: Due) {
        let (work, done, cancel) = (self.work.clone(), self.done.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            let Due { partition, mut tier, info, step } = due;
            let stored = !matches!(step, Step::Propose(_));
            // A panic is a bug of ours; it must not keep the partition from its next try.
            let performing = AssertUnwindSafe(work.perform(&info, step)).catch_unwind();
            let Some(performed) = cancel.run_until_cancelled(performing).await else { return };
            let failure = match performed {
                Ok(Ok(event)) => {
                    // What was refused is due again at once: it must wait like what failed.
                    let refused = matches!(event, Some(Event::Rejected));
                    event.into_iter().for_each(|event| tier.on(event));
                    refused.then(|| Failure::other("metadata refused the step"))
                }
                Ok(Err(failure)) => Some(failure),
                Err(_) => {
                    work.gateway.metrics.alarms.inc();
                    Some(Failure::other("a step panicked"))
                }
            };
            drop(permit);
            let _ = done.send(Done { partition, tier, stored, failure }).await;
        });
    }

    fn settle(&mut self, done: Done) {
        let Some(slot) = self.slots.get_mut(&done.partition) else { return };
        slot.tier = Some(done.tier);
        let Some(failure) = done.failure else {
            (slot.failures, slot.not_before) = (0, Instant::now());
            if done.stored {
                self.spell.worked();
            }
            return;
        };
        self.gateway.metrics.offload_failures.inc();
        slot.failures = slot.failures.saturating_add(1);
        let most = self.gateway.config.objects.retry_max.0;
        let wait = RETRY_MIN.saturating_mul(1 << slot.failures.min(16)).min(most);
        // Between half of it and all: partitions that failed together do not come back together.
        let spread = self.gateway.clock.now().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ done.partition.0;
        slot.not_before = Instant::now() + wait / 2 + wait.mul_f64((spread % 1_000) as f64 / 2_000.0);
        match failure {
            Failure::Store(error) => self.spell.failed(&error),
            Failure::Other(reason) if slot.failures >= 4 && slot.failures.is_power_of_two() => {
                let (partition, tries) = (done.partition, slot.failures);
                tracing::warn!(%partition, tries, reason, "history of a partition can't move; it is tried again");
            }
            Failure::Other(reason) => {
                tracing::debug!(partition = %done.partition, reason, "a step failed; it is tried again");
            }
        }
    }
}
