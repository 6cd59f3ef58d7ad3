use std::sync::Arc;

use bytes::Bytes;
use esker_bookie_client::{ReadFailure, ReadRange};
use esker_gateway_core::partition::{Location, Place, locate_closed};
use esker_metadata_core::RootPlace;
use esker_types::entry::ENTRY_HEADER_LEN;
use esker_types::error::ErrorInfo;
use esker_types::{EntryHeader, EntryId, EntryKind, ErrorCode, Offset};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::bucket::BucketCursor;
use super::{Chunk, ReadError};
use crate::gateway::Gateway;
use crate::partition::Handle;
use crate::shard::Control;
use crate::tail::CachedEntry;

/// Reads one partition from bookies and the bucket, forward, and keeps reads ahead of its client.
pub struct ColdReader {
    gateway: Arc<Gateway>,
    handle: Arc<Handle>,
    cursor: Option<Cursor>,
    bucket: Option<BucketCursor>,
}

/// Where reading goes on.
struct Cursor {
    place: Place,
    next: EntryId,
    /// Offset that `next` begins at or before.
    offset: Offset,
    ahead: Option<JoinHandle<Result<Vec<Bytes>, ReadFailure>>>,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.abort();
        }
    }
}

/// Closed segments with more entries than this are searched by halves before they are read.
const SCAN_MAX: u64 = 2;

impl ColdReader {
    pub fn new(gateway: Arc<Gateway>, handle: Arc<Handle>) -> Self {
        Self { gateway, handle, cursor: None, bucket: None }
    }

    /// What is stored at `offset`, as far as it is acked. Reading on where the last chunk ended costs no search.
    pub async fn read(&mut self, offset: Offset) -> Result<Chunk, ReadError> {
        // A cursor that was made for this very offset.
        let (mut missed, mut fresh) = (false, false);
        loop {
            if let Some(mut bucket) = self.bucket.take().filter(|bucket| bucket.offset == offset) {
                match bucket.read(self.handle.id).await {
                    Ok(found) if !found.is_empty() => {
                        self.bucket = Some(bucket);
                        return Ok(Chunk::Entries(found));
                    }
                    // A manifest and an object that do not agree: asking again would not end.
                    Ok(_) if fresh => {
                        let message = format!(
                            "no object of partition {} holds offset {offset}, where one should",
                            self.handle.id
                        );
                        return Err(ErrorInfo::new(ErrorCode::Internal, message));
                    }
                    Ok(_) => {}
                    // The object may have moved since: metadata is asked once more (R15).
                    Err(error) if missed => return Err(error),
                    Err(_) => missed = true,
                }
            }
            let mut cursor =
                match self.cursor.take().filter(|cursor| cursor.offset == offset && cursor.next < cursor.place.entries)
                {
                    Some(cursor) => cursor,
                    None => match self.locate(offset).await? {
                        Location::End => return Ok(Chunk::End),
                        Location::Lost { from, to } => return Ok(Chunk::Lost { from, to }),
                        Location::Folded(root) => {
                            (self.bucket, fresh) = (self.folded(offset, &root).await?, true);
                            continue;
                        }
                        Location::Segment(place) if place.copies.is_empty() => {
                            (self.bucket, fresh) = (Some(self.object(offset, &place)?), true);
                            continue;
                        }
                        Location::Segment(place) => self.seek(place, offset).await?,
                    },
                };
            let entries = match (self.fetch(&mut cursor).await, &cursor.place.object) {
                (Ok(entries), _) => entries,
                (Err(_), Some(_)) if !missed && self.gateway.bucket.is_some() => {
                    (self.bucket, fresh) = (Some(self.object(offset, &cursor.place)?), true);
                    missed = true;
                    continue;
                }
                (Err(error), _) => return Err(error),
            };
            cursor.next += entries.len() as u64;
            let found = readable(&entries, offset, cursor.place.end_offset)?;
            if let Some(last) = found.last() {
                cursor.offset = last.end_offset;
                self.read_ahead(&mut cursor);
                self.cursor = Some(cursor);
                return Ok(Chunk::Entries(found));
            }
            // Only snapshots, or entries before the offset: go on behind them.
            if cursor.next < cursor.place.entries {
                self.cursor = Some(cursor);
            } else if cursor.place.end_offset > offset {
                let message = format!("segment {} does not hold offset {offset}", cursor.place.segment);
                return Err(ErrorInfo::new(ErrorCode::Internal, message));
            }
        }
    }

    fn object(&self, offset: Offset, place: &Place) -> Result<BucketCursor, ReadError> {
        let Some(object) = place.object.clone() else {
            let message = format!("segment {} has neither copies nor an object", place.segment);
            return Err(ErrorInfo::new(ErrorCode::OffsetNotAvailable, message));
        };
        BucketCursor::at_object(&self.gateway, offset, place.segment, object, place.end_offset)
    }

    /// A manifest without the offset is an older one than the record that pointed to it: never "not there".
    async fn folded(&self, offset: Offset, root: &RootPlace) -> Result<Option<BucketCursor>, ReadError> {
        match BucketCursor::at_root(&self.gateway, offset, self.handle.id, root).await? {
            Some(cursor) => Ok(Some(cursor)),
            None => {
                let message = format!("offset {offset} is not in the manifest of partition {}", self.handle.id);
                Err(ErrorInfo::new(ErrorCode::OffsetNotAvailable, message))
            }
        }
    }

