//! OffsetForLeaderEpoch. Nothing that was acknowledged is ever cut off here, so that the answer always lets a consumer go
//! on; it must all the same be what the log says.

use esker_kafka::{code, offset_for_leader_epoch as api};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Offset};
use tokio::time::Instant;

use super::errors;
use super::partitions;
use super::session::Session;
use crate::auth::Action;

pub async fn answer(session: &Session, request: api::Request) -> api::Response {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let found = find(session, &topic.topic, &asked).await;
            let (error_code, (leader_epoch, end_offset)) = match found {
                Ok(found) => (code::NONE, found),
                Err(error) => (errors::read(&error), (-1, -1)),
            };
            partitions.push(api::Partition { error_code, partition: asked.partition, leader_epoch, end_offset });
        }
        topics.push(api::Topic { topic: topic.topic, partitions });
    }
    api::Response { throttle_time_ms: 0, topics }
}

async fn find(session: &Session, topic: &str, asked: &api::RequestPartition) -> Result<(i32, i64), ErrorInfo> {
    let record = partitions::record(session, topic, asked.partition)?;
    if !session.allows(Action::Read { topic, partition: record.id }) {
        return Err(ErrorInfo::new(ErrorCode::NotAuthorized, format!("not allowed on topic {topic:?}")));
    }
    let handle = partitions::owned(session, &record, Instant::now()).await?;
    let news = handle.news();
    partitions::check_epoch(asked.current_leader_epoch, news)?;
    let begins: Vec<(u32, Offset)> = session.gateway().view.read(|state| {
        let closed = state.chain(record.id).map(|segment| (segment.seg_epoch.0, segment.base_offset));
        let open = state.partition(record.id).and_then(|record| record.open.as_ref());
        closed.chain(open.map(|open| (open.seg_epoch.0, open.base_offset))).collect()
    });
    Ok(end_of_epoch(&begins, i64::from(asked.leader_epoch), i64::from(news.epoch.0), news.high_watermark))
}

/// The largest epoch up to `epoch` under which something was written, and where it ended, by the epochs and first offsets of
/// all segments in order.
fn end_of_epoch(begins: &[(u32, Offset)], epoch: i64, current: i64, high_watermark: Offset) -> (i32, i64) {
    let shown = |epoch: i64| i32::try_from(epoch).unwrap_or(-1);
    if epoch > current || epoch < 0 {
        return (-1, -1);
    }
    if epoch == current {
        return (shown(epoch), high_watermark);
    }
    let after = begins.partition_point(|(begun, _)| i64::from(*begun) <= epoch);
    let end = begins.get(after).map_or(high_watermark, |(_, offset)| *offset);
    let last = after.checked_sub(1).map_or(epoch, |at| i64::from(begins[at].0));
    (shown(last), end.min(high_watermark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_one_wrote_first() {
        let begins = [(1, 0), (1, 50), (3, 80), (6, 200)];
        for (epoch, expected) in [(0, (0, 0)), (1, (1, 80)), (2, (1, 80)), (3, (3, 200)), (5, (3, 200))] {
            assert_eq!(end_of_epoch(&begins, epoch, 7, 300), expected, "epoch {epoch}");
        }
        assert_eq!(end_of_epoch(&begins, 6, 7, 300), (6, 300), "nothing was written under 7 yet");
        assert_eq!(end_of_epoch(&begins, 7, 7, 300), (7, 300));
        assert_eq!(end_of_epoch(&begins, 8, 7, 300), (-1, -1));
        assert_eq!(end_of_epoch(&[], 1, 7, 0), (1, 0));
    }
}
