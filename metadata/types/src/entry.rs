//! The entry: what one ADD carries, and the unit in which bookies store, fence and serve.
//!
//! ```text
//! byte  0 magic u32        4 version u8     5 kind u8       6 reserved u16
//!       8 partition u64   16 n u64         24 seg_epoch u32 28 count u32
//!      32 entry u64       40 base_offset i64 48 max_ts i64  56 snap u64
//!      64 len u32         68 payload_crc u32 72 chain u64   80 header_crc u32   84 payload...
//! ```
//! All numbers are little-endian. `chain` = XXH3-64(previous entry's chain, bytes 0..72); the chain of the last
//! entry is the segment's digest. `header_crc` = CRC-32C of bytes 0..80. The same bytes go to every copy.

use bytes::{BufMut, Bytes, BytesMut};

use crate::checksum;
use crate::ids::{EntryId, Epoch, Offset, PartitionId, SegmentId};

pub const ENTRY_MAGIC: u32 = 0x4b53_4531; // "1ESK" on disk
pub const ENTRY_VERSION: u8 = 1;
pub const ENTRY_HEADER_LEN: usize = 84;
/// Chain value before entry 0.
pub const CHAIN_START: u64 = 0;
/// [`EntryHeader::snap`] while the segment holds no complete snapshot.
pub const NO_SNAPSHOT: u64 = u64::MAX;

/// What the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Whole record batches, one behind the other.
    Data = 0,
    /// A chunk of producer state; entry 0 also carries the segment's prologue.
    Snapshot = 1,
    /// Reserved for control information between records.
    Marker = 2,
}

impl EntryKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Data),
            1 => Some(Self::Snapshot),
            2 => Some(Self::Marker),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub kind: EntryKind,
    pub segment: SegmentId,
    /// Epoch under which the segment was opened. Not the epoch of the request that carries the entry.
    pub seg_epoch: Epoch,
    pub entry: EntryId,
    /// Offset of the first record; for an entry without records, of the next one.
    pub base_offset: Offset,
    /// Offsets that the entry uses up. 0 unless `kind` is `Data`.
    pub count: u32,
    /// Largest record timestamp in the entry, -1 without records.
    pub max_ts: i64,
    /// First entry of the last complete snapshot in this segment as of this entry, or [`NO_SNAPSHOT`].
    pub snap: EntryId,
    pub len: u32,
    pub payload_crc: u32,
    pub chain: u64,
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("entry is cut off: {have} bytes, needs {need}")]
    Truncated { have: usize, need: usize },
    #[error("entry header does not verify")]
    Header,
    #[error("entry format version {0} is newer than this program knows")]
    Version(u8),
    #[error("entry payload does not verify: crc {found:#010x}, header says {expected:#010x}")]
    Payload { expected: u32, found: u32 },
}

impl EntryHeader {
    /// Offset behind the last record, exclusive.
    pub fn end_offset(&self) -> Offset {
        self.base_offset + Offset::from(self.count)
    }

