//! What a journal file says of itself and of the others: the header that each file begins with, and the footer that
//! a full one ends with.

use std::collections::BTreeMap;

use esker_types::{EntryId, Epoch, PartitionId, SegmentId};
use prost::Message;

use super::{ALIGN, FileId, Lsn};

/// Consecutive entries of one segment in one block. With the block's place it finds any of them in one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: EntryId,
    pub count: u32,
    /// Seq of the file.
    pub file: u64,
    /// Where the block begins in the file, and its length.
    pub offset: u64,
    pub block_len: u32,
    /// Sum of the entries' lengths.
    pub bytes: u32,
}

impl Run {
    /// Behind the last entry, exclusive.
    pub fn end(&self) -> EntryId {
        self.first.saturating_add(self.count.into())
    }

    pub fn contains(&self, entry: EntryId) -> bool {
        entry >= self.first && entry < self.end()
    }
}

/// A file that still counts, as the newest file's header lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedFile {
    pub id: FileId,
    pub base: Lsn,
    /// Bytes of the file that count, footer included. What lies behind is garbage of an earlier life or a cut tail.
    pub valid_len: u64,
    /// Where the footer block is; none if the process ended before the file was full.
    pub footer: Option<FooterAt>,
    /// Ranges that an earlier restart found damaged beyond recognition and has put into limbo already.
    pub holes: Vec<Hole>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterAt {
    pub offset: u64,
    pub len: u32,
}

/// [from, to) in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub from: u64,
    pub to: u64,
}

/// Payload of a file's first block: all that must outlive the files in which it was first written (I8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHeader {
    /// The LiveSet: every older file that still counts, oldest first. The file itself is not in it.
    pub retained: Vec<RetainedFile>,
    pub max_epoch: BTreeMap<PartitionId, Epoch>,
    /// Segments of which the bookie may have held more than it knows.
    pub limbo: Vec<SegmentId>,
    /// Entries of the segment below this lsn do not count: the copy was dropped.
    pub tombstones: BTreeMap<SegmentId, Lsn>,
}

/// Payload of a full file's last block: where each segment's entries are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// Runs in the order in which they lie in the file.
    pub segments: BTreeMap<SegmentId, Vec<Run>>,
}

