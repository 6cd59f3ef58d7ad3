//! Reads on through objects of the bucket, block by block, with the blocks ahead on their way.

use std::sync::Arc;

use esker_cache::{For, Kind, Reader, Scan, Start};
use esker_metadata_core::{ObjectPlace, RootPlace};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Offset, PartitionId, SegmentId};

use super::ReadError;
use super::cold::readable;
use crate::gateway::Gateway;
use crate::tail::CachedEntry;

/// A run of segments that are read one behind the other.
pub(super) struct BucketCursor {
    gateway: Arc<Gateway>,
    scan: Scan,
    /// What the next call must ask for.
    pub offset: Offset,
    /// End of the last segment that was fed.
    fed_to: Offset,
}

impl BucketCursor {
    /// None: no bucket is configured here.
    fn new(gateway: &Arc<Gateway>, offset: Offset) -> Result<Self, ReadError> {
        let bucket = gateway.bucket.as_ref().ok_or_else(|| {
            let message = "this gateway knows no bucket: set objects.url as on the others";
            ErrorInfo::new(ErrorCode::OffsetNotAvailable, message)
        })?;
        let scan = bucket.reader.scan(Start::Offset(offset), For::Scan);
        Ok(Self { gateway: gateway.clone(), scan, offset, fed_to: offset })
    }

    /// At a segment whose place metadata knows.
    pub fn at_object(
        gateway: &Arc<Gateway>,
        offset: Offset,
        segment: SegmentId,
        place: ObjectPlace,
        end: Offset,
    ) -> Result<Self, ReadError> {
        let mut cursor = Self::new(gateway, offset)?;
        cursor.feed(segment, place, end);
        Ok(cursor)
    }

    /// At a segment that the manifest finds. None: it is in a gap, and the next segment begins at the offset given.
    pub async fn at_root(
        gateway: &Arc<Gateway>,
        offset: Offset,
        partition: PartitionId,
        root: &RootPlace,
    ) -> Result<Option<Self>, ReadError> {
        let mut cursor = Self::new(gateway, offset)?;
        Ok(cursor.feed_from(partition, root, offset).await?.then_some(cursor))
    }

    pub fn feed(&mut self, segment: SegmentId, place: ObjectPlace, end: Offset) {
        self.scan.feed(segment, place);
        self.fed_to = end;
    }

    async fn feed_from(&mut self, partition: PartitionId, root: &RootPlace, offset: Offset) -> Result<bool, ReadError> {
        let reader = self.reader()?;
        match reader.segment_at(root, offset, For::Scan).await.map_err(|e| failed(&self.gateway, &e))? {
            Some(entry) => {
                self.feed(SegmentId { partition, n: entry.n }, entry.place, entry.end_offset);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn reader(&self) -> Result<Reader, ReadError> {
        let bucket = self.gateway.bucket.as_ref();
        bucket.map(|bucket| bucket.reader.clone()).ok_or_else(|| ErrorInfo::new(ErrorCode::Internal, "no bucket"))
    }

    /// The next entries from `self.offset` on. Empty: all that was fed has been read.
    pub async fn read(&mut self, partition: PartitionId) -> Result<Vec<CachedEntry>, ReadError> {
        loop {
            if self.scan.hungry() {
                self.feed_next(partition).await;
            }
            self.gateway.metrics.object_reads.inc();
            let Some(block) = self.scan.next().await.map_err(|e| failed(&self.gateway, &e))? else {
                return Ok(Vec::new());
            };
            let entries: Result<Vec<_>, _> = block.entries().map(|entry| entry.map(|entry| entry.bytes)).collect();
            let entries = entries.map_err(|e| ErrorInfo::new(ErrorCode::Internal, e.to_string()))?;
            let found = readable(&entries, self.offset, Offset::MAX)?;
            if let Some(last) = found.last() {
                self.offset = last.end_offset;
                return Ok(found);
            }
        }
    }

    /// Reading ahead goes on over the end of a segment. What can't be told now is asked for when it is needed.
    async fn feed_next(&mut self, partition: PartitionId) {
        let at = self.fed_to;
        let (row, root) = self.gateway.view.read(|state| {
            let row = state.chain(partition).find(|row| row.end_offset > at).filter(|row| row.base_offset <= at);
            let root = state.partition(partition).and_then(|record| record.root.clone());
            let kept = state.partition(partition).map_or(0, |record| record.copies_from);
            (row.filter(|row| row.segment.n < kept).cloned(), root)
        });
        match (row, root) {
            (Some(row), _) => {
                if let Some(place) = row.object.clone() {
                    self.feed(row.segment, place, row.end_offset);
                }
            }
            (None, Some(root)) if at < root.end_offset => {
                let on_bookies =
                    self.gateway.view.read(|state| state.chain(partition).any(|row| row.base_offset <= at));
                if !on_bookies && let Err(error) = self.feed_from(partition, &root, at).await {
                    tracing::debug!(%partition, reason = error.message, "not reading ahead");
                }
            }
            _ => {}
        }
    }
}

fn failed(gateway: &Gateway, error: &esker_cache::Error) -> ReadError {
    gateway.metrics.object_read_failures.inc();
    if error.kind == Kind::Damaged {
        tracing::error!(%error, "an object is damaged");
        gateway.metrics.alarms.inc();
    }
    // Acked records are somewhere: a reason to wait, never "not there" (R15).
    ErrorInfo::new(ErrorCode::OffsetNotAvailable, error.to_string())
}
