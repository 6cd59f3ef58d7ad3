use esker_metadata_core::{ClosedSegment, OpenSegment, PartitionRecord, State};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Member, PartitionId};
use esker_wire::native::{ListSegments, ListedSegments, SegmentCursor, SegmentInfo, SegmentState};

use super::{allow, folded};
use crate::auth::Action;
use crate::door::Client;
use crate::gateway::{Gateway, unknown_topic};

/// Segments in one answer: some 200 bytes each.
const SEGMENTS_MAX: usize = 2_000;

pub async fn list(client: &Client, request: ListSegments) -> Result<ListedSegments, ErrorInfo> {
    allow(client, Action::Describe { topic: &request.topic })?;
    let gateway = &client.gateway;
    let from = request.from.unwrap_or_default();
    let wanted = gateway.view.read(|state| wanted(state, &request, from.partition))?;
    let mut segments = Vec::new();
    for (index, id) in wanted {
        let first = if index == from.partition { from.n } else { 0 };
        let (record, chain) = gateway.view.read(|state| {
            let record = state.partition(id).cloned();
            let chain = record.as_ref().map(|record| of_partition(gateway, state, record, index));
            (record, chain.unwrap_or_default())
        });
        let Some(record) = record else { continue };
        let below = chain.first().map_or(record.next_n, |s| s.n);
        let limit = SEGMENTS_MAX + 1 - segments.len().min(SEGMENTS_MAX);
        let old = folded::entries(gateway, &record, first, below, limit).await?;
        segments.extend(old.iter().map(|entry| folded::info(entry, index)));
        segments.extend(chain.into_iter().filter(|s| s.n >= first));
        if segments.len() > SEGMENTS_MAX {
            break;
        }
    }
    let next = segments.get(SEGMENTS_MAX).map(|s| SegmentCursor { partition: s.partition, n: s.n });
    segments.truncate(SEGMENTS_MAX);
    Ok(ListedSegments { segments, next })
}

/// The partitions asked for, from number `from` on.
fn wanted(state: &State, request: &ListSegments, from: u32) -> Result<Vec<(u32, PartitionId)>, ErrorInfo> {
    let topic = state.topic_by_name(&request.topic).ok_or_else(|| unknown_topic(&request.topic))?;
    let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    let range = match request.partition {
        Some(index) if index >= count => {
            let message = format!("topic {:?} has {count} partitions, not {index}", request.topic);
            return Err(ErrorInfo::new(ErrorCode::UnknownPartition, message));
        }
        Some(index) => index..index + 1,
        None => from..count,
    };
    Ok(range.filter_map(|index| Some((index, *topic.partitions.get(index as usize)?))).collect())
}

/// In the order of offsets, which is the order of `n`; a lost range carries the `n` of the segment behind it.
fn of_partition(gateway: &Gateway, state: &State, record: &PartitionRecord, index: u32) -> Vec<SegmentInfo> {
    let mut segments: Vec<SegmentInfo> = state.chain(record.id).map(|s| closed(state, s, index)).collect();
    segments.extend(record.open.iter().map(|open| {
        let news = gateway.handles.get(record.id).map(|handle| handle.news()).filter(|news| news.is_ready());
        open_segment(state, open, index, news.map_or(-1, |news| news.high_watermark))
    }));
    for lost in &record.lost {
        let at = segments.partition_point(|s| s.base_offset < lost.to);
        let n = segments.get(at).map_or(record.next_n, |s| s.n);
        let gap = SegmentInfo {
            partition: index,
            n,
            state: SegmentState::Lost as i32,
            base_offset: lost.from,
            end_offset: lost.to,
            first_ts_ms: -1,
            max_ts_ms: -1,
            ..SegmentInfo::default()
        };
        segments.insert(at, gap);
    }
    segments
}

fn closed(state: &State, segment: &ClosedSegment, index: u32) -> SegmentInfo {
    let kept = state.partition(segment.segment.partition).is_none_or(|p| segment.segment.n >= p.copies_from);
    SegmentInfo {
        partition: index,
        n: segment.segment.n,
        state: SegmentState::Closed as i32,
        epoch: segment.seg_epoch.0,
        base_offset: segment.base_offset,
        end_offset: segment.end_offset,
        bytes: segment.bytes,
        bookies: if kept { names(state, &segment.holders) } else { Vec::new() },
        in_objects: segment.object.is_some(),
        object: segment.object.as_ref().map(|place| place.key.to_string()).unwrap_or_default(),
        write_quorum: segment.quorum.write.into(),
        ack_quorum: segment.quorum.ack.into(),
        first_ts_ms: segment.first_ts,
        max_ts_ms: segment.max_ts,
        opened_ms: segment.opened.0,
        closed_ms: segment.closed.0,
    }
}

fn open_segment(state: &State, open: &OpenSegment, index: u32, end_offset: i64) -> SegmentInfo {
    SegmentInfo {
        partition: index,
        n: open.n,
        state: SegmentState::Open as i32,
        epoch: open.seg_epoch.0,
        base_offset: open.base_offset,
        end_offset: if end_offset < open.base_offset { -1 } else { end_offset },
        bytes: 0,
        bookies: names(state, &open.members),
        in_objects: false,
        object: String::new(),
        write_quorum: open.quorum.write.into(),
        ack_quorum: open.quorum.ack.into(),
        first_ts_ms: -1,
        max_ts_ms: -1,
        opened_ms: open.opened.0,
        closed_ms: 0,
    }
}

fn names(state: &State, members: &[Member]) -> Vec<String> {
    let name =
        |member: &Member| state.bookie(member.bookie).map_or_else(|| member.bookie.to_string(), |b| b.name.clone());
    members.iter().map(name).collect()
}
