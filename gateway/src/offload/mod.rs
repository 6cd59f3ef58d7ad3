//! Moves the closed segments of this gateway's partitions to the bucket, and old ones out of it.
//!
//! One task looks at the partitions that this gateway owns and starts what is due, a step at a time for each, a bounded
//! number at once. Nothing of it is on the way of an append: a bucket in trouble leaves segments on bookies.

mod bucket;
mod config;
mod copy;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use esker_cache_core::steps::{Policy, Step, Tier};
use esker_metadata_core::{PartitionInfo, State};
use esker_types::{AllRules, PartitionId, SessionId, WallMs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bucket::Bucket;
pub use config::ObjectsConfig;

use crate::gateway::Gateway;
use work::Work;

/// Least time between two looks at all partitions: news come in bursts.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// Longest time: ages are reached without news.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Half of the age at which a sweep may take an object that nothing reaches.
const GIVE_UP_MS: i64 = 12 * 3_600_000;
const RETRY_MIN: Duration = Duration::from_millis(100);

/// What is remembered of a partition with history.
struct Slot {
    /// None while a step is under way.
    tier: Option<Tier<AllRules>>,
    failures: u32,
    not_before: Instant,
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
    failed: bool,
}

/// Runs until `cancel`.
pub async fn run(gateway: Arc<Gateway>, bucket: Bucket, tasks: TaskTracker, cancel: CancellationToken) {
    let incarnation = gateway.view.read(|state| state.cluster().map_or(0, |cluster| cluster.incarnation));
    let places = Arc::new(Semaphore::new(gateway.config.objects.concurrency as usize));
    let (done, mut finished) = mpsc::channel::<Done>(places.available_permits());
    let work = Arc::new(Work { gateway: gateway.clone(), bucket, names: AtomicU64::new(1), incarnation });
    let mut slots: HashMap<PartitionId, Slot> = HashMap::new();
    // Where the last look stopped for want of a place: the next one begins behind it.
    let mut from = PartitionId(0);
    loop {
        let seen = gateway.view.revision();
        from = look(&work, &mut slots, &places, from, |permit, due| start(&work, &tasks, &cancel, &done, permit, due));
        // Cancel-safe: nothing is taken from a wait that loses.
        tokio::select! {
            biased;
            _ = cancel.cancelled() => return,
            Some(one) = finished.recv() => settle(&gateway, &mut slots, one),
            _ = changed(&gateway, seen) => {}
        }
    }
}

async fn changed(gateway: &Gateway, seen: u64) {
    tokio::time::sleep(LOOK_MIN).await;
    let _ = tokio::time::timeout(LOOK_MAX, gateway.view.changed(seen)).await;
}

fn settle(gateway: &Gateway, slots: &mut HashMap<PartitionId, Slot>, done: Done) {
    let Some(slot) = slots.get_mut(&done.partition) else { return };
    slot.tier = Some(done.tier);
    slot.failures = if done.failed { slot.failures.saturating_add(1) } else { 0 };
    if done.failed {
        let most = gateway.config.objects.retry_max.0;
        let wait = RETRY_MIN.saturating_mul(1 << slot.failures.min(16)).min(most);
        // Between half of it and all: partitions that failed together do not come back together.
        let spread = gateway.clock.now().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ done.partition.0;
        slot.not_before = Instant::now() + wait / 2 + wait.mul_f64((spread % 1_000) as f64 / 2_000.0);
    }
}

/// Starts what is due, as far as there are places. Gives the partition to begin with next time.
fn look(
    work: &Work,
    slots: &mut HashMap<PartitionId, Slot>,
    places: &Arc<Semaphore>,
    from: PartitionId,
    mut start: impl FnMut(OwnedSemaphorePermit, Due),
) -> PartitionId {
    let gateway = &work.gateway;
    let Some(session) = gateway.standing.borrow().session else {
        slots.clear();
        return from;
    };
    let mut ours = gateway.view.read(|state| with_history(state, session));
    backlog(gateway, session);
    slots.retain(|id, slot| slot.tier.is_none() || ours.binary_search(id).is_ok());
    let at = ours.partition_point(|id| *id < from);
    ours.rotate_left(at);
    for id in ours {
        if places.available_permits() == 0 {
            return id;
        }
        let Some((info, policy)) = gateway.view.read(|state| of(state, gateway, id)) else { continue };
        let fresh = || Slot { tier: Some(Tier::new(info.record.epoch)), failures: 0, not_before: Instant::now() };
        let slot = slots.entry(id).or_insert_with(fresh);
        let Some(mut tier) = slot.tier.take() else { continue };
        if tier.epoch() != info.record.epoch {
            tier = Tier::new(info.record.epoch);
        }
        let now = WallMs(gateway.clock.wall_ms());
        let step = if Instant::now() < slot.not_before { None } else { tier.next(now, &info, &policy) };
        match (step, places.clone().try_acquire_owned()) {
            (Some(step), Ok(permit)) => start(permit, Due { partition: id, tier, info, step }),
            _ => slot.tier = Some(tier),
        }
    }
    from
}

fn start(
    work: &Arc<Work>,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    done: &mpsc::Sender<Done>,
    permit: OwnedSemaphorePermit,
    due: Due,
) {
    let (work, done, cancel) = (work.clone(), done.clone(), cancel.clone());
    tasks.spawn(async move {
        let Due { partition, mut tier, info, step } = due;
        let Some(performed) = cancel.run_until_cancelled(work.perform(&info, step)).await else { return };
        let failed = performed.is_err();
        match performed {
            Ok(event) => event.into_iter().for_each(|event| tier.on(event)),
            Err(failure) => {
                tracing::warn!(%partition, %failure, "a step of the object tier failed; it is tried again");
                work.gateway.metrics.offload_failures.inc();
            }
        }
        drop(permit);
        let _ = done.send(Done { partition, tier, failed }).await;
    });
}

/// Partitions of this session with closed segments or a manifest, in order.
fn with_history(state: &State, session: SessionId) -> Vec<PartitionId> {
    let ours = state.partitions().filter(|p| p.owner.as_ref().is_some_and(|owner| owner.session == session));
    ours.filter(|p| p.root.is_some() || state.chain(p.id).next().is_some()).map(|p| p.id).collect()
}

fn of(state: &State, gateway: &Gateway, id: PartitionId) -> Option<(PartitionInfo, Policy)> {
    let info = state.partition_info(id)?;
    let topic = state.topic(info.record.topic)?;
    let settings = topic.settings.effective();
    let config = &gateway.config.objects;
    let ms = |interval: esker_types::Interval| i64::try_from(interval.0.as_millis()).unwrap_or(i64::MAX);
    let bounded = |value: i64| (value >= 0).then_some(value);
    let policy = Policy {
        // Esker's own logs are short and read whole at every take-over: bookies keep them.
        offload: settings.offload && !topic.internal,
        fold_segments: config.fold_segments as usize,
        fold_age_ms: ms(config.fold_age),
        local_retention_ms: bounded(settings.local_retention_ms),
        retention_ms: bounded(settings.retention_ms),
        retention_bytes: u64::try_from(settings.retention_bytes).ok(),
        retain_every_ms: ms(config.retention_interval),
        grave_ms: ms(config.grave_grace),
        give_up_ms: GIVE_UP_MS,
        empty_every_ms: ms(config.grave_grace) / 4,
    };
    Some((info, policy))
}

/// What waits to go to the bucket.
fn backlog(gateway: &Gateway, session: SessionId) {
    let (segments, bytes) = gateway.view.read(|state| {
        let ours = state.partitions().filter(|p| p.owner.as_ref().is_some_and(|owner| owner.session == session));
        let wanted = ours.filter(|p| {
            state.topic(p.topic).is_some_and(|topic| !topic.internal && topic.settings.effective().offload)
        });
        let rows = wanted.flat_map(|p| state.chain(p.id).filter(|row| row.object.is_none()));
        rows.fold((0i64, 0i64), |(count, bytes), row| (count + 1, bytes.saturating_add_unsigned(row.bytes)))
    });
    gateway.metrics.offload_backlog_segments.set(segments);
    gateway.metrics.offload_backlog_bytes.set(bytes);
}