    /// The bytes on disk and wire. `self.chain` must be what [`EntryHeader::sealed`] computed.
    pub fn encode(&self) -> [u8; ENTRY_HEADER_LEN] {
        let mut out = [0u8; ENTRY_HEADER_LEN];
        out[..72].copy_from_slice(&self.chained_part());
        out[72..80].copy_from_slice(&self.chain.to_le_bytes());
        let crc = checksum::crc32c(&out[..80]);
        out[80..84].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The same header with its chain link computed from the previous entry's.
    pub fn sealed(mut self, previous_chain: u64) -> Self {
        self.chain = checksum::chain(previous_chain, &self.chained_part());
        self
    }

    /// True if this entry follows one whose chain is `previous_chain`.
    pub fn follows(&self, previous_chain: u64) -> bool {
        self.chain == checksum::chain(previous_chain, &self.chained_part())
    }

    fn chained_part(&self) -> [u8; 72] {
        let mut out = [0u8; 72];
        let mut to = &mut out[..];
        to.put_u32_le(ENTRY_MAGIC);
        to.put_u8(ENTRY_VERSION);
        to.put_u8(self.kind as u8);
        to.put_u16_le(0);
        to.put_u64_le(self.segment.partition.0);
        to.put_u64_le(self.segment.n);
        to.put_u32_le(self.seg_epoch.0);
        to.put_u32_le(self.count);
        to.put_u64_le(self.entry);
        to.put_i64_le(self.base_offset);
        to.put_i64_le(self.max_ts);
        to.put_u64_le(self.snap);
        to.put_u32_le(self.len);
        to.put_u32_le(self.payload_crc);
        debug_assert!(to.is_empty());
        out
    }

    /// Reads and verifies a header; the payload is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let Some(raw) = bytes.first_chunk::<ENTRY_HEADER_LEN>() else {
            return Err(EntryError::Truncated { have: bytes.len(), need: ENTRY_HEADER_LEN });
        };
        let u32_at = |i: usize| u32::from_le_bytes([raw[i], raw[i + 1], raw[i + 2], raw[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        if u32_at(0) != ENTRY_MAGIC || u32_at(80) != checksum::crc32c(&raw[..80]) {
            return Err(EntryError::Header);
        }
        if raw[4] != ENTRY_VERSION {
            return Err(EntryError::Version(raw[4]));
        }
        let header = Self {
            kind: EntryKind::from_byte(raw[5]).ok_or(EntryError::Header)?,
            segment: SegmentId { partition: PartitionId(u64_at(8)), n: u64_at(16) },
            seg_epoch: Epoch(u32_at(24)),
            count: u32_at(28),
            entry: u64_at(32),
            base_offset: u64_at(40) as i64,
            max_ts: u64_at(48) as i64,
            snap: u64_at(56),
            len: u32_at(64),
            payload_crc: u32_at(68),
            chain: u64_at(72),
        };
        let offsets_fit = header.base_offset.checked_add(Offset::from(header.count)).is_some();
        if header.base_offset < 0 || !offsets_fit || (header.kind != EntryKind::Data && header.count != 0) {
            return Err(EntryError::Header);
        }
        Ok(header)
    }
}

/// A whole entry: header bytes and payload in one piece, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub header: EntryHeader,
    /// Header and payload.
    pub bytes: Bytes,
}

impl Entry {
    /// Puts header and payload together in one buffer. `header.len` and `header.payload_crc` must fit the payload.
    pub fn assemble(header: EntryHeader, payload: &[u8]) -> Self {
        assert_eq!(header.len as usize, payload.len(), "entry header and payload disagree on the length");
        let mut bytes = BytesMut::with_capacity(ENTRY_HEADER_LEN + payload.len());
        bytes.put_slice(&header.encode());
        bytes.put_slice(payload);
        Self { header, bytes: bytes.freeze() }
    }

    pub fn payload(&self) -> Bytes {
        self.bytes.slice(ENTRY_HEADER_LEN..)
    }

    /// Parses exactly one entry and verifies header and payload.
    pub fn parse(bytes: Bytes) -> Result<Self, EntryError> {
        let entry = Self::parse_header_only(bytes)?;
        let found = checksum::crc32c(&entry.bytes[ENTRY_HEADER_LEN..]);
        if found != entry.header.payload_crc {
            return Err(EntryError::Payload { expected: entry.header.payload_crc, found });
        }
        Ok(entry)
    }

    /// Parses exactly one entry and verifies the header and the length, not the payload's CRC.
    pub fn parse_header_only(bytes: Bytes) -> Result<Self, EntryError> {
        let header = EntryHeader::decode(&bytes)?;
        let need = ENTRY_HEADER_LEN + header.len as usize;
        match bytes.len() {
            have if have < need => Err(EntryError::Truncated { have, need }),
            have if have > need => Err(EntryError::Header),
            _ => Ok(Self { header, bytes }),
        }
    }

    /// CRC-32C over header and payload, without reading the payload again.
    pub fn crc(&self) -> u32 {
        let header = checksum::crc32c(&self.bytes[..ENTRY_HEADER_LEN]);
        checksum::crc32c_combine(header, self.header.payload_crc, self.header.len.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        let payload = b"twelve bytes";
        let header = EntryHeader {
            kind: EntryKind::Data,
            segment: SegmentId::new(3, 9),
            seg_epoch: Epoch(4),
            entry: 17,
            base_offset: 100,
            count: 5,
            max_ts: 1_700_000_000_000,
            snap: NO_SNAPSHOT,
            len: payload.len() as u32,
            payload_crc: checksum::crc32c(payload),
            chain: 0,
        };
        Entry::assemble(header.sealed(77), payload)
    }

    const GOLDEN: &str = concat!(
        "3145534b0100000003000000000000000900000000000000",
        "0400000005000000110000000000000064000000000000000068e5cf8b010000",
        "ffffffffffffffff0c00000078f42af299582d1b2a15d9f4b65b59e4",
    );

    #[test]
    fn golden_bytes() {
        let hex: String = sample().bytes[..ENTRY_HEADER_LEN].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN, "the format is frozen: a change is a new version, not a new golden value");
    }

    #[test]
    fn round_trip_and_chain() {
        let entry = sample();
        let again = Entry::parse(entry.bytes.clone()).expect("own bytes");
        assert_eq!(again, entry);
        assert!(again.header.follows(77) && !again.header.follows(78));
        assert_eq!(again.crc(), checksum::crc32c(&entry.bytes));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let entry = sample();
        for bit in 0..entry.bytes.len() * 8 {
            let mut bytes = entry.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::parse(Bytes::from(bytes)).is_err(), "bit {bit}");
        }
        for cut in 0..entry.bytes.len() {
            assert!(Entry::parse(entry.bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
