//! What is said of one segment of an object, and where each of its blocks is.

use esker_metadata_core::ClosedSegment;
use esker_types::{EntryId, Epoch, Offset, PartitionId, Quorum, SegmentId, WallMs};

use super::block::Codec;
use super::{BLOCK_RAW_MAX, BLOCKS_MAX, Identity, OBJECT_VERSION};
use crate::error::FormatError;
use crate::input::{Input, checked, put_checksum};

const WHAT: &str = "object footer";
const MAGIC: u32 = 0x464b_5345; // "ESKF"
const FIXED_LEN: usize = 104;
const BLOCK_LEN: usize = 48;
const CRC_LEN: usize = 4;

/// A closed segment as metadata knew it when it was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    pub segment: SegmentId,
    pub seg_epoch: Epoch,
    pub quorum: Quorum,
    pub base_offset: Offset,
    /// Exclusive.
    pub end_offset: Offset,
    /// Inclusive.
    pub last: EntryId,
    /// `chain` of the last entry.
    pub digest: u64,
    /// Of all entries, headers included.
    pub bytes: u64,
    pub first_ts: i64,
    pub max_ts: i64,
    pub opened: WallMs,
    pub closed: WallMs,
}

impl From<&ClosedSegment> for SegmentFacts {
    fn from(closed: &ClosedSegment) -> Self {
        Self {
            segment: closed.segment,
            seg_epoch: closed.seg_epoch,
            quorum: closed.quorum,
            base_offset: closed.base_offset,
            end_offset: closed.end_offset,
            last: closed.last,
            digest: closed.digest,
            bytes: closed.bytes,
            first_ts: closed.first_ts,
            max_ts: closed.max_ts,
            opened: closed.opened,
            closed: closed.closed,
        }
    }
}

/// One block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    pub first_entry: EntryId,
    /// Of the first entry. Blocks without records have the base offset of what follows.
    pub base_offset: Offset,
    /// Largest record timestamp in this block alone, -1 without records.
    pub max_ts: i64,
    /// Byte of the object.
    pub position: u64,
    /// Bytes in the object.
    pub stored: u32,
    /// Bytes of the entries.
    pub raw: u32,
    /// Over the stored bytes, seeded with the block's place.
    pub crc: u32,
    pub codec: Codec,
}

/// The index of one segment in an object. Blocks are in order, gapless, and at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub facts: SegmentFacts,
    pub blocks: Vec<BlockInfo>,
}

impl Footer {
    /// The block that holds the record at `offset`, or none outside of the segment.
    pub fn block_of(&self, offset: Offset) -> Option<u32> {
        if offset < self.facts.base_offset || offset >= self.facts.end_offset {
            return None;
        }
        let after = self.blocks.partition_point(|block| block.base_offset <= offset);
        u32::try_from(after.checked_sub(1)?).ok()
    }

    /// The first block with a record at or after `timestamp`, ms.
    pub fn block_at(&self, timestamp: i64) -> Option<u32> {
        let found = self.blocks.iter().position(|block| block.max_ts >= timestamp && block.max_ts >= 0)?;
        u32::try_from(found).ok()
    }

    pub fn encoded_len(blocks: usize) -> usize {
        FIXED_LEN + blocks * BLOCK_LEN + CRC_LEN
    }

