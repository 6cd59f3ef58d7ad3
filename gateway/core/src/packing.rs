//! Several record batches become the payload of one entry: one copy, and no pass over the records for its checksum.

use bytes::{BufMut, BytesMut};
use esker_types::entry::{ENTRY_HEADER_LEN, Entry, EntryHeader};
use esker_types::{Offset, checksum};
use esker_wire::batch::Batch;

/// A payload with its batches in place, and room for the entry's header in front.
#[derive(Debug)]
pub struct Packed {
    buffer: BytesMut,
    /// Offsets used up.
    pub count: u32,
    /// Largest record timestamp, -1 without any.
    pub max_ts: i64,
    pub payload_crc: u32,
}

impl Packed {
    /// Gives `batches` consecutive offsets from `base_offset` on, under `leader_epoch`, and lays them out.
    pub fn new(batches: &[Batch], base_offset: Offset, leader_epoch: i32) -> Self {
        let len: usize = batches.iter().map(|b| b.bytes().len()).sum();
        let mut buffer = BytesMut::with_capacity(ENTRY_HEADER_LEN + len);
        buffer.put_bytes(0, ENTRY_HEADER_LEN);
        let mut packed = Self { buffer, count: 0, max_ts: -1, payload_crc: 0 };
        for batch in batches {
            let at = base_offset + Offset::from(packed.count);
            let placed = batch.copy_assigned(&mut packed.buffer, at, leader_epoch);
            packed.payload_crc = checksum::crc32c_combine(packed.payload_crc, placed, batch.bytes().len() as u64);
            packed.count += batch.count();
            packed.max_ts = packed.max_ts.max(batch.header().largest_ts());
        }
        packed
    }

    /// Of the payload.
    pub fn len(&self) -> usize {
        self.buffer.len() - ENTRY_HEADER_LEN
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry, with `header` written into the room in front. The header must be sealed and tell this payload's
    /// length, count and CRC.
    pub fn into_entry(mut self, header: EntryHeader) -> Entry {
        assert_eq!(
            (header.len as usize, header.payload_crc),
            (self.len(), self.payload_crc),
            "header of another payload"
        );
        self.buffer[..ENTRY_HEADER_LEN].copy_from_slice(&header.encode());
        Entry { header, bytes: self.buffer.freeze() }
    }
}

/// How many of the waiting batches go into the next entry: whole ones up to `bytes_max`, at least the first.
pub fn fit<'a>(waiting: impl IntoIterator<Item = &'a Batch>, bytes_max: usize) -> usize {
    let mut bytes = 0usize;
    let fitting = waiting.into_iter().take_while(|batch| {
        bytes += batch.bytes().len();
        bytes <= bytes_max
    });
    fitting.count().max(1)
}
