//! Segments that metadata lists no more: the manifest in the bucket does.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_cache::For;
use esker_cache_core::manifest::{LeafEntry, Need, Page, PageRef, from_ordinal, root_ref};
use esker_metadata_core::PartitionRecord;
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, PageKey};
use esker_wire::native::{SegmentInfo, SegmentState};

use crate::gateway::Gateway;

/// Up to `limit` folded segments with ordinals of [from, below) that readers may still see.
pub async fn entries(
    gateway: &Gateway,
    record: &PartitionRecord,
    from: u64,
    below: u64,
    limit: usize,
) -> Result<Vec<LeafEntry>, ErrorInfo> {
    let (Some(root), Some(bucket)) = (&record.root, &gateway.bucket) else { return Ok(Vec::new()) };
    if from >= below {
        return Ok(Vec::new());
    }
    let unavailable = |error: esker_cache::Error| ErrorInfo::new(ErrorCode::OffsetNotAvailable, error.to_string());
    let top = bucket.reader.page(&root_ref(root), For::Scan).await.map_err(unavailable)?;
    let Page::Root(top) = &*top else {
        return Err(ErrorInfo::new(ErrorCode::Internal, format!("{} is no root page", root.key)));
    };
    let mut at_hand: BTreeMap<PageKey, Arc<Page>> = BTreeMap::new();
    loop {
        match from_ordinal(top, from, limit, &|of: &PageRef| at_hand.get(&of.key).cloned()) {
            Ok(mut found) => {
                found.retain(|entry| entry.n < below && entry.end_offset > record.log_start);
                return Ok(found);
            }
            Err(Need(of)) => {
                let page = bucket.reader.page(&of, For::Scan).await.map_err(unavailable)?;
                at_hand.insert(of.key, page);
            }
        }
    }
}

pub fn info(entry: &LeafEntry, index: u32) -> SegmentInfo {
    SegmentInfo {
        partition: index,
        n: entry.n,
        state: SegmentState::Closed as i32,
        epoch: entry.seg_epoch.0,
        base_offset: entry.base_offset,
        end_offset: entry.end_offset,
        bytes: entry.bytes,
        in_objects: true,
        object: entry.place.key.to_string(),
        first_ts_ms: entry.first_ts,
        max_ts_ms: entry.max_ts,
        closed_ms: entry.closed.0,
        ..SegmentInfo::default()
    }
}
