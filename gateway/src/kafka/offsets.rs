//! ListOffsets: both ends, times (exact inside batches), and the record with the largest timestamp.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use esker_kafka::{code, list_offsets};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, PartitionId};
use esker_wire::native::Position;
use tokio::time::Instant;

use super::errors;
use super::partitions;
use super::session::Session;
use crate::auth::Action;
use crate::partition::{Handle, News};
use crate::read::{Chunk, ColdReader, Found, find_position};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const LARGEST_TIMESTAMP: i64 = -3;
/// Of what is not in the bucket only. As long as everything can be read from here, that is the start.
const EARLIEST_LOCAL: i64 = -4;

/// How long a request waits for owners that are just taking over.
const OWNER_WAIT: Duration = Duration::from_millis(500);

pub async fn answer(session: &Session, request: list_offsets::Request) -> list_offsets::Response {
    let until = Instant::now() + OWNER_WAIT;
    let mut seen = BTreeSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            // A lookup may read much: each partition once per request, as Kafka demands.
            let found = match seen.insert((topic.name.clone(), asked.partition_index)) {
                true => find(session, &topic.name, &asked, until).await,
                false => Err(ErrorInfo::new(ErrorCode::InvalidRequest, "the partition is named twice")),
            };
            partitions.push(match found {
                Ok((found, news)) => list_offsets::Partition {
                    partition_index: asked.partition_index,
                    error_code: code::NONE,
                    timestamp: found.timestamp_ms,
                    offset: found.offset,
                    leader_epoch: match found.offset {
                        -1 => -1,
                        _ => i32::try_from(news.epoch.0).unwrap_or(i32::MAX),
                    },
                },
                Err(error) => list_offsets::Partition {
                    partition_index: asked.partition_index,
                    error_code: match error.error_code() {
                        Some(ErrorCode::InvalidRequest) => code::INVALID_REQUEST,
                        _ => errors::read(&error),
                    },
                    ..Default::default()
                },
            });
        }
        topics.push(list_offsets::Topic { name: topic.name, partitions });
    }
    list_offsets::Response { throttle_time_ms: 0, topics }
}

async fn find(
    session: &Session,
    topic: &str,
    asked: &list_offsets::RequestPartition,
    until: Instant,
) -> Result<(Found, News), ErrorInfo> {
    let found = partitions::record(session, topic, asked.partition_index);
    let id = found.as_ref().map_or(PartitionId(0), |record| record.id);
    if !session.allows(Action::Read { topic, partition: id }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, format!("not allowed on topic {topic:?}")));
    }
    let handle = partitions::owned(session, &*found?, until).await?;
    let news = handle.news();
    partitions::check_epoch(asked.current_leader_epoch, news)?;
    let at = match asked.timestamp {
        LATEST => Position::Latest(true),
        EARLIEST | EARLIEST_LOCAL => Position::Earliest(true),
        LARGEST_TIMESTAMP => match largest_timestamp(session, &handle, news).await? {
            Some(time) => Position::TimeMs(time),
            None => return Ok((Found { offset: -1, timestamp_ms: -1 }, news)),
        },
        time if time >= 0 => Position::TimeMs(time),
        other => {
            return Err(ErrorInfo::new(ErrorCode::InvalidRequest, format!("timestamp {other} means nothing here")));
        }
    };
    let by_time = matches!(at, Position::TimeMs(_));
    let found = find_position(session.gateway(), &handle, news, at).await?;
    // Kafka has no offset to give where no record is late enough; ours would be the end.
    let none = by_time && found.timestamp_ms < 0 && found.offset >= news.high_watermark;
    Ok((if none { Found { offset: -1, timestamp_ms: -1 } } else { found }, news))
}

/// Of all records that can be read: by what metadata says of closed segments, and a look at what is open. None: no record.
async fn largest_timestamp(session: &Session, handle: &Arc<Handle>, news: News) -> Result<Option<i64>, ErrorInfo> {
    if news.log_start >= news.high_watermark {
        return Ok(None);
    }
    let gateway = session.gateway();
    let (closed, end) = gateway.view.read(|state| {
        let whole = state.chain(handle.id).filter(|segment| segment.base_offset >= news.log_start);
        let largest = whole.map(|segment| segment.max_ts).max();
        (largest, state.chain(handle.id).next_back().map_or(0, |last| last.end_offset))
    });
    // The segment that the log begins in the middle of may hold its largest timestamp before that.
    let partial = gateway.view.read(|state| {
        let cut = state.chain(handle.id).find(|s| s.base_offset < news.log_start && news.log_start < s.end_offset);
        cut.map(|segment| segment.end_offset)
    });
    let first = scan(session, handle, news.log_start, partial.unwrap_or(news.log_start)).await?;
    let last = scan(session, handle, end.max(news.log_start), news.high_watermark).await?;
    Ok([closed, first, last].into_iter().flatten().max())
}

/// The largest timestamp of entries from one offset to another.
async fn scan(session: &Session, handle: &Arc<Handle>, mut offset: i64, end: i64) -> Result<Option<i64>, ErrorInfo> {
    let gateway = session.gateway();
    let mut reader = ColdReader::new(gateway.clone(), handle.clone());
    let mut largest = None;
    while offset < end {
        let entries = match gateway.tail.read(handle.id, offset, end, usize::MAX) {
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
        for entry in entries {
            largest = largest.max(Some(entry.max_ts));
            offset = entry.end_offset;
        }
    }
    Ok(largest)
}
