//! Reads a whole object back and proves that it holds the segments that it should, entry for entry.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use esker_metadata_core::ObjectPlace;
use esker_types::entry::CHAIN_START;
use esker_types::{Entry, EntryId, Offset, SegmentId, checksum};

use super::{Directory, Footer, HEAD_LEN, Identity, Part, SegmentFacts, Trailer, decode_block, parse_head};
use crate::error::FormatError;

/// The object may not stand for its segments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("segment {segment}, entry {entry}: {why}")]
    Entry { segment: SegmentId, entry: EntryId, why: &'static str },
    #[error("segment {0} is not the one that metadata closed")]
    Segment(SegmentId),
    #[error("the object ends early: {have} bytes of {need}")]
    Short { have: u64, need: u64 },
    #[error("the object is of another cluster or has another name")]
    Foreign,
    /// Said by whoever looks at the entries.
    #[error("segment {segment}, entry {entry}: {why}")]
    Content { segment: SegmentId, entry: EntryId, why: String },
}

/// Looks at each entry after it was verified.
pub type Each<'a> = &'a mut dyn FnMut(&Entry) -> Result<(), VerifyError>;

/// Takes the bytes of an object from its first one on, in pieces of any size, and holds at most one block of them.
///
/// Begin with [`Verifier::new`], from the object's trailer, directory and footers; the bytes before the first footer
/// are then all that needs to be read again.
pub struct Verifier {
    identity: Identity,
    /// What is still to come, in order.
    footers: VecDeque<Footer>,
    /// Byte of the object that comes next.
    position: u64,
    end: u64,
    buffer: BytesMut,
    head_seen: bool,
    block: usize,
    chain: u64,
    next_entry: EntryId,
    next_offset: Offset,
    max_ts: i64,
}

impl Verifier {
    /// `footers` are the object's, in the order of `directory`, each with its bytes. `expected` are the segments that
    /// metadata closed: digest, end and last entry must be theirs. Empty: whatever is in it is checked against itself.
    pub fn new(
        trailer: &Trailer,
        directory: &Directory,
        footers: Vec<Footer>,
        expected: &[SegmentFacts],
    ) -> Result<Self, VerifyError> {
        let fits = directory.parts.len() == footers.len()
            && directory.parts.iter().zip(&footers).all(|(part, footer)| fits(part, footer));
        if !fits {
            return Ok(FormatError::damaged("object directory", "it does not fit the footers")?);
        }
        if !expected.is_empty() && expected.len() != footers.len() {
            return Err(VerifyError::Segment(expected[0].segment));
        }
        for (facts, footer) in expected.iter().zip(&footers) {
            is_segment(facts, footer)?;
        }
        let end = directory.parts.last().map_or(HEAD_LEN as u64, |part| part.position + part.len);
        Ok(Self::begin(trailer.identity, footers, 0, end))
    }

    /// For one segment of an object. Push the bytes from [`Part::position`] on: the head is not among them.
    pub fn segment(identity: Identity, part: &Part, footer: Footer) -> Result<Self, VerifyError> {
        if !fits(part, &footer) {
            return Ok(FormatError::damaged("object directory", "it does not fit the footers")?);
        }
        let verifier = Self::begin(identity, vec![footer], part.position, part.position + part.len);
        Ok(Self { head_seen: true, ..verifier })
    }

    /// For the segment that metadata closed, at `place` of an object that holds others too. Push the bytes from
    /// `place.position` on; the others are not read.
    pub fn place(
        trailer: &Trailer,
        directory: &Directory,
        place: &ObjectPlace,
        footer: Footer,
        expected: &SegmentFacts,
    ) -> Result<Self, VerifyError> {
        is_segment(expected, &footer)?;
        let named = |part: &&Part| part.segment == expected.segment && part.place(place.key, trailer.len) == *place;
        let Some(part) = directory.parts.iter().find(named) else {
            return Ok(FormatError::damaged("object directory", "the segment is not where it should be")?);
        };
        Self::segment(trailer.identity, part, footer)
    }

    fn begin(identity: Identity, footers: Vec<Footer>, position: u64, end: u64) -> Self {
        let mut verifier = Self {
            identity,
            footers: footers.into(),
            position,
            end,
            buffer: BytesMut::new(),
            head_seen: false,
            block: 0,
            chain: CHAIN_START,
            next_entry: 0,
            next_offset: 0,
            max_ts: -1,
        };
        verifier.begin_segment();
        verifier
    }

    /// First byte behind the last block: nothing from there on needs to be pushed.
    pub fn needs_up_to(&self) -> u64 {
        self.end
    }

    pub fn push(&mut self, chunk: Bytes) -> Result<(), VerifyError> {
        self.push_each(chunk, &mut |_| Ok(()))
    }

