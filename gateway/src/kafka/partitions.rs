//! From the partition that a client names to its handle here, and what is done with one partition at a time.

use std::sync::Arc;
use std::time::Duration;

use esker_kafka::delete_records;
use esker_kafka::{Uuid, code};
use esker_metadata_core::PartitionRecord;
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, TopicId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::errors;
use super::session::Session;
use crate::auth::Action;
use crate::door::ready;
use crate::gateway::unknown_topic;
use crate::partition::{Handle, News};
use crate::read::outside;
use crate::shard::Control;

/// How long a request that changes one partition waits for an owner that is just taking over.
const READY_WAIT: Duration = Duration::from_secs(5);

/// The record of a partition by our copy of the metadata. Nothing is waited for: Kafka clients ask again.
pub fn record(session: &Session, topic: &str, index: i32) -> Result<Arc<PartitionRecord>, ErrorInfo> {
    session.gateway().view.read(|state| {
        let topic_record = state.topic_by_name(topic).ok_or_else(|| unknown_topic(topic))?;
        let id = usize::try_from(index).ok().and_then(|index| topic_record.partitions.get(index));
        id.and_then(|id| state.partition(*id)).cloned().ok_or_else(|| {
            let message =
                format!("topic {topic:?} has partitions 0 to {}, not {index}", topic_record.partitions.len() - 1);
            ErrorInfo::new(ErrorCode::UnknownPartition, message)
        })
    })
}

/// The name of a topic by its id.
pub fn topic_name(session: &Session, id: Uuid) -> Option<String> {
    session.gateway().view.read(|state| state.topic(TopicId(id.0)).map(|topic| topic.name.clone()))
}

/// The handle of a partition that is ours and ready; waits until `until` for one that is on its way here.
pub async fn owned(session: &Session, record: &PartitionRecord, until: Instant) -> Result<Arc<Handle>, ErrorInfo> {
    let gateway = session.gateway();
    if let Some(handle) = gateway.handles.get(record.id).filter(|handle| handle.news().is_ready()) {
        return Ok(handle);
    }
    let waiting = async {
        let handle = gateway.owned(record.id).await?;
        ready(gateway, &handle, until.saturating_duration_since(Instant::now())).await?;
        Ok(handle)
    };
    match tokio::time::timeout_at(until, waiting).await {
        Ok(found) => found,
        Err(_) => Err(gateway.not_owner(record.id, ErrorCode::NotOwner)),
    }
}

/// Holds the epoch that a client believes in against ours, so that neither acts on old news. -1 = it does not say.
pub fn check_epoch(claimed: i32, news: News) -> Result<(), ErrorInfo> {
    let ours = i64::from(news.epoch.0);
    match i64::from(claimed) {
        -1 => Ok(()),
        epoch if epoch < ours => Err(ErrorInfo::new(ErrorCode::FencedEpoch, format!("leader epoch {epoch} is over"))),
        epoch if epoch > ours => {
            Err(ErrorInfo::new(ErrorCode::UnknownEpoch, format!("leader epoch {epoch} has not come here yet")))
        }
        _ => Ok(()),
    }
}

pub async fn delete_records(session: &Session, request: delete_records::Request) -> delete_records::Response {
    let until = Instant::now() + READY_WAIT;
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in topic.partitions {
            let deleted = delete_before(session, &topic.name, asked.partition_index, asked.offset, until).await;
            let (low_watermark, error_code) = match deleted {
                Ok(low) => (low, code::NONE),
                Err(error) => (-1, errors::read(&error)),
            };
            let partition_index = asked.partition_index;
            partitions.push(delete_records::Partition { partition_index, low_watermark, error_code });
        }
        topics.push(delete_records::Topic { name: topic.name, partitions });
    }
    delete_records::Response { throttle_time_ms: 0, topics }
}

async fn delete_before(
    session: &Session,
    topic: &str,
    index: i32,
    offset: i64,
    until: Instant,
) -> Result<i64, ErrorInfo> {
    if !session.allows(Action::DeleteRecords { topic }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, format!("not allowed on topic {topic:?}")));
    }
    let record = record(session, topic, index)?;
    let handle = owned(session, &record, until).await?;
    let news = handle.news();
    let before = if offset == -1 { news.high_watermark } else { offset };
    if before < 0 || before > news.high_watermark {
        return Err(outside(session.gateway(), &handle, before, news).await);
    }
    let (reply, outcome) = oneshot::channel();
    session.gateway().shards.tell(handle.id, Control::DeleteRecords { partition: handle.id, before, reply }).await;
    match outcome.await {
        Ok(Ok(completed)) => Ok(completed.base_offset),
        Ok(Err(refusal)) => Err(ErrorInfo::new(refusal.code, refusal.reason)),
        Err(_) => Err(session.gateway().not_owner(handle.id, ErrorCode::Moved)),
    }
}
