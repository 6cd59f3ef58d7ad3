//! A block: whole entries, header and payload, one behind the other, compressed when that pays.

use bytes::Bytes;
use esker_types::{Entry, EntryHeader, Rules, SegmentId, checksum, entry::ENTRY_HEADER_LEN};

use super::{BLOCK_RAW_MAX, BlockInfo, Identity};
use crate::error::FormatError;

const WHAT: &str = "object block";

/// How a block's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    Raw = 0,
    Zstd = 1,
}

impl Codec {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The raw bytes of one verified block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub segment: SegmentId,
    /// In the footer's list.
    pub number: u32,
    pub raw: Bytes,
}

impl Block {
    pub fn entries(&self) -> Entries {
        Entries { segment: self.segment, rest: self.raw.clone() }
    }
}

/// Entries of a block, in order. Headers are verified; payloads are under the block's checksum.
#[derive(Clone, Debug)]
pub struct Entries {
    segment: SegmentId,
    rest: Bytes,
}

impl Entries {
    /// Over the raw bytes of a block that verified before, from a cache for example.
    pub fn over(segment: SegmentId, raw: Bytes) -> Self {
        Self { segment, rest: raw }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let header = match EntryHeader::decode(&self.rest) {
            Ok(header) if header.segment == self.segment => header,
            Ok(_) => return self.stop("an entry of another segment"),
            Err(_) => return self.stop("an entry header"),
        };
        let len = ENTRY_HEADER_LEN + header.len as usize;
        if self.rest.len() < len {
            return self.stop("an entry is cut off");
        }
        Some(Ok(Entry { header, bytes: self.rest.split_to(len) }))
    }
}

impl Entries {
    fn stop(&mut self, why: &'static str) -> Option<Result<Entry, FormatError>> {
        self.rest = Bytes::new();
        Some(FormatError::damaged(WHAT, why))
    }
}

/// Verifies and decompresses block `number` of `segment`. `stored` is exactly the block's bytes of the object; at most
/// [`BLOCK_RAW_MAX`] are allocated.
pub fn decode_block(
    identity: &Identity,
    segment: SegmentId,
    number: u32,
    info: &BlockInfo,
    stored: &Bytes,
) -> Result<Block, FormatError> {
    if !verify_block(identity, segment, number, info, stored) {
        return FormatError::damaged(WHAT, "length or checksum");
    }
    unpack_block(segment, number, info, stored)
}

/// Decompresses a block that [`verify_block`] found good: a second pass over the bytes would cost as much as reading
/// them. At most [`BLOCK_RAW_MAX`] are allocated.
pub fn unpack_block(segment: SegmentId, number: u32, info: &BlockInfo, stored: &Bytes) -> Result<Block, FormatError> {
    let raw = match info.codec {
        Codec::Raw if info.raw == info.stored => stored.clone(),
        Codec::Zstd if info.raw as usize <= BLOCK_RAW_MAX => match zstd::bulk::decompress(stored, info.raw as usize) {
            Ok(raw) if raw.len() == info.raw as usize => Bytes::from(raw),
            _ => return FormatError::damaged(WHAT, "compression"),
        },
        _ => return FormatError::damaged(WHAT, "its raw length"),
    };
    Ok(Block { segment, number, raw })
}

/// True if `stored` is exactly block `number` of `segment`, by length and checksum; nothing is decompressed.
pub fn verify_block(identity: &Identity, segment: SegmentId, number: u32, info: &BlockInfo, stored: &[u8]) -> bool {
    stored.len() == info.stored as usize && block_crc(identity, segment, number, info.position, stored) == info.crc
}

/// As [`verify_block`], for bytes that a cache held: they may have changed there, so every hit asks this.
pub fn verify_cached<R: Rules>(
    identity: &Identity,
    segment: SegmentId,
    number: u32,
    info: &BlockInfo,
    stored: &[u8],
) -> bool {
    !R::CACHE_CHECKED || verify_block(identity, segment, number, info, stored)
}

pub(super) fn block_crc(identity: &Identity, segment: SegmentId, number: u32, position: u64, stored: &[u8]) -> u32 {
    checksum::crc32c_parts([&identity.segment_seed(b"blok", segment, number, position)[..], stored])
}
