//! One block: what one write puts into the journal.
//!
//! ```text
//! byte  0 magic u32       4 version u8    5 kind u8      6 reserved u16
//!       8 cluster [16]   24 instance [16] 40 file uuid [16]
//!      56 file seq u64   64 lsn u64      72 durable_upto u64
//!      80 prev_crc u32   84 items u32    88 payload_len u32  92 payload_crc u32
//!      96 len u32 (whole block, multiple of 4096)           100 reserved u64
//!     108 head_crc u32  112 items, 40 bytes each, then the payload, then zeros
//! item: 0 kind u8  1 reserved [3]  4 len u32  8 partition u64  16 n u64  24 entry or epoch u64  32 crc u32  36 reserved u32
//! ```
//! Little-endian. `head_crc` = CRC-32C over (file uuid, offset in the file u64, bytes 0..108, items): a block that was
//! written to another place, or that an earlier life of the file left behind, does not verify. The items carry the
//! CRC of each entry, so that a damaged payload still tells which entries it hit, and which it did not.

use bytes::{BufMut, Bytes, BytesMut};
use esker_types::{EntryId, PartitionId, SegmentId, checksum};

use super::{ALIGN, FileId, JournalIds, Lsn, Record, align_up};

pub const BLOCK_MAGIC: u32 = 0x4a4b_5345; // "ESKJ" on disk
pub const BLOCK_VERSION: u8 = 1;
pub const HEAD_LEN: usize = 112;
pub const ITEM_LEN: usize = 40;
/// Cap on the records of one block, so that a head stays small beside its payload: 41,072 bytes at most.
pub const ITEMS_MAX: usize = 1024;
/// No block is longer: bounds what a scan must hold.
pub const BLOCK_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum BlockKind {
    /// First block of a file; the payload is a [`super::files::FileHeader`].
    Header = 1,
    /// Records. Without any it is an epilogue: it only carries `durable_upto`.
    Group = 2,
    /// Last block of a full file; the payload is a [`super::files::Footer`].
    Footer = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ItemKind {
    Entry = 1,
    Fence = 2,
    LimboSet = 3,
    LimboCleared = 4,
    Dropped = 5,
    PartitionDeleted = 6,
}

/// One record as listed in a block's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: ItemKind,
    /// Bytes of payload, 0 unless an entry.
    pub len: u32,
    pub segment: SegmentId,
    /// Entry number, epoch of a fence, count of entries when limbo is cleared.
    pub value: u64,
    /// CRC-32C of the entry's bytes.
    pub crc: u32,
}

impl Item {
    pub fn of(record: &Record) -> Self {
        let partition_only = |partition: PartitionId| SegmentId { partition, n: 0 };
        let plain = |kind, segment, value| Self { kind, len: 0, segment, value, crc: 0 };
        match record {
            Record::Entry { segment, entry, crc, bytes } => Self {
                kind: ItemKind::Entry,
                len: u32::try_from(bytes.len()).expect("entries are bounded at the door"),
                segment: *segment,
                value: *entry,
                crc: *crc,
            },
            Record::Fence { partition, epoch } => plain(ItemKind::Fence, partition_only(*partition), epoch.0.into()),
            Record::LimboSet { segment } => plain(ItemKind::LimboSet, *segment, 0),
            Record::LimboCleared { segment, end } => plain(ItemKind::LimboCleared, *segment, *end),
            Record::Dropped { segment } => plain(ItemKind::Dropped, *segment, 0),
            Record::PartitionDeleted { partition } => plain(ItemKind::PartitionDeleted, partition_only(*partition), 0),
        }
    }

    pub fn entry(&self) -> Option<EntryId> {
        (self.kind == ItemKind::Entry).then_some(self.value)
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.kind as u8);
        out.put_bytes(0, 3);
        out.put_u32_le(self.len);
        out.put_u64_le(self.segment.partition.0);
        out.put_u64_le(self.segment.n);
        out.put_u64_le(self.value);
        out.put_u32_le(self.crc);
        out.put_u32_le(0);
    }

    fn read(raw: &[u8; ITEM_LEN]) -> Option<Self> {
        let kind = match raw[0] {
            1 => ItemKind::Entry,
            2 => ItemKind::Fence,
            3 => ItemKind::LimboSet,
            4 => ItemKind::LimboCleared,
            5 => ItemKind::Dropped,
            6 => ItemKind::PartitionDeleted,
            _ => return None,
        };
        let segment = SegmentId { partition: PartitionId(u64_at(raw, 8)), n: u64_at(raw, 16) };
        let item = Self { kind, len: u32_at(raw, 4), segment, value: u64_at(raw, 24), crc: u32_at(raw, 32) };
        (kind == ItemKind::Entry || item.len == 0).then_some(item)
    }
}

