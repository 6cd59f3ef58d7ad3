//! Snapshot entries: what a new owner reads first, and how it gets from there to the end of the segment.

use bytes::Bytes;
use esker_bookie_core::owner::{Draft, Totals};
use esker_types::{Entry, EntryKind, Offset, Rules, SegmentPrologue};
use prost::Message;

use crate::producers::{ProducerTable, SnapshotReader, TableLimits};

/// Payload of an entry of kind `Snapshot`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotPayload {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Entry 0 only.
    #[prost(message, optional, tag = "2")]
    pub prologue: Option<SegmentPrologue>,
    /// One chunk of the producer table.
    #[prost(bytes = "bytes", tag = "3")]
    pub chunk: Bytes,
    /// Sums over the segment's entries before this one.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    #[prost(int64, tag = "5")]
    pub first_ts: i64,
    #[prost(int64, tag = "6")]
    pub max_ts: i64,
    #[prost(bool, tag = "7")]
    pub has_data: bool,
}

const VERSION: u32 = 1;

impl SnapshotPayload {
    pub fn draft(prologue: Option<SegmentPrologue>, chunk: Bytes, before: Totals, next_offset: Offset) -> Draft {
        let Totals { bytes, first_ts, max_ts, has_data } = before;
        let payload = Self { version: VERSION, prologue, chunk, bytes, first_ts, max_ts, has_data }.encode_to_vec();
        let mut draft = Draft::new(EntryKind::Snapshot, next_offset, payload.len());
        draft.put(&payload);
        draft
    }

    fn totals(&self) -> Totals {
        Totals { bytes: self.bytes, first_ts: self.first_ts, max_ts: self.max_ts, has_data: self.has_data }
    }
}

/// Producer state and sums, put together from the entries that a reader delivers in order.
pub(super) struct Rebuild<R: Rules> {
    limits: TableLimits,
    reader: Option<SnapshotReader>,
    table: Option<ProducerTable<R>>,
    totals: Option<Totals>,
    broken: bool,
}

impl<R: Rules> Rebuild<R> {
    pub fn new(limits: TableLimits) -> Self {
        Self { limits, reader: None, table: None, totals: None, broken: false }
    }

    /// The next entry, the first being the first chunk of a complete snapshot.
    pub fn push(&mut self, entry: &Entry) {
        if self.broken {
            return;
        }
        self.broken = match entry.header.kind {
            EntryKind::Snapshot => self.push_snapshot(entry).is_none(),
            EntryKind::Data => self.push_data(entry).is_none(),
            EntryKind::Marker => false,
        };
        if let Some(totals) = &mut self.totals {
            totals.add(entry, first_timestamp(entry));
        }
    }

    /// Table and sums; None: what was read is not what an owner writes.
    pub fn finish(self) -> Option<(ProducerTable<R>, Totals)> {
        if self.broken { None } else { Some((self.table?, self.totals?)) }
    }

    fn push_snapshot(&mut self, entry: &Entry) -> Option<()> {
        if self.table.is_some() {
            return Some(()); // a later snapshot, complete or not, says what the table says already
        }
        let payload = SnapshotPayload::decode(entry.payload()).ok().filter(|p| p.version == VERSION)?;
        let reader = match self.reader.take() {
            None => {
                self.totals = Some(payload.totals());
                SnapshotReader::new(payload.chunk).ok()?
            }
            Some(mut reader) => {
                reader.push(payload.chunk).ok()?;
                reader
            }
        };
        match reader.is_complete() {
            true => self.table = Some(reader.finish(self.limits).ok()?),
            false => self.reader = Some(reader),
        }
        Some(())
    }

    fn push_data(&mut self, entry: &Entry) -> Option<()> {
        // Owners write the chunks of a snapshot one behind the other, so data comes only when the table is there.
        self.table.as_mut()?.replay_entry(entry.payload()).ok()
    }
}

/// Base timestamp of the first batch, -1 if there is none.
fn first_timestamp(entry: &Entry) -> i64 {
    match entry.header.kind {
        EntryKind::Data => esker_wire::batch::BatchHeader::parse(&entry.payload()).map_or(-1, |h| h.base_ts),
        _ => -1,
    }
}

/// The table that a `Transfer` carries; None: not one of ours.
pub(super) fn table_of<R: Rules>(chunks: &[Bytes], limits: TableLimits) -> Option<ProducerTable<R>> {
    let (first, rest) = chunks.split_first()?;
    let mut reader = SnapshotReader::new(first.clone()).ok()?;
    for chunk in rest {
        reader.push(chunk.clone()).ok()?;
    }
    reader.finish(limits).ok()
}
