use std::collections::VecDeque;

use bytes::Bytes;
use esker_types::{Offset, ProducerId, Rules};
use prost::Message;

use super::producer::{BatchSpan, Producer, REMEMBERED};
use super::table::{Committed, ProducerTable, TableLimits};

/// Largest encoded chunk: small enough to go between data entries without holding them up.
pub const SNAPSHOT_CHUNK_MAX: usize = 1 << 20;
/// Room in a chunk for what is not producers: the numbers in front, and what its entry carries beside it.
const CHUNK_OVERHEAD: usize = 4 << 10;
const VERSION: u32 = 1;

/// One part of the producer table as of `end_offset`; a snapshot entry carries one.
#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotChunk {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// From 0.
    #[prost(uint32, tag = "2")]
    index: u32,
    /// Chunks of this snapshot, at least 1.
    #[prost(uint32, tag = "3")]
    total: u32,
    /// Exactly the batches below this offset are folded into it. The same in all chunks of a snapshot.
    #[prost(int64, tag = "4")]
    end_offset: i64,
    #[prost(int64, tag = "5")]
    log_time: i64,
    /// In the order of their ids, across chunks.
    #[prost(message, repeated, tag = "6")]
    producers: Vec<ProducerRecord>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ProducerRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int32, tag = "2")]
    epoch: i32,
    #[prost(int64, tag = "3")]
    seen_at: i64,
    /// Oldest first, at most five.
    #[prost(message, repeated, tag = "4")]
    batches: Vec<BatchRecord>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct BatchRecord {
    #[prost(int32, tag = "1")]
    first_sequence: i32,
    #[prost(int32, tag = "2")]
    last_sequence: i32,
    #[prost(int64, tag = "3")]
    base_offset: i64,
    #[prost(int64, tag = "4")]
    max_ts: i64,
}

/// A snapshot can't be read: the segment is damaged or was written by a newer program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("producer snapshot does not parse")]
    Malformed,
    #[error("producer snapshot has version {0}, newer than this program knows")]
    Version(u32),
    #[error("producer snapshot chunk {found} of {total} came where chunk {expected} was due")]
    Order { found: u32, total: u32, expected: u32 },
    #[error("producer snapshot ends before its last chunk: {have} of {total}")]
    Incomplete { have: u32, total: u32 },
}

impl<R: Rules> ProducerTable<R> {
    /// The state that folds exactly the batches below `upto`, in chunks of at most 1 MiB when encoded.
    ///
    /// For a snapshot entry in the open segment `upto` is the end of the data entries before it, acknowledged or not;
    /// for entry 0 of the next segment it is where the closed one ended, and what is re-sent behind it stays out.
    pub fn snapshot_at(&self, upto: Offset) -> Vec<Bytes> {
        self.snapshot_chunks(upto).iter().map(|chunk| chunk.encode_to_vec().into()).collect()
    }

    fn snapshot_chunks(&self, upto: Offset) -> Vec<SnapshotChunk> {
        let state = self.folded(upto);
        let new_chunk = || SnapshotChunk {
            version: VERSION,
            end_offset: state.end_offset,
            log_time: state.log_time,
            ..SnapshotChunk::default()
        };
        let (mut chunks, mut open, mut bytes) = (Vec::new(), new_chunk(), 0);
        for (id, producer) in state.producers() {
            let record = to_record(id, producer);
            // Tag and length of the nested message take at most 6 bytes.
            let len = record.encoded_len() + 6;
            if bytes + len > SNAPSHOT_CHUNK_MAX - CHUNK_OVERHEAD {
                chunks.push(std::mem::replace(&mut open, new_chunk()));
                bytes = 0;
            }
            bytes += len;
            open.producers.push(record);
        }
        chunks.push(open);
        let total = chunks.len() as u32;
        for (chunk, index) in chunks.iter_mut().zip(0..) {
            (chunk.index, chunk.total) = (index, total);
        }
        chunks
    }
}

impl SnapshotChunk {
    fn parse(bytes: Bytes) -> Result<Self, SnapshotError> {
        let chunk = Self::decode(bytes).map_err(|_| SnapshotError::Malformed)?;
        if chunk.version > VERSION {
            return Err(SnapshotError::Version(chunk.version));
        }
        if chunk.version == 0 || chunk.index >= chunk.total {
            return Err(SnapshotError::Malformed);
        }
        Ok(chunk)
    }
}

/// Puts a table together from the chunks of one snapshot, in order.
#[derive(Debug)]
pub struct SnapshotReader {
    state: Committed,
    next: u32,
    total: u32,
}

impl SnapshotReader {
    /// Begins with chunk 0.
    pub fn new(first: Bytes) -> Result<Self, SnapshotError> {
        let first = SnapshotChunk::parse(first)?;
        let state = Committed::empty(first.end_offset, first.log_time);
        let mut reader = Self { state, next: 0, total: first.total };
        reader.add(first)?;
        Ok(reader)
    }

    pub fn push(&mut self, chunk: Bytes) -> Result<(), SnapshotError> {
        self.add(SnapshotChunk::parse(chunk)?)
    }

    fn add(&mut self, chunk: SnapshotChunk) -> Result<(), SnapshotError> {
        let in_order = chunk.index == self.next && chunk.total == self.total;
        if !in_order || chunk.end_offset != self.state.end_offset {
            return Err(SnapshotError::Order { found: chunk.index, total: chunk.total, expected: self.next });
        }
        for record in chunk.producers {
            let (id, producer) = from_record(record).ok_or(SnapshotError::Malformed)?;
            let ascending = self.state.producers().next_back().is_none_or(|(last, _)| last < id);
            if !ascending {
                return Err(SnapshotError::Malformed);
            }
            self.state.insert(id, producer);
        }
        self.next += 1;
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.next == self.total
    }

    /// The table as of the snapshot. Data entries from the snapshot's first entry on are replayed on top of it, also
    /// those between its chunks.
    pub fn finish<R: Rules>(self, limits: TableLimits) -> Result<ProducerTable<R>, SnapshotError> {
        match self.is_complete() {
            true => Ok(ProducerTable::with_committed(limits, self.state)),
            false => Err(SnapshotError::Incomplete { have: self.next, total: self.total }),
        }
    }
}

fn to_record(id: ProducerId, producer: &Producer) -> ProducerRecord {
    let batches = producer.batches.iter().map(|b| BatchRecord {
        first_sequence: b.first_sequence,
        last_sequence: b.last_sequence,
        base_offset: b.base_offset,
        max_ts: b.max_ts,
    });
    let epoch = producer.last().map_or(0, |last| last.epoch.into());
    ProducerRecord { id: id.0, epoch, seen_at: producer.seen_at, batches: batches.collect() }
}

/// None: no table of ours wrote this.
fn from_record(record: ProducerRecord) -> Option<(ProducerId, Producer)> {
    let epoch = i16::try_from(record.epoch).ok().filter(|epoch| *epoch >= 0)?;
    if record.batches.is_empty() || record.batches.len() > REMEMBERED {
        return None;
    }
    let batches: VecDeque<BatchSpan> = record
        .batches
        .iter()
        .map(|b| BatchSpan {
            epoch,
            first_sequence: b.first_sequence,
            last_sequence: b.last_sequence,
            base_offset: b.base_offset,
            max_ts: b.max_ts,
        })
        .collect();
    let sane = batches.iter().all(|b| b.first_sequence >= 0 && b.last_sequence >= 0 && b.base_offset >= 0);
    sane.then_some((ProducerId(record.id), Producer { batches, seen_at: record.seen_at }))
}