/// The head of a block, parsed or about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHead {
    pub kind: BlockKind,
    pub ids: JournalIds,
    pub file: FileId,
    /// Where in the file the block begins.
    pub offset: u64,
    pub lsn: Lsn,
    /// Exclusive: everything below was fsynced, without a hole, when this block was built.
    pub durable_upto: Lsn,
    /// `head_crc` of the block before it in the file, 0 for the first.
    pub prev_crc: u32,
    pub payload_len: u32,
    pub payload_crc: u32,
    pub items: Vec<Item>,
    /// CRC of this head; the next block's `prev_crc`. Computed by [`BlockHead::encode`].
    pub head_crc: u32,
}

/// Why bytes are not a block that was written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    #[error("no block begins here")]
    NoMagic,
    #[error("block format version {0} is newer than this program knows")]
    Version(u8),
    #[error("the block's head does not verify")]
    Head,
    #[error("the block belongs to another cluster, instance or file")]
    Foreign,
    #[error("the block is cut off")]
    Truncated,
    #[error("the block's payload does not verify")]
    Payload,
}

impl BlockHead {
    pub fn head_len(&self) -> usize {
        HEAD_LEN + ITEM_LEN * self.items.len()
    }

    /// Length of the whole block in the file.
    pub fn len(&self) -> u64 {
        align_up(self.head_len() as u64 + u64::from(self.payload_len))
    }

    /// Where the next block begins.
    pub fn end(&self) -> u64 {
        self.offset + self.len()
    }

    pub fn end_lsn(&self) -> Lsn {
        Lsn(self.lsn.0 + self.len())
    }

    /// Never: a block is at least its head.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes of the head with its items; sets `head_crc`.
    pub fn encode(&mut self) -> Bytes {
        assert!(self.items.len() <= ITEMS_MAX && self.len() <= BLOCK_BYTES_MAX, "a block over its bounds was built");
        let mut out = BytesMut::with_capacity(self.head_len());
        out.put_u32_le(BLOCK_MAGIC);
        out.put_u8(BLOCK_VERSION);
        out.put_u8(self.kind as u8);
        out.put_u16_le(0);
        out.put_slice(&self.ids.cluster.0);
        out.put_slice(&self.ids.instance.0);
        out.put_slice(&self.file.uuid);
        out.put_u64_le(self.file.seq);
        out.put_u64_le(self.lsn.0);
        out.put_u64_le(self.durable_upto.0);
        out.put_u32_le(self.prev_crc);
        out.put_u32_le(self.items.len() as u32);
        out.put_u32_le(self.payload_len);
        out.put_u32_le(self.payload_crc);
        out.put_u32_le(self.len() as u32);
        out.put_u64_le(0);
        out.put_u32_le(0);
        debug_assert_eq!(out.len(), HEAD_LEN);
        for item in &self.items {
            item.put(&mut out);
        }
        self.head_crc = seeded_crc(self.file.uuid, self.offset, &out[..108], &out[HEAD_LEN..]);
        out[108..112].copy_from_slice(&self.head_crc.to_le_bytes());
        out.freeze()
    }

    /// Length of the block and of its head as the first [`HEAD_LEN`] bytes claim, before anything is verified.
    /// Both are within the bounds of a block; nothing is read or allocated on the word of more than that.
    pub fn peek(bytes: &[u8]) -> Result<(u64, usize), BlockFault> {
        let Some(raw) = bytes.first_chunk::<HEAD_LEN>() else { return Err(BlockFault::Truncated) };
        if u32_at(raw, 0) != BLOCK_MAGIC {
            return Err(BlockFault::NoMagic);
        }
        if raw[4] != BLOCK_VERSION {
            return Err(BlockFault::Version(raw[4]));
        }
        let (len, items) = (u64::from(u32_at(raw, 96)), u32_at(raw, 84) as usize);
        if items > ITEMS_MAX || len > BLOCK_BYTES_MAX {
            return Err(BlockFault::Head);
        }
        let head_len = HEAD_LEN + ITEM_LEN * items;
        if len != align_up(head_len as u64 + u64::from(u32_at(raw, 88))) {
            return Err(BlockFault::Head);
        }
        Ok((len, head_len))
    }

