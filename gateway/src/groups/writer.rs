//! Appends of one coordinator: one batch under way, all that comes meanwhile goes into the next.

use std::collections::VecDeque;
use std::sync::Arc;

use esker_gateway_core::groups::{Append, KeyedRecord, Seq};
use esker_gateway_core::partition::Refusal;
use esker_types::{ErrorCode, Offset};
use esker_wire::batch::{Batch, BatchBuilder, Compression};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::gateway::Gateway;
use crate::partition::Handle;
use crate::shard;

/// A batch is closed when it has this much. A single append may have more.
const BATCH_BYTES: usize = 1 << 20;

type Outcome = Result<Offset, Refusal>;

/// See the module.
pub struct Writer {
    gateway: Arc<Gateway>,
    handle: Arc<Handle>,
    waiting: VecDeque<Append>,
    under_way: Option<(Seq, BoxFuture<'static, Outcome>)>,
    /// First append and base offset of each batch since the last snapshot began.
    places: VecDeque<(Seq, Offset)>,
}

impl Writer {
    pub fn new(gateway: Arc<Gateway>, handle: Arc<Handle>) -> Self {
        Self { gateway, handle, waiting: VecDeque::new(), under_way: None, places: VecDeque::new() }
    }

    pub fn push(&mut self, append: Append) {
        self.waiting.push_back(append);
    }

    /// Sends the next batch unless one is under way.
    pub fn go_on(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let Some(first) = self.waiting.front().map(|append| append.seq) else { return };
        let mut builder = BatchBuilder::new(Compression::None, 4096);
        let mut last = first;
        let now = self.gateway.clock.wall_ms();
        while let Some(append) = self.waiting.pop_front_if(|next| {
            let bytes: usize = next.records.iter().map(KeyedRecord::len).sum();
            builder.is_empty() || builder.len() + bytes <= BATCH_BYTES
        }) {
            for KeyedRecord { key, value } in &append.records {
                builder.push(now, Some(key), value.as_deref(), &[]);
            }
            last = append.seq;
        }
        // The base offset comes with the outcome.
        self.places.push_back((first, Offset::MAX));
        let append = append(self.gateway.clone(), self.handle.clone(), builder.build(None));
        self.under_way = Some((last, append.boxed()));
    }

    /// Waits for the batch under way, for ever if there is none. Gives the last append in it. Cancel-safe: the batch
    /// stays here until its outcome is taken.
    pub async fn committed(&mut self) -> Result<Seq, Refusal> {
        let Some((last, outcome)) = &mut self.under_way else { return std::future::pending().await };
        let (last, outcome) = (*last, outcome.await);
        self.under_way = None;
        let base_offset = outcome?;
        if let Some((_, place)) = self.places.back_mut() {
            *place = base_offset;
        }
        Ok(last)
    }

    /// Where the batch begins that holds a committed append. Earlier ones are forgotten.
    pub fn place(&mut self, seq: Seq) -> Option<Offset> {
        let behind = self.places.partition_point(|(first, _)| *first <= seq);
        self.places.drain(..behind.saturating_sub(1));
        self.places.front().map(|(_, offset)| *offset)
    }
}

/// One batch through the path that all batches take.
pub async fn append(gateway: Arc<Gateway>, handle: Arc<Handle>, batch: Batch) -> Outcome {
    let stopping = || Refusal { code: ErrorCode::ShuttingDown, reason: "the gateway is stopping".to_owned() };
    if batch.bytes().len() > handle.limits.batch_bytes_max() as usize {
        let reason = format!("a change of groups takes {} bytes, too many for one batch", batch.bytes().len());
        return Err(Refusal { code: ErrorCode::BatchTooLarge, reason });
    }
    let bytes = u32::try_from(batch.bytes().len()).unwrap_or(u32::MAX);
    let partition = handle.room.clone().acquire_many_owned(bytes).await.map_err(|_| stopping())?;
    let whole = gateway.room.clone().acquire_many_owned(bytes).await.map_err(|_| stopping())?;
    let (reply, outcome) = oneshot::channel();
    let append = shard::Append { handle, batch, reply, room: shard::Room::new(partition, whole) };
    if !gateway.shards.append(append).await {
        return Err(stopping());
    }
    match outcome.await {
        Ok(done) => done.map(|completed| completed.base_offset),
        Err(_) => Err(stopping()),
    }
}