    /// Asks the partition's owner core, which knows what may be served.
    async fn locate(&self, offset: Offset) -> Result<Location, ReadError> {
        if self.handle.closed_only {
            let info = self.gateway.view.read(|state| state.partition_info(self.handle.id));
            let readable = info.as_ref().filter(|info| offset >= info.record.log_start);
            let found = readable.and_then(|info| locate_closed(info, offset));
            return found.ok_or_else(|| self.gateway.not_owner(self.handle.id, ErrorCode::NotOwner));
        }
        let (reply, answer) = oneshot::channel();
        self.gateway.shards.tell(self.handle.id, Control::Locate { partition: self.handle.id, offset, reply }).await;
        match answer.await {
            Ok(Ok(location)) => Ok(location),
            Ok(Err(refusal)) => Err(ErrorInfo::new(refusal.code, refusal.reason)),
            Err(_) => Err(self.gateway.not_owner(self.handle.id, ErrorCode::NotOwner)),
        }
    }

    /// Finds an entry at or shortly before the one that holds `offset`: the last whose base offset is not above it.
    async fn seek(&self, place: Place, offset: Offset) -> Result<Cursor, ReadError> {
        let (mut low, mut high) = (place.from_entry, place.entries);
        // Invariant: entry `low` begins at or below the offset, entry `high` above it (or there is none).
        while offset > place.base_offset && high - low > SCAN_MAX {
            let middle = low + (high - low) / 2;
            let range = ReadRange { segment: place.segment, from: middle, to: middle + 1, bytes_max: 1 };
            let entry = self.gateway.bookies.read(&place.copies, range).await.map_err(|e| self.failed(&e))?;
            let base = entry.first().and_then(|bytes| EntryHeader::decode(bytes).ok()).map(|header| header.base_offset);
            match base {
                Some(base) if base <= offset => low = middle,
                Some(_) => high = middle,
                None => return Err(ErrorInfo::new(ErrorCode::Internal, "an entry came back empty")),
            }
        }
        Ok(Cursor { place, next: low, offset, ahead: None })
    }

    async fn fetch(&self, cursor: &mut Cursor) -> Result<Vec<Bytes>, ReadError> {
        self.gateway.metrics.bookie_reads.inc();
        let read = match cursor.ahead.take() {
            Some(ahead) => match ahead.await {
                Ok(read) => read,
                Err(_) => Err(ReadFailure::Failed {
                    segment: cursor.place.segment,
                    reason: "the read was given up".to_owned(),
                }),
            },
            None => {
                let copies = self.copies(cursor);
                self.gateway.bookies.read(&copies, self.range(cursor)).await
            }
        };
        read.map_err(|failure| self.failed(&failure))
    }

    /// Starts the next read of the same segment, so that it is there when the client has taken what we have.
    fn read_ahead(&self, cursor: &mut Cursor) {
        if cursor.next < cursor.place.entries {
            let (bookies, copies, range) = (self.gateway.bookies.clone(), self.copies(cursor), self.range(cursor));
            cursor.ahead = Some(tokio::spawn(async move { bookies.read(&copies, range).await }));
        }
    }

    /// Copies in an order that differs by partition, so that readers spread over bookies.
    fn copies(&self, cursor: &Cursor) -> Vec<esker_types::Member> {
        let mut copies = cursor.place.copies.clone();
        if !copies.is_empty() {
            let by = (self.handle.id.0 % copies.len() as u64) as usize;
            copies.rotate_left(by);
        }
        copies
    }

    fn range(&self, cursor: &Cursor) -> ReadRange {
        let bytes_max = u32::try_from(self.gateway.config.read.ahead_bytes.0).unwrap_or(u32::MAX);
        ReadRange { segment: cursor.place.segment, from: cursor.next, to: cursor.place.entries, bytes_max }
    }

    fn failed(&self, failure: &ReadFailure) -> ReadError {
        self.gateway.metrics.bookie_read_failures.inc();
        // Acked entries are somewhere; that nobody shows them now is a reason to wait, never "not there".
        ErrorInfo::new(ErrorCode::OffsetNotAvailable, failure.to_string())
    }
}

/// The entries with records that end behind `offset` and may be served.
pub(super) fn readable(entries: &[Bytes], offset: Offset, end: Offset) -> Result<Vec<CachedEntry>, ReadError> {
    let mut found = Vec::with_capacity(entries.len());
    for bytes in entries {
        let header = EntryHeader::decode(bytes)
            .map_err(|e| ErrorInfo::new(ErrorCode::Internal, format!("an entry does not parse: {e}")))?;
        let (base_offset, end_offset) = (header.base_offset, header.end_offset());
        let has_records = header.kind == EntryKind::Data && header.count > 0;
        if has_records && end_offset > offset && end_offset <= end {
            found.push(CachedEntry {
                base_offset,
                end_offset,
                max_ts: header.max_ts,
                batches: bytes.slice(ENTRY_HEADER_LEN..),
            });
        }
    }
    Ok(found)
}