    /// As [`Verifier::push`], showing each entry; its block may still turn out to disagree with the index.
    pub fn push_each(&mut self, mut chunk: Bytes, each: Each<'_>) -> Result<(), VerifyError> {
        while !chunk.is_empty() && self.position + (self.buffer.len() as u64) < self.end {
            let want = self.piece_len();
            let missing = (want - self.buffer.len()).min(chunk.len());
            if self.buffer.is_empty() && missing == want {
                let piece = chunk.split_to(want);
                self.piece(piece, each)?;
                continue;
            }
            self.buffer.extend_from_slice(&chunk[..missing]);
            chunk.advance(missing);
            if self.buffer.len() == want {
                let piece = std::mem::take(&mut self.buffer).freeze();
                self.piece(piece, each)?;
            }
        }
        Ok(())
    }

    /// True proof: every entry of every segment was seen.
    pub fn finish(self) -> Result<(), VerifyError> {
        let have = self.position + self.buffer.len() as u64;
        if have != self.end || !self.footers.is_empty() {
            return Err(VerifyError::Short { have, need: self.end });
        }
        Ok(())
    }

    /// Bytes of the head, or of the block that comes next.
    fn piece_len(&self) -> usize {
        match (self.head_seen, self.footers.front()) {
            (true, Some(footer)) => footer.blocks[self.block].stored as usize,
            _ => HEAD_LEN,
        }
    }

    fn piece(&mut self, piece: Bytes, each: Each<'_>) -> Result<(), VerifyError> {
        self.position += piece.len() as u64;
        if !self.head_seen {
            self.head_seen = true;
            return if parse_head(&piece)? == self.identity { Ok(()) } else { Err(VerifyError::Foreign) };
        }
        let Some(footer) = self.footers.front() else { return Err(VerifyError::Foreign) };
        let (segment, number) = (footer.facts.segment, self.block);
        let info = footer.blocks[number];
        let block = decode_block(&self.identity, segment, number as u32, &info, &piece)?;
        let bad = |entry, why| Err(VerifyError::Entry { segment, entry, why });
        if (info.first_entry, info.base_offset) != (self.next_entry, self.next_offset) {
            return bad(info.first_entry, "the block does not follow the one before");
        }
        let mut max_ts = -1;
        for entry in block.entries() {
            let entry = entry?;
            max_ts = max_ts.max(self.entry(segment, &entry)?);
            each(&entry)?;
        }
        if max_ts != info.max_ts {
            return bad(info.first_entry, "the index has another largest timestamp");
        }
        self.max_ts = self.max_ts.max(max_ts);
        self.block += 1;
        let footer = self.footers.front().expect("looked at above");
        if self.block == footer.blocks.len() {
            let facts = footer.facts;
            let whole = self.next_entry.checked_sub(1) == Some(facts.last)
                && self.chain == facts.digest
                && self.next_offset == facts.end_offset;
            if !whole {
                return Err(VerifyError::Segment(segment));
            }
            self.footers.pop_front();
            self.begin_segment();
        }
        Ok(())
    }

    /// Checks one entry and gives its largest timestamp.
    fn entry(&mut self, segment: SegmentId, entry: &Entry) -> Result<i64, VerifyError> {
        let header = &entry.header;
        let bad = |why| Err(VerifyError::Entry { segment, entry: header.entry, why });
        if checksum::crc32c(&entry.payload()) != header.payload_crc {
            return bad("its payload does not verify");
        }
        if header.entry != self.next_entry || !header.follows(self.chain) || header.base_offset != self.next_offset {
            return bad("it does not follow the one before");
        }
        self.chain = header.chain;
        self.next_entry += 1;
        self.next_offset = header.end_offset();
        Ok(if header.count > 0 { header.max_ts } else { -1 })
    }

    fn begin_segment(&mut self) {
        (self.block, self.chain, self.next_entry, self.max_ts) = (0, CHAIN_START, 0, -1);
        self.next_offset = self.footers.front().map_or(0, |footer| footer.facts.base_offset);
    }
}

fn is_segment(facts: &SegmentFacts, footer: &Footer) -> Result<(), VerifyError> {
    let found = &footer.facts;
    let same = (found.segment, found.seg_epoch, found.last, found.digest)
        == (facts.segment, facts.seg_epoch, facts.last, facts.digest)
        && (found.base_offset, found.end_offset) == (facts.base_offset, facts.end_offset);
    if same { Ok(()) } else { Err(VerifyError::Segment(facts.segment)) }
}

fn fits(part: &Part, footer: &Footer) -> bool {
    let (first, last) = (&footer.blocks[0], &footer.blocks[footer.blocks.len() - 1]);
    let end = last.position + u64::from(last.stored);
    part.segment == footer.facts.segment && part.position == first.position && part.position + part.len == end
}
