use std::sync::Arc;

use esker_cache::For;
use esker_metadata_core::{Answer, PartitionQuery, Query};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Offset};
use esker_wire::batch::{self, DecodeLimits};
use esker_wire::native::Position;

use super::{Chunk, ColdReader, ReadError};
use crate::gateway::Gateway;
use crate::partition::{Handle, News};

/// What a position stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: Offset,
    /// Of the record at `offset`, for a time that found one; else -1.
    pub timestamp_ms: i64,
}

/// Turns a position into an offset, in a partition that is ready.
pub async fn find_position(
    gateway: &Arc<Gateway>,
    handle: &Arc<Handle>,
    news: News,
    at: Position,
) -> Result<Found, ReadError> {
    let found = |offset| Ok(Found { offset, timestamp_ms: -1 });
    match at {
        Position::Earliest(_) => found(news.log_start),
        Position::Latest(_) => found(news.high_watermark),
        Position::Offset(offset) if (news.log_start..=news.high_watermark).contains(&offset) => found(offset),
        Position::Offset(offset) => Err(outside(gateway, handle, offset, news).await),
        Position::TimeMs(time) => by_time(gateway, handle, news, time).await,
    }
}

/// What to say of an offset outside `news`. Clients start over somewhere else when they hear `OffsetOutOfRange`, so an
/// owner that was replaced without knowing it may not say so of an offset that its successor holds (R17): metadata is
/// asked, linearizably, whether this is still the owner. Below the log start there is nothing to ask: that only grows.
pub async fn outside(gateway: &Gateway, handle: &Handle, offset: Offset, news: News) -> ErrorInfo {
    if offset < news.log_start {
        return out_of_range(offset, news);
    }
    let query = Query::Partition(PartitionQuery { partition: handle.id });
    let epoch = match gateway.store.read(query).await {
        Ok(Answer::Partition(answer)) => answer.info.map(|info| info.record.epoch),
        _ => {
            let message = format!("can't tell whether offset {offset} is beyond the end: metadata does not answer");
            return ErrorInfo::new(ErrorCode::OffsetNotAvailable, message);
        }
    };
    if epoch != Some(news.epoch) {
        return gateway.not_owner(handle.id, ErrorCode::NotOwner);
    }
    match handle.news() {
        // It was written meanwhile.
        now if (now.log_start..=now.high_watermark).contains(&offset) => {
            ErrorInfo::new(ErrorCode::OffsetNotAvailable, format!("offset {offset} has just come; ask again"))
        }
        now => out_of_range(offset, now),
    }
}

pub fn out_of_range(offset: Offset, news: News) -> ErrorInfo {
    let News { log_start, high_watermark, .. } = news;
    let message = format!("offset {offset} is not in [{log_start}, {high_watermark}]");
    ErrorInfo { from: log_start, to: high_watermark, ..ErrorInfo::new(ErrorCode::OffsetOutOfRange, message) }
}

/// The first record at or after `time`. Whole segments that are older are skipped by what metadata says of them; the
/// rest is read, because timestamps of clients need not grow.
async fn by_time(gateway: &Arc<Gateway>, handle: &Arc<Handle>, news: News, time: i64) -> Result<Found, ReadError> {
    let root = gateway.view.read(|state| state.partition(handle.id).and_then(|record| record.root.clone()));
    let old = match (root.filter(|root| root.segments > 0), &gateway.bucket) {
        (Some(root), Some(bucket)) => {
            let found = bucket.reader.segment_at_time(&root, time, news.log_start, For::Scan).await;
            found.map_err(|e| ErrorInfo::new(ErrorCode::OffsetNotAvailable, e.to_string()))?
        }
        _ => None,
    };
    let old = old.map(|entry| entry.base_offset);
    let first = gateway.view.read(|state| {
        let young = state.chain(handle.id).find(|closed| closed.max_ts >= time && closed.end_offset > news.log_start);
        young
            .map(|closed| closed.base_offset)
            .or_else(|| state.chain(handle.id).next_back().map(|last| last.end_offset))
    });
    let mut offset = old.or(first).unwrap_or(news.log_start).max(news.log_start);
    let mut reader = ColdReader::new(gateway.clone(), handle.clone());
    while offset < news.high_watermark {
        let cached = gateway.tail.read(handle.id, offset, news.high_watermark, usize::MAX);
        let entries = match cached {
            Some(entries) => entries,
            None => match reader.read(offset).await? {
                Chunk::Entries(entries) => entries,
                Chunk::Lost { to, .. } => {
                    offset = to;
                    continue;
                }
                Chunk::End => break,
            },
        };
        for entry in &entries {
            if entry.max_ts >= time
                && let Some(found) = in_batches(&entry.batches, time, news.log_start)?
            {
                return Ok(found);
            }
            offset = entry.end_offset;
        }
    }
    Ok(Found { offset: news.high_watermark, timestamp_ms: -1 })
}

fn in_batches(batches: &bytes::Bytes, time: i64, log_start: Offset) -> Result<Option<Found>, ReadError> {
    let broken =
        |e: batch::BatchError| ErrorInfo::new(ErrorCode::Internal, format!("a stored batch does not parse: {e}"));
    for batch in batch::split(batches.clone(), false) {
        let batch = batch.map_err(broken)?;
        if batch.header().largest_ts() < time {
            continue;
        }
        for record in batch.records(DecodeLimits::default()).map_err(broken)? {
            let record = record.map_err(broken)?;
            if record.timestamp_ms >= time && record.offset >= log_start {
                return Ok(Some(Found { offset: record.offset, timestamp_ms: record.timestamp_ms }));
            }
        }
    }
    Ok(None)
}
