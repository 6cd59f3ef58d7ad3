//! Turns the entries of closed segments into an object, a chunk at a time.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use esker_types::entry::CHAIN_START;
use esker_types::{Entry, EntryId, Offset, SegmentId, checksum};

use super::block::{Codec, block_crc};
use super::{
    BLOCK_RAW_MAX, BLOCKS_MAX, BlockInfo, Directory, Footer, HEAD_LEN, Identity, Part, SEGMENTS_MAX, SegmentFacts,
    Trailer, block_target, head,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderOptions {
    /// Raw bytes at which a block ends; 0: by the segment's size.
    pub block_target: usize,
    /// zstd's level.
    pub level: i32,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { block_target: 0, level: 1 }
    }
}

/// What was read is not the segment that metadata closed: the copy is damaged, or not the right one. No object comes of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("segment {segment}, entry {entry}: {why}")]
    Entry { segment: SegmentId, entry: EntryId, why: &'static str },
    #[error("segment {segment} ends at entry {found:?}, metadata says {last}")]
    Ended { segment: SegmentId, found: Option<EntryId>, last: EntryId },
    #[error("segment {0} does not have the digest or the end that metadata says")]
    Digest(SegmentId),
    #[error("an object holds at most {SEGMENTS_MAX} segments of {BLOCKS_MAX} blocks")]
    TooMany,
}

/// A finished object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the whole object.
    pub len: u64,
    /// In the order in which the segments were given.
    pub parts: Vec<Part>,
    /// CRC-32C of all bytes.
    pub crc: u32,
}

/// Call [`Encoder::begin`], [`Encoder::push`] for each entry in order, and [`Encoder::end`], for each segment, then
/// [`Encoder::finish`]. After each call take what [`Encoder::take`] gives: at most one block is held besides.
pub struct Encoder {
    identity: Identity,
    options: EncoderOptions,
    compressor: zstd::bulk::Compressor<'static>,
    /// Bytes given out so far.
    position: u64,
    crc: u32,
    out: VecDeque<Bytes>,
    current: Option<Current>,
    done: Vec<(Footer, u64, u64)>,
}

/// The segment under way.
struct Current {
    facts: SegmentFacts,
    begins: u64,
    target: usize,
    chain: u64,
    next_entry: EntryId,
    next_offset: Offset,
    bytes: u64,
    raw: BytesMut,
    /// Of the block that is being filled.
    first_entry: EntryId,
    base_offset: Offset,
    max_ts: i64,
    blocks: Vec<BlockInfo>,
}

impl Encoder {
    pub fn new(identity: Identity, options: EncoderOptions) -> Self {
        let compressor = zstd::bulk::Compressor::new(options.level).expect("zstd takes any level it knows");
        let mut encoder = Self {
            identity,
            options,
            compressor,
            position: 0,
            crc: 0,
            out: VecDeque::new(),
            current: None,
            done: Vec::new(),
        };
        encoder.emit(head(&identity).into());
        debug_assert_eq!(encoder.position, HEAD_LEN as u64);
        encoder
    }

