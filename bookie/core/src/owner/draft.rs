//! An entry before it has its place: payload with room for the header in front, so that nothing is moved later.

use bytes::{BufMut, Bytes, BytesMut};
use esker_types::checksum::{crc32c, crc32c_combine};
use esker_types::entry::{ENTRY_HEADER_LEN, NO_SNAPSHOT};
use esker_types::{Entry, EntryHeader, EntryId, EntryKind, Epoch, Offset, SegmentId};

/// Payload and facts of an entry that is being put together.
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: EntryKind,
    pub base_offset: Offset,
    /// Offsets used up; 0 unless `kind` is `Data`.
    pub count: u32,
    /// First record's timestamp, -1 without records.
    pub first_ts: i64,
    /// Largest timestamp, -1 without records.
    pub max_ts: i64,
    /// First entry of the last complete snapshot, or `NO_SNAPSHOT`.
    pub snap: EntryId,
    payload_crc: u32,
    buffer: BytesMut,
}

impl Draft {
    /// `payload_bytes`: expected size, so that the buffer is allocated once.
    pub fn new(kind: EntryKind, base_offset: Offset, payload_bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(ENTRY_HEADER_LEN + payload_bytes);
        buffer.put_bytes(0, ENTRY_HEADER_LEN);
        let (first_ts, max_ts) = (-1, -1);
        Self { kind, base_offset, count: 0, first_ts, max_ts, snap: NO_SNAPSHOT, payload_crc: crc32c(b""), buffer }
    }

    /// Adds a piece whose CRC-32C nobody knows yet.
    pub fn put(&mut self, piece: &[u8]) {
        self.put_summed(piece, crc32c(piece));
    }

    /// Adds a piece with its known CRC-32C: the bytes are not summed again.
    pub fn put_summed(&mut self, piece: &[u8], crc: u32) {
        self.buffer.put_slice(piece);
        self.payload_crc = crc32c_combine(self.payload_crc, crc, piece.len() as u64);
    }

    /// Lets `write` append a piece and tell its CRC-32C, for those who change bytes while they copy them.
    pub fn put_with(&mut self, write: impl FnOnce(&mut BytesMut) -> u32) {
        let before = self.buffer.len();
        let crc = write(&mut self.buffer);
        self.payload_crc = crc32c_combine(self.payload_crc, crc, (self.buffer.len() - before) as u64);
    }

    pub fn payload_len(&self) -> usize {
        self.buffer.len() - ENTRY_HEADER_LEN
    }

    /// The same payload for another segment: what a writer does with entries that its closed segment left out.
    pub fn again(entry: &Entry, first_ts: i64) -> Self {
        let header = &entry.header;
        let payload: Bytes = entry.payload();
        let mut draft = Self::new(header.kind, header.base_offset, payload.len());
        draft.put_summed(&payload, header.payload_crc);
        Self { count: header.count, first_ts, max_ts: header.max_ts, ..draft }
    }

    pub(super) fn seal(mut self, segment: SegmentId, seg_epoch: Epoch, entry: EntryId, chain: u64) -> Entry {
        let header = EntryHeader {
            kind: self.kind,
            segment,
            seg_epoch,
            entry,
            base_offset: self.base_offset,
            count: self.count,
            max_ts: self.max_ts,
            snap: self.snap,
            len: u32::try_from(self.payload_len()).expect("entries are bounded far below 4 GiB"),
            payload_crc: self.payload_crc,
            chain: 0,
        }
        .sealed(chain);
        self.buffer[..ENTRY_HEADER_LEN].copy_from_slice(&header.encode());
        Entry { header, bytes: self.buffer.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_drafts_verify_and_can_be_used_again() {
        let mut draft = Draft::new(EntryKind::Data, 40, 8);
        draft.put(b"abcd");
        draft.put_summed(b"efgh", crc32c(b"efgh"));
        (draft.count, draft.max_ts) = (3, 9);
        let entry = draft.seal(SegmentId::new(1, 2), Epoch(3), 7, 11);
        assert_eq!(Entry::parse(entry.bytes.clone()), Ok(entry.clone()));
        assert!(entry.header.follows(11));
        let again = Draft::again(&entry, 5).seal(SegmentId::new(1, 3), Epoch(4), 1, 0);
        assert_eq!(Entry::parse(again.bytes.clone()).map(|e| e.payload()), Ok(entry.payload()));
        assert_eq!((again.header.base_offset, again.header.count, again.header.max_ts), (40, 3, 9));
    }
}
