//! The way of a batch from a door to its shard, the same for both doors.

use std::sync::Arc;

use bytes::Bytes;
use esker_types::ErrorCode;
use esker_types::error::ErrorInfo;
use esker_wire::batch::{Batch, BatchError, BatchLimits, Compression, DecodeLimits};
use tokio::sync::oneshot;

use crate::gateway::Gateway;
use crate::partition::Handle;
use crate::shard::{Append, Outcome, Room};

/// Clocks of clients may be ahead by this much; later record timestamps are refused, because log time follows them.
const AHEAD_MS_MAX: i64 = 3_600_000;

/// Records of a batch that is compressed anew may take so many times the size of the topic's largest batch when they are not
/// compressed: what compresses better is refused, and sent in smaller batches.
const PLAIN_RATIO_MAX: usize = 16;

/// A batch on its way.
pub struct Submitted {
    pub outcome: oneshot::Receiver<Outcome>,
    /// When the gateway dated the records, in milliseconds; -1 = the client did.
    pub append_time_ms: i64,
}

/// Checks a batch, waits for room and hands it to its shard. Batches of one caller arrive in the order of its calls.
pub async fn submit(gateway: &Gateway, handle: &Arc<Handle>, batch: Bytes) -> Result<Submitted, ErrorInfo> {
    let now_ms = gateway.clock.wall_ms();
    let limits = BatchLimits {
        bytes_max: handle.limits.batch_bytes_max() as usize,
        timestamp_max_ms: now_ms.saturating_add(AHEAD_MS_MAX),
        ..BatchLimits::default()
    };
    let mut batch = Batch::check(batch, limits).map_err(|e| ErrorInfo::new(e.code(), e.to_string()))?;
    if let Some(wanted) = handle.limits.compression().filter(|wanted| batch.header().compression() != Ok(*wanted)) {
        batch = recompress(gateway, batch, wanted, limits.bytes_max).await?;
    }
    let append_time_ms = match handle.limits.append_time() {
        true => {
            batch.stamp_append_time(now_ms);
            now_ms
        }
        false => -1,
    };
    let bytes = u32::try_from(batch.bytes().len()).unwrap_or(u32::MAX);
    let (waited, admitted) = gateway.throttle.admit(batch.bytes().len()).await;
    if !waited.is_zero() {
        gateway.metrics.throttled_ms.inc_by(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    }
    if !admitted {
        let reason = "the bookies' disks fill up because the bucket does not take what it should: send it again later";
        return Err(ErrorInfo::new(ErrorCode::TimedOutBefore, reason));
    }
    let closed = || ErrorInfo::new(ErrorCode::ShuttingDown, "the gateway is stopping");
    let partition = handle.room.clone().acquire_many_owned(bytes).await.map_err(|_| closed())?;
    let whole = gateway.room.clone().acquire_many_owned(bytes).await.map_err(|_| closed())?;
    let room = Room::new(partition, whole);
    let (reply, outcome) = oneshot::channel();
    gateway.metrics.appends.inc();
    match gateway.shards.append(Append { handle: handle.clone(), batch, reply, room }).await {
        true => Ok(Submitted { outcome, append_time_ms }),
        false => Err(closed()),
    }
}

/// The batch as the topic wants it (`compression.type`). It must still fit the topic.
async fn recompress(gateway: &Gateway, batch: Batch, to: Compression, bytes_max: usize) -> Result<Batch, ErrorInfo> {
    let refuse = |error: BatchError| ErrorInfo::new(error.code(), error.to_string());
    let stopping = || ErrorInfo::new(ErrorCode::ShuttingDown, "the gateway is stopping");
    let turn = gateway.recompressions.acquire().await.map_err(|_| stopping())?;
    let limits = DecodeLimits { bytes_max: bytes_max.saturating_mul(PLAIN_RATIO_MAX) };
    let work = tokio::task::spawn_blocking(move || batch.recompressed(to, limits));
    let batch = work.await.map_err(|_| stopping())?.map_err(refuse)?;
    drop(turn);
    gateway.metrics.recompressed_bytes.inc_by(batch.bytes().len() as u64);
    match batch.bytes().len() {
        bytes if bytes > bytes_max => Err(refuse(BatchError::TooLarge { bytes, max: bytes_max })),
        _ => Ok(batch),
    }
}