    /// The next piece of the object.
    pub fn take(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    pub fn begin(&mut self, facts: SegmentFacts) -> Result<(), EncodeError> {
        assert!(self.current.is_none(), "a segment is under way");
        if self.done.len() >= SEGMENTS_MAX {
            return Err(EncodeError::TooMany);
        }
        let target = match self.options.block_target {
            0 => block_target(facts.bytes),
            target => target.min(super::BLOCK_TARGET_MAX),
        };
        self.current = Some(Current {
            facts,
            begins: self.position,
            target,
            chain: CHAIN_START,
            next_entry: 0,
            next_offset: facts.base_offset,
            bytes: 0,
            raw: BytesMut::new(),
            first_entry: 0,
            base_offset: facts.base_offset,
            max_ts: -1,
            blocks: Vec::new(),
        });
        Ok(())
    }

    /// One entry, header and payload, as a bookie stored it. Verified against its own checksums and the entry before.
    pub fn push(&mut self, bytes: &Bytes) -> Result<(), EncodeError> {
        let current = self.current.as_mut().expect("push comes between begin and end");
        let (segment, at) = (current.facts.segment, current.next_entry);
        let bad = |why| EncodeError::Entry { segment, entry: at, why };
        let entry = Entry::parse(bytes.clone()).map_err(|_| bad("does not verify"))?;
        let header = &entry.header;
        if header.segment != segment || header.entry != at || header.seg_epoch != current.facts.seg_epoch {
            return Err(bad("is another entry"));
        }
        if !header.follows(current.chain) || header.base_offset != current.next_offset {
            return Err(bad("does not follow the one before"));
        }
        if at > current.facts.last || header.end_offset() > current.facts.end_offset {
            return Err(bad("lies behind the end of the segment"));
        }
        let len = bytes.len();
        if len > BLOCK_RAW_MAX {
            return Err(bad("is larger than a block may be"));
        }
        if !current.raw.is_empty() && current.raw.len() + len > current.target {
            self.end_block()?;
        }
        let current = self.current.as_mut().expect("a block's end keeps the segment");
        if current.raw.is_empty() {
            current.raw.reserve(current.target.max(len));
            (current.first_entry, current.base_offset, current.max_ts) = (at, header.base_offset, -1);
        }
        current.raw.extend_from_slice(bytes);
        if header.count > 0 {
            current.max_ts = current.max_ts.max(header.max_ts);
        }
        current.chain = header.chain;
        current.next_entry += 1;
        current.next_offset = header.end_offset();
        current.bytes += len as u64;
        Ok(())
    }

    /// The segment is whole. Compares it with what metadata said when it was begun.
    pub fn end(&mut self) -> Result<(), EncodeError> {
        self.end_block()?;
        let current = self.current.take().expect("end comes after begin");
        let facts = current.facts;
        let found = current.next_entry.checked_sub(1);
        if found != Some(facts.last) {
            return Err(EncodeError::Ended { segment: facts.segment, found, last: facts.last });
        }
        if current.chain != facts.digest || current.next_offset != facts.end_offset {
            return Err(EncodeError::Digest(facts.segment));
        }
        let len = self.position - current.begins;
        let facts = SegmentFacts { bytes: current.bytes, ..facts };
        self.done.push((Footer { facts, blocks: current.blocks }, current.begins, len));
        Ok(())
    }

    /// Footers, directory and trailer. Take the rest of the pieces afterwards.
    pub fn finish(&mut self) -> Finished {
        assert!(self.current.is_none() && !self.done.is_empty(), "an object holds whole segments, one or more");
        let mut parts = Vec::with_capacity(self.done.len());
        for (footer, position, len) in std::mem::take(&mut self.done) {
            let bytes = footer.encode(&self.identity, self.position);
            parts.push(Part {
                segment: footer.facts.segment,
                position,
                len,
                footer_position: self.position,
                footer_len: bytes.len() as u32,
                footer_crc: checksum::crc32c(&bytes),
            });
            self.emit(bytes.into());
        }
        let directory = Directory { parts };
        let bytes = directory.encode();
        let trailer = Trailer {
            identity: self.identity,
            len: self.position + bytes.len() as u64 + super::TRAILER_LEN as u64,
            directory_position: self.position,
            directory_len: bytes.len() as u32,
            directory_crc: Directory::crc(&self.identity, &bytes),
        };
        self.emit(bytes.into());
        self.emit(trailer.encode().into());
        assert_eq!(self.position, trailer.len);
        Finished { len: self.position, parts: directory.parts, crc: self.crc }
    }

    fn end_block(&mut self) -> Result<(), EncodeError> {
        let position = self.position;
        let current = self.current.as_mut().expect("blocks belong to a segment");
        if current.raw.is_empty() {
            return Ok(());
        }
        if current.blocks.len() >= BLOCKS_MAX {
            return Err(EncodeError::TooMany);
        }
        let raw = std::mem::take(&mut current.raw).freeze();
        let raw_len = raw.len();
        // Kept only when it saves more than a tenth: reading raw bytes costs nothing.
        let packed = self.compressor.compress(&raw).ok().filter(|packed| packed.len() < raw_len / 10 * 9);
        let (stored, codec) = match packed {
            Some(packed) => (Bytes::from(packed), Codec::Zstd),
            None => (raw, Codec::Raw),
        };
        let number = current.blocks.len() as u32;
        current.blocks.push(BlockInfo {
            first_entry: current.first_entry,
            base_offset: current.base_offset,
            max_ts: current.max_ts,
            position,
            stored: stored.len() as u32,
            raw: raw_len as u32,
            crc: block_crc(&self.identity, current.facts.segment, number, position, &stored),
            codec,
        });
        self.emit(stored);
        Ok(())
    }

    fn emit(&mut self, bytes: Bytes) {
        self.position += bytes.len() as u64;
        self.crc = checksum::crc32c_combine(self.crc, checksum::crc32c(&bytes), bytes.len() as u64);
        self.out.push_back(bytes);
    }
}