    /// Parses and verifies a head that begins at `offset` of `file`. The payload is not looked at.
    pub fn decode(bytes: &[u8], ids: JournalIds, file: FileId, offset: u64) -> Result<Self, BlockFault> {
        let (_, head_len) = Self::peek(bytes)?;
        let head = bytes.get(..head_len).ok_or(BlockFault::Truncated)?;
        let head_crc = u32_at(head, 108);
        if head_crc != seeded_crc(file.uuid, offset, &head[..108], &head[HEAD_LEN..]) {
            return Err(BlockFault::Head);
        }
        if head[8..24] != ids.cluster.0
            || head[24..40] != ids.instance.0
            || head[40..56] != file.uuid
            || u64_at(head, 56) != file.seq
        {
            return Err(BlockFault::Foreign);
        }
        let kind = match head[5] {
            1 => BlockKind::Header,
            2 => BlockKind::Group,
            3 => BlockKind::Footer,
            _ => return Err(BlockFault::Head),
        };
        let (chunks, _) = head[HEAD_LEN..].as_chunks::<ITEM_LEN>();
        let items: Vec<Item> = chunks.iter().map(Item::read).collect::<Option<_>>().ok_or(BlockFault::Head)?;
        let payload_len = u32_at(head, 88);
        let listed: u64 = items.iter().map(|item| u64::from(item.len)).sum();
        let lsn = u64_at(head, 64);
        if (kind == BlockKind::Group && listed != u64::from(payload_len)) || lsn < offset || lsn > LSN_MAX {
            return Err(BlockFault::Head);
        }
        Ok(Self {
            kind,
            ids,
            file,
            offset,
            lsn: Lsn(lsn),
            durable_upto: Lsn(u64_at(head, 72)),
            prev_crc: u32_at(head, 80),
            payload_len,
            payload_crc: u32_at(head, 92),
            items,
            head_crc,
        })
    }

    /// The payload out of a whole block's bytes, unverified. None if the bytes are too short.
    pub fn payload(&self, block: &Bytes) -> Option<Bytes> {
        let from = self.head_len();
        let to = from + self.payload_len as usize;
        (block.len() >= to).then(|| block.slice(from..to))
    }

    pub fn payload_verifies(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_len as usize && checksum::crc32c(payload) == self.payload_crc
    }

    /// One entry's bytes out of a block's payload, if it is listed and verifies. The last one, should it be there twice.
    pub fn entry(&self, payload: &Bytes, segment: SegmentId, entry: EntryId) -> Option<Bytes> {
        let mut at = self.items.iter().map(|item| item.len as usize).sum::<usize>();
        for item in self.items.iter().rev() {
            let to = at;
            at -= item.len as usize;
            if item.segment == segment && item.entry() == Some(entry) {
                let bytes = (to <= payload.len()).then(|| payload.slice(at..to));
                return bytes.filter(|bytes| checksum::crc32c(bytes) == item.crc);
            }
        }
        None
    }

    /// Each entry of a group with its bytes; `None` instead of bytes that do not verify against the item's CRC.
    /// `payload` may be shorter than the head says.
    pub fn entries<'a>(&'a self, payload: &'a Bytes) -> impl Iterator<Item = (&'a Item, Option<Bytes>)> + 'a {
        let mut at = 0usize;
        self.items.iter().filter(|item| item.kind == ItemKind::Entry).map(move |item| {
            let (from, to) = (at, at + item.len as usize);
            at = to;
            let bytes = (to <= payload.len()).then(|| payload.slice(from..to));
            (item, bytes.filter(|bytes| checksum::crc32c(bytes) == item.crc))
        })
    }
}

/// Keeps sums of an lsn and lengths from overflowing.
const LSN_MAX: u64 = 1 << 60;

fn seeded_crc(uuid: [u8; 16], offset: u64, head: &[u8], items: &[u8]) -> u32 {
    checksum::crc32c_parts([&uuid[..], &offset.to_le_bytes()[..], head, items])
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

fn u64_at(raw: &[u8], at: usize) -> u64 {
    u64::from(u32_at(raw, at)) | u64::from(u32_at(raw, at + 4)) << 32
}

/// A block as it goes to the disk: one gathered write at `offset` of `file`, then fsync.
#[derive(Clone, Debug)]
pub struct BlockWrite {
    pub head: BlockHead,
    /// Head, then the payload's slices as they came from the network, then zeros: together `len()` bytes.
    pub parts: Vec<Bytes>,
}

static ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];

impl BlockWrite {
    /// Puts head, payload and padding together without a copy of the payload.
    pub fn new(mut head: BlockHead, payload: impl IntoIterator<Item = Bytes>) -> Self {
        let mut parts = vec![head.encode()];
        parts.extend(payload);
        let filled: u64 = parts.iter().map(|part| part.len() as u64).sum();
        assert!(filled <= head.len() && head.len() - filled < ALIGN, "block head and payload disagree");
        if filled < head.len() {
            parts.push(Bytes::from_static(&ZEROS[..(head.len() - filled) as usize]));
        }
        Self { head, parts }
    }

    pub fn file(&self) -> FileId {
        self.head.file
    }

    pub fn offset(&self) -> u64 {
        self.head.offset
    }

    /// Bytes on disk, a multiple of [`ALIGN`].
    pub fn len(&self) -> usize {
        self.head.len() as usize
    }

    /// Never: see [`BlockHead::is_empty`].
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Copies the block into an aligned buffer for direct IO: the one copy between network and disk.
    pub fn copy_to(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.len(), "buffer and block differ in length");
        let mut at = 0;
        for part in &self.parts {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        self.parts.iter().for_each(|part| out.put_slice(part));
        out.freeze()
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