/// Bytes verified against their checksum and yet do not parse: written by a newer version, or a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileFormatError {
    #[error("journal file format {found} is newer than this program's {FORMAT}: start the newer version")]
    Newer { found: u32 },
    #[error("the record does not parse: {0}")]
    Parse(#[from] prost::DecodeError),
    #[error("the record's {0} makes no sense")]
    Nonsense(&'static str),
}

/// Version of header and footer payloads.
pub const FORMAT: u32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderMessage {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(message, repeated, tag = "2")]
    retained: Vec<RetainedMessage>,
    /// Partition, epoch, in turn.
    #[prost(uint64, repeated, tag = "3")]
    max_epoch: Vec<u64>,
    /// Partition, n, in turn.
    #[prost(uint64, repeated, tag = "4")]
    limbo: Vec<u64>,
    /// Partition, n, lsn, in turn.
    #[prost(uint64, repeated, tag = "5")]
    tombstones: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetainedMessage {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    uuid: Vec<u8>,
    #[prost(uint64, tag = "3")]
    base: u64,
    #[prost(uint64, tag = "4")]
    valid_len: u64,
    #[prost(uint64, tag = "5")]
    footer_offset: u64,
    /// 0 = no footer.
    #[prost(uint32, tag = "6")]
    footer_len: u32,
    /// From, to, in turn.
    #[prost(uint64, repeated, tag = "7")]
    holes: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FooterMessage {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(message, repeated, tag = "2")]
    segments: Vec<FooterSegmentMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FooterSegmentMessage {
    #[prost(uint64, tag = "1")]
    partition: u64,
    #[prost(uint64, tag = "2")]
    n: u64,
    /// First entry, count, block offset / 4096, block length / 4096, bytes, in turn.
    #[prost(uint64, repeated, tag = "3")]
    runs: Vec<u64>,
}

impl FileHeader {
    pub fn encode(&self) -> Vec<u8> {
        let retained = |file: &RetainedFile| RetainedMessage {
            seq: file.id.seq,
            uuid: file.id.uuid.to_vec(),
            base: file.base.0,
            valid_len: file.valid_len,
            footer_offset: file.footer.map_or(0, |footer| footer.offset),
            footer_len: file.footer.map_or(0, |footer| footer.len),
            holes: file.holes.iter().flat_map(|hole| [hole.from, hole.to]).collect(),
        };
        let message = HeaderMessage {
            format: FORMAT,
            retained: self.retained.iter().map(retained).collect(),
            max_epoch: self.max_epoch.iter().flat_map(|(p, epoch)| [p.0, epoch.0.into()]).collect(),
            limbo: self.limbo.iter().flat_map(|s| [s.partition.0, s.n]).collect(),
            tombstones: self.tombstones.iter().flat_map(|(s, lsn)| [s.partition.0, s.n, lsn.0]).collect(),
        };
        message.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FileFormatError> {
        let message = HeaderMessage::decode(bytes)?;
        check_format(message.format)?;
        let mut header = Self::default();
        for file in &message.retained {
            header.retained.push(retained_from(file)?);
        }
        for [partition, epoch] in groups(&message.max_epoch, "epoch table")? {
            let epoch = u32::try_from(epoch).map_err(|_| FileFormatError::Nonsense("epoch"))?;
            header.max_epoch.insert(PartitionId(partition), Epoch(epoch));
        }
        for [partition, n] in groups(&message.limbo, "limbo list")? {
            header.limbo.push(SegmentId::new(partition, n));
        }
        for [partition, n, lsn] in groups(&message.tombstones, "tombstones")? {
            header.tombstones.insert(SegmentId::new(partition, n), Lsn(lsn));
        }
        Ok(header)
    }
}

fn retained_from(file: &RetainedMessage) -> Result<RetainedFile, FileFormatError> {
    let uuid = file.uuid.as_slice().try_into().map_err(|_| FileFormatError::Nonsense("file uuid"))?;
    let holes: Vec<Hole> = groups(&file.holes, "holes")?.map(|[from, to]| Hole { from, to }).collect();
    let aligned = |at: u64| at.is_multiple_of(ALIGN);
    let holes_fit = holes.iter().all(|hole| hole.from < hole.to && aligned(hole.from) && aligned(hole.to));
    let footer = (file.footer_len > 0).then_some(FooterAt { offset: file.footer_offset, len: file.footer_len });
    if !aligned(file.valid_len) || !aligned(file.footer_offset) || !holes_fit {
        return Err(FileFormatError::Nonsense("list of files"));
    }
    let id = FileId { seq: file.seq, uuid };
    Ok(RetainedFile { id, base: Lsn(file.base), valid_len: file.valid_len, footer, holes })
}

impl Footer {
    pub fn encode(&self) -> Vec<u8> {
        let segment = |(id, runs): (&SegmentId, &Vec<Run>)| {
            let run = |run: &Run| {
                let (block, blocks) = (run.offset / ALIGN, u64::from(run.block_len) / ALIGN);
                [run.first, run.count.into(), block, blocks, run.bytes.into()]
            };
            let runs = runs.iter().flat_map(run).collect();
            FooterSegmentMessage { partition: id.partition.0, n: id.n, runs }
        };
        FooterMessage { format: FORMAT, segments: self.segments.iter().map(segment).collect() }.encode_to_vec()
    }

    /// `file` is the seq of the file that the footer ends.
    pub fn decode(bytes: &[u8], file: u64) -> Result<Self, FileFormatError> {
        let message = FooterMessage::decode(bytes)?;
        check_format(message.format)?;
        let mut footer = Self::default();
        for segment in &message.segments {
            let mut runs = Vec::new();
            for [first, count, block, blocks, bytes] in groups(&segment.runs, "runs")? {
                let narrow = |value: u64| u32::try_from(value).map_err(|_| FileFormatError::Nonsense("run"));
                let offset = block.checked_mul(ALIGN).ok_or(FileFormatError::Nonsense("run"))?;
                let block_len = narrow(blocks.saturating_mul(ALIGN))?;
                runs.push(Run { first, count: narrow(count)?, file, offset, block_len, bytes: narrow(bytes)? });
            }
            footer.segments.insert(SegmentId::new(segment.partition, segment.n), runs);
        }
        Ok(footer)
    }
}

fn check_format(found: u32) -> Result<(), FileFormatError> {
    match found {
        FORMAT => Ok(()),
        0 => Err(FileFormatError::Nonsense("format")),
        found => Err(FileFormatError::Newer { found }),
    }
}

/// Cuts a flat list into groups of `N`.
fn groups<'a, const N: usize>(
    flat: &'a [u64],
    what: &'static str,
) -> Result<impl Iterator<Item = [u64; N]> + 'a, FileFormatError> {
    let (chunks, rest) = flat.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(FileFormatError::Nonsense(what));
    }
    Ok(chunks.iter().copied())
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
