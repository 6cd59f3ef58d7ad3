//! What metadata says of the history of this gateway's partitions.

use esker_cache_core::steps::Policy;
use esker_metadata_core::{PartitionInfo, PartitionRecord, State};
use esker_types::{Interval, PartitionId, SessionId};

use super::ObjectsConfig;
use crate::metrics::Metrics;

fn is_ours(record: &PartitionRecord, session: SessionId) -> bool {
    record.owner.as_ref().is_some_and(|owner| owner.session == session)
}

/// Partitions of this session with closed segments or a manifest, in order.
pub(super) fn with_history(state: &State, session: SessionId) -> Vec<PartitionId> {
    let ours = state.partitions().filter(|p| is_ours(p, session));
    ours.filter(|p| p.root.is_some() || state.chain(p.id).next().is_some()).map(|p| p.id).collect()
}

/// A partition and what is wanted of it, if it is `session`'s in this very state: under another owner's epoch nothing
/// may be named or proposed.
pub(super) fn of(
    state: &State,
    session: SessionId,
    config: &ObjectsConfig,
    id: PartitionId,
) -> Option<(PartitionInfo, Policy)> {
    let info = state.partition_info(id).filter(|info| is_ours(&info.record, session))?;
    let topic = state.topic(info.record.topic)?;
    let settings = topic.settings.effective();
    let ms = |interval: Interval| i64::try_from(interval.0.as_millis()).unwrap_or(i64::MAX);
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
        give_up_ms: ms(config.sweep_age) / 2,
        empty_every_ms: ms(config.grave_grace) / 4,
    };
    Some((info, policy))
}

/// Counts what waits to go to the bucket, in bytes.
pub(super) fn backlog(state: &State, session: SessionId, wall_ms: i64, metrics: &Metrics) -> u64 {
    let wanted = state
        .partitions()
        .filter(|p| is_ours(p, session))
        .filter(|p| state.topic(p.topic).is_some_and(|topic| !topic.internal && topic.settings.effective().offload));
    let (mut segments, mut bytes, mut oldest) = (0i64, 0i64, wall_ms);
    for record in wanted {
        for row in state.chain(record.id).filter(|row| row.object.is_none() && row.end_offset > record.log_start) {
            segments += 1;
            bytes = bytes.saturating_add_unsigned(row.bytes);
            oldest = oldest.min(row.closed.0);
        }
    }
    metrics.offload_backlog_segments.set(segments);
    metrics.offload_backlog_bytes.set(bytes);
    metrics.offload_backlog_age_seconds.set(wall_ms.saturating_sub(oldest) / 1_000);
    bytes.unsigned_abs()
}
