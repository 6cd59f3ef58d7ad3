//! Moves the closed segments of this gateway's partitions to the bucket, and old ones out of it.
//!
//! One task looks at the partitions that this gateway owns and starts what is due, a step at a time for each, a bounded
//! number at once. Nothing of it is on the way of an append: a bucket in trouble leaves segments on bookies.

mod bucket;
mod claim;
mod config;
mod copy;
mod delete;
mod share;
mod spell;
mod survey;
mod sweep;
mod work;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use esker_cache_core::steps::{Event, Policy, Step, Tier, Waiting};
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
use work::{Failed, Failure, Work};

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
    /// The small segment that waits for company. Nothing else of the partition does.
    waits: Option<Waiting>,
    /// Its last step failed by itself: its segment must not keep others from the bucket.
    alone: bool,
}

/// A step to be done.
struct Due {
    partition: PartitionId,
    tier: Tier<AllRules>,
    info: PartitionInfo,
    step: Step,
}

/// A step that is over; of several partitions if they wrote an object together.
struct Done {
    members: Vec<(PartitionId, Tier<AllRules>)>,
    /// The step used the bucket.
    stored: bool,
    failed: Option<Failed>,
}

struct Driver {
    gateway: Arc<Gateway>,
    work: Arc<Work>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    places: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
    slots: HashMap<PartitionId, Slot>,
    /// Whether the segments that wait come before all else at the next look: neither may keep the other out for ever.
    sharing_first: bool,
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
        sharing_first: false,
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
        self.sharing_first = !self.sharing_first;
        if self.sharing_first {
            self.share(session);
        }
        for id in ours {
            let Ok(permit) = self.places.clone().try_acquire_owned() else {
                self.from = id;
                break;
            };
            if let Some(due) = self.due(id, session) {
                match self.small(&due) {
                    Some(facts) => self.wait(due, &facts),
                    None => self.start(permit, vec![due]),
                }
            }
        }
        self.share(session);
    }

    /// The next step of a partition, if it can be done now.
    fn due(&mut self, id: PartitionId, session: SessionId) -> Option<Due> {
        if let Some(slot) = self.slots.get(&id)
            && (slot.tier.is_none() || Instant::now() < slot.not_before)
        {
            let unchanged = |slot: &Slot| {
                let record = self.gateway.view.read(|state| state.partition(id).cloned());
                slot.idle_with.as_ref().zip(record).is_some_and(|(seen, record)| Arc::ptr_eq(seen, &record))
            };
            if slot.tier.is_none() || slot.idle_with.is_none() || unchanged(slot) {
                return None;
            }
        }
        self.next(id, session)
    }

    /// The next step of a partition, as metadata shows it now: what is named for it is named under an epoch that is ours.
    fn next(&mut self, id: PartitionId, session: SessionId) -> Option<Due> {
        let (gateway, now) = (&self.gateway, Instant::now());
        let objects = &gateway.config.objects;
        let (info, policy): (PartitionInfo, Policy) =
            gateway.view.read(|state| survey::of(state, session, objects, id))?;
        let slot = self.slots.entry(id).or_insert_with(|| Slot::new(Tier::new(info.record.epoch), now));
        let mut tier = slot.tier.take()?;
        slot.waits = None;
        if tier.epoch() != info.record.epoch {
            tier = Tier::new(info.record.epoch);
        }
        match tier.next(WallMs(gateway.clock.wall_ms()), &info, &policy) {
            Some(step) => {
                slot.idle_with = None;
                Some(Due { partition: id, tier, info, step })
            }
            None => {
                slot.rest(tier, info.record, idle(objects));
                None
            }
        }
    }

    fn start(&self, permit: OwnedSemaphorePermit, due: Vec<Due>) {
        let (work, done, cancel) = (self.work.clone(), self.done.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            let stored = due.iter().any(|due| !matches!(due.step, Step::Propose(_)));
            let (mut members, mut steps) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
            for Due { partition, tier, info, step } in due {
                members.push((partition, tier));
                steps.push((info, step));
            }
            // A panic is a bug of ours; it must not keep the partition from its next try.
            let performing = AssertUnwindSafe(work.perform(steps)).catch_unwind();
            let Some(performed) = cancel.run_until_cancelled(performing).await else { return };
            let failed = match performed {
                Ok(Ok(events)) => {
                    // What was refused is due again at once: it must wait like what failed.
                    let refused = events.iter().any(|event| matches!(event, Some(Event::Rejected)));
                    for ((_, tier), event) in members.iter_mut().zip(events) {
                        event.into_iter().for_each(|event| tier.on(event));
                    }
                    refused.then(|| Failed { by: None, failure: Failure::other("metadata refused the step") })
                }
                Ok(Err(failed)) => Some(failed),
                Err(_) => {
                    work.gateway.metrics.alarms.inc();
                    Some(Failed { by: None, failure: Failure::other("a step panicked") })
                }
            };
            drop(permit);
            let _ = done.send(Done { members, stored, failed }).await;
        });
    }

    fn settle(&mut self, done: Done) {
        let Done { members, stored, failed } = done;
        let Some(first) = members.first().map(|(id, _)| *id) else { return };
        let Some(Failed { by, failure }) = failed else {
            for (id, tier) in members {
                self.slots.entry(id).and_modify(|slot| slot.went_well(tier));
            }
            if stored {
                self.spell.worked();
            }
            return;
        };
        self.gateway.metrics.offload_failures.inc();
        let own = matches!(failure, Failure::Other(_));
        // Between half of it and all: partitions that failed together do not come back together, but for those that
        // share an object.
        let spread = self.gateway.clock.now().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ first.0;
        let most = self.gateway.config.objects.retry_max.0;
        let (mut culprit, mut tries) = (first, 0);
        for (at, (id, tier)) in members.into_iter().enumerate() {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.tier = Some(tier);
            if by.is_some_and(|by| by != at) {
                // Not its fault: it finds other company.
                slot.not_before = Instant::now();
                continue;
            }
            slot.failures = slot.failures.saturating_add(1);
            slot.alone |= own;
            let wait = RETRY_MIN.saturating_mul(1 << slot.failures.min(16)).min(most);
            slot.not_before = Instant::now() + wait / 2 + wait.mul_f64((spread % 1_000) as f64 / 2_000.0);
            (culprit, tries) = (id, slot.failures);
        }
        match failure {
            Failure::Store(error) => self.spell.failed(&error),
            Failure::Other(reason) if tries >= 4 && tries.is_power_of_two() => {
                tracing::warn!(partition = %culprit, tries, reason, "history of a partition can't move; it is tried again");
            }
            Failure::Other(reason) => {
                tracing::debug!(partition = %culprit, reason, "a step failed; it is tried again");
            }
        }
    }
}

impl Slot {
    fn new(tier: Tier<AllRules>, now: Instant) -> Self {
        Self { tier: Some(tier), failures: 0, not_before: now, idle_with: None, waits: None, alone: false }
    }

    /// Nothing is to be done until the record changes, or for so long.
    fn rest(&mut self, tier: Tier<AllRules>, record: Arc<PartitionRecord>, idle: Duration) {
        (self.tier, self.not_before, self.idle_with) = (Some(tier), Instant::now() + idle, Some(record));
    }

    fn went_well(&mut self, tier: Tier<AllRules>) {
        (self.tier, self.not_before) = (Some(tier), Instant::now());
        (self.failures, self.alone) = (0, false);
    }
}

/// How long a partition without work is left alone unless its record changes.
fn idle(objects: &ObjectsConfig) -> Duration {
    let shortest = objects.grave_grace.0.min(objects.retention_interval.0).min(objects.fold_age.0);
    (shortest / 4).clamp(LOOK_MIN, IDLE_MAX)
}