    /// The bytes that stand at `position` of the object.
    pub fn encode(&self, identity: &Identity, position: u64) -> Vec<u8> {
        let facts = &self.facts;
        let mut out = Vec::with_capacity(Self::encoded_len(self.blocks.len()));
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&OBJECT_VERSION.to_le_bytes());
        out.extend_from_slice(&[facts.quorum.write, facts.quorum.ack]);
        out.extend_from_slice(&facts.segment.partition.0.to_le_bytes());
        out.extend_from_slice(&facts.segment.n.to_le_bytes());
        out.extend_from_slice(&facts.seg_epoch.0.to_le_bytes());
        out.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        for word in [facts.base_offset, facts.end_offset, facts.first_ts, facts.max_ts, facts.opened.0, facts.closed.0]
        {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [facts.last, facts.digest, facts.bytes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        debug_assert_eq!(out.len(), FIXED_LEN);
        for block in &self.blocks {
            out.extend_from_slice(&block.first_entry.to_le_bytes());
            out.extend_from_slice(&block.base_offset.to_le_bytes());
            out.extend_from_slice(&block.max_ts.to_le_bytes());
            out.extend_from_slice(&block.position.to_le_bytes());
            for word in [block.stored, block.raw, block.crc, block.codec as u32] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        put_checksum(&identity.segment_seed(b"foot", facts.segment, 0, position), &mut out);
        out
    }

    /// Reads a footer that stands at `position`. Allocates no more than the input holds.
    pub fn decode(identity: &Identity, segment: SegmentId, position: u64, bytes: &[u8]) -> Result<Self, FormatError> {
        let body = checked(WHAT, &identity.segment_seed(b"foot", segment, 0, position), bytes)?;
        let mut input = Input::new(body, WHAT);
        input.tag(MAGIC, OBJECT_VERSION)?;
        let quorum = Quorum { write: input.u8()?, ack: input.u8()? };
        let found = SegmentId { partition: PartitionId(input.u64()?), n: input.u64()? };
        if found != segment || !quorum.is_valid() {
            return FormatError::damaged(WHAT, "it is of another segment");
        }
        let seg_epoch = Epoch(input.u32()?);
        let count = input.u32()? as usize;
        let (base_offset, end_offset) = (input.i64()?, input.i64()?);
        let (first_ts, max_ts) = (input.i64()?, input.i64()?);
        let (opened, closed) = (WallMs(input.i64()?), WallMs(input.i64()?));
        let (last, digest, bytes) = (input.u64()?, input.u64()?, input.u64()?);
        if count == 0 || count > BLOCKS_MAX || input.rest().len() != count * BLOCK_LEN {
            return FormatError::damaged(WHAT, "its number of blocks");
        }
        let facts = SegmentFacts {
            segment,
            seg_epoch,
            quorum,
            base_offset,
            end_offset,
            last,
            digest,
            bytes,
            first_ts,
            max_ts,
            opened,
            closed,
        };
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(block_info(&mut input)?);
        }
        let footer = Self { facts, blocks };
        footer.check(position)?;
        Ok(footer)
    }

    /// What a correct writer always writes: readers rely on it without looking again.
    fn check(&self, position: u64) -> Result<(), FormatError> {
        let facts = &self.facts;
        let first = self.blocks.first().map_or((1, 0), |block| (block.first_entry, block.base_offset));
        if first != (0, facts.base_offset) || facts.base_offset < 0 || facts.end_offset <= facts.base_offset {
            return FormatError::damaged(WHAT, "where the segment begins or ends");
        }
        for pair in self.blocks.windows(2) {
            let gapless = pair[0].position.checked_add(u64::from(pair[0].stored)) == Some(pair[1].position);
            let ordered = pair[0].first_entry < pair[1].first_entry && pair[0].base_offset <= pair[1].base_offset;
            if !gapless || !ordered {
                return FormatError::damaged(WHAT, "the order of its blocks");
            }
        }
        let end = self.blocks.last().map_or(0, |block| block.position.saturating_add(u64::from(block.stored)));
        let tail = self.blocks.last().map_or(0, |block| block.first_entry);
        // Compression is left out where it makes a block longer.
        let sizes = |block: &BlockInfo| (1..=block.raw).contains(&block.stored) && block.raw as usize <= BLOCK_RAW_MAX;
        if end > position || tail > facts.last || !self.blocks.iter().all(sizes) {
            return FormatError::damaged(WHAT, "the place of its blocks");
        }
        Ok(())
    }
}

fn block_info(input: &mut Input<'_>) -> Result<BlockInfo, FormatError> {
    let (first_entry, base_offset, max_ts, position) = (input.u64()?, input.i64()?, input.i64()?, input.u64()?);
    let (stored, raw, crc, codec) = (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
    let codec = u8::try_from(codec).ok().and_then(Codec::from_byte);
    let Some(codec) = codec else { return FormatError::damaged(WHAT, "an unknown compression") };
    Ok(BlockInfo { first_entry, base_offset, max_ts, position, stored, raw, crc, codec })
}
