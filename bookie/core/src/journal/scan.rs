//! Reads one file front to back and tells what verifies, piece by piece. It judges nothing: whether a fault is a torn
//! tail or a loss depends on evidence that may lie behind it, so that is [`super::restart`]'s decision.

use bytes::Bytes;
use esker_types::{EntryId, SegmentId};

use super::block::{BlockFault, BlockHead, BlockKind, HEAD_LEN, Item, ItemKind};
use super::files::{FileFormatError, FileHeader, Footer, FooterAt, Hole, Run};
use super::storage::{ReadAt, Window};
use super::{ALIGN, FileId, JournalIds, Lsn};

/// A file as the scan found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileScan {
    pub id: FileId,
    /// Lsn of the file's first byte, as its blocks say; none if not one block verifies.
    pub base: Option<Lsn>,
    /// In order of offset, without overlap; together they cover everything up to where the scan ended.
    pub pieces: Vec<Piece>,
    pub footer: Option<FooterAt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A block whose head verifies.
    Block(BlockFound),
    /// No block begins in this range.
    Hole(Hole),
    /// A hole that is known from an earlier restart.
    KnownHole(Hole),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFound {
    pub kind: BlockKind,
    pub offset: u64,
    pub len: u64,
    pub lsn: Lsn,
    pub durable_upto: Lsn,
    /// Follows the block before it, as far as that can be known.
    pub linked: bool,
    /// Payload verifies. A block that is whole and linked may be part of the contiguous prefix.
    pub whole: bool,
    /// Entries that verify, each by its own CRC, also when the payload as a whole does not.
    pub runs: Vec<(SegmentId, Run)>,
    /// Entries that the head names and whose bytes do not verify.
    pub damaged: Vec<(SegmentId, EntryId)>,
    /// Records that live in the head alone.
    pub controls: Vec<Item>,
}

impl Piece {
    pub fn range(&self) -> Hole {
        match self {
            Piece::Block(block) => Hole { from: block.offset, to: block.offset + block.len },
            Piece::Hole(hole) | Piece::KnownHole(hole) => *hole,
        }
    }
}

/// How far to read, and what need not be looked at again.
#[derive(Clone, Debug, Default)]
pub struct ScanLimits {
    /// Bytes of the file that count, if that is known.
    pub valid_len: Option<u64>,
    pub holes: Vec<Hole>,
}

/// Scans `file` from its first byte. Never fails: what can't be read is a hole.
pub fn scan_file<S: ReadAt + ?Sized>(
    storage: &S,
    ids: JournalIds,
    file: FileId,
    file_len: u64,
    limits: &ScanLimits,
) -> FileScan {
    let end = limits.valid_len.unwrap_or(file_len);
    let mut scan = Scanner {
        window: Window::new(storage, file, file_len),
        ids,
        out: FileScan { id: file, base: None, pieces: Vec::new(), footer: None },
        prev_crc: Some(0),
        hole_from: None,
    };
    let mut at = 0;
    while at < end {
        if let Some(hole) = limits.holes.iter().find(|hole| hole.from <= at && at < hole.to) {
            scan.close_hole(at);
            scan.out.pieces.push(Piece::KnownHole(Hole { from: at, to: hole.to }));
            scan.prev_crc = None;
            at = hole.to;
            continue;
        }
        at = match scan.block_at(at, end) {
            Some(next) => next,
            None => {
                scan.hole_from.get_or_insert(at);
                scan.prev_crc = None;
                at + ALIGN
            }
        };
        if scan.out.footer.is_some() {
            break;
        }
    }
    scan.close_hole(at.min(end));
    scan.out
}

struct Scanner<'a, S: ?Sized> {
    window: Window<'a, S>,
    ids: JournalIds,
    out: FileScan,
    /// What the next block's `prev_crc` must be; none behind a hole.
    prev_crc: Option<u32>,
    hole_from: Option<u64>,
}

impl<S: ReadAt + ?Sized> Scanner<'_, S> {
    fn close_hole(&mut self, to: u64) {
        if let Some(from) = self.hole_from.take() {
            self.out.pieces.push(Piece::Hole(Hole { from, to }));
        }
    }

    /// Takes the block at `at` and returns where it ends, or none if no block begins there.
    fn block_at(&mut self, at: u64, end: u64) -> Option<u64> {
        let (len, head_len) = BlockHead::peek(&self.window.get(at, HEAD_LEN)?).ok()?;
        let head = BlockHead::decode(&self.window.get(at, head_len)?, self.ids, self.out.id, at).ok()?;
        let base = Lsn(head.lsn.0 - at); // decode() refuses an lsn below the offset
        let fits = at + len <= end && (head.kind == BlockKind::Header) == (at == 0);
        if !fits || self.out.base.is_some_and(|known| known != base) {
            return None;
        }
        let payload = self.window.get(at + head.head_len() as u64, head.payload_len as usize);
        let whole = payload.as_ref().is_some_and(|payload| head.payload_verifies(payload));
        self.close_hole(at);
        self.out.base = Some(base);
        let linked = self.prev_crc.is_none_or(|crc| crc == head.prev_crc);
        self.prev_crc = Some(head.head_crc);
        if head.kind == BlockKind::Footer {
            self.out.footer = Some(FooterAt { offset: at, len: len as u32 });
        }
        let found = found(&head, &payload.unwrap_or_default(), linked, whole);
        self.out.pieces.push(Piece::Block(found));
        Some(at + len)
    }
}

fn found(head: &BlockHead, payload: &Bytes, linked: bool, whole: bool) -> BlockFound {
    let mut block = BlockFound {
        kind: head.kind,
        offset: head.offset,
        len: head.len(),
        lsn: head.lsn,
        durable_upto: head.durable_upto,
        linked,
        whole,
        runs: Vec::new(),
        damaged: Vec::new(),
        controls: head.items.iter().filter(|item| item.kind != ItemKind::Entry).copied().collect(),
    };
    let mut take = |item: &Item| {
        let run = match block.runs.iter_mut().rev().take(64).find(|(segment, _)| *segment == item.segment) {
            Some((_, run)) if run.end() == item.value => run,
            _ => {
                let run = Run {
                    first: item.value,
                    count: 0,
                    file: head.file.seq,
                    offset: head.offset,
                    block_len: block.len as u32,
                    bytes: 0,
                };
                block.runs.push((item.segment, run));
                match block.runs.last_mut() {
                    Some((_, run)) => run,
                    None => return,
                }
            }
        };
        run.count += 1;
        run.bytes = run.bytes.saturating_add(item.len);
    };
    if whole {
        head.items.iter().filter(|item| item.kind == ItemKind::Entry).for_each(take);
    } else {
        for (item, bytes) in head.entries(payload) {
            match bytes {
                Some(_) => take(item),
                None => block.damaged.push((item.segment, item.value)),
            }
        }
    }
    block
}

/// The format of a file that a newer version of the program wrote, if there is one: then this version must not start,
/// since it would take what it can't read for damage.
pub fn newer_format<S: ReadAt + ?Sized>(storage: &S, ids: JournalIds) -> Option<u32> {
    storage.files().into_iter().find_map(|(file, file_len)| {
        let first = storage.read_at(file, 0, HEAD_LEN).ok()?;
        if let Err(BlockFault::Version(version)) = BlockHead::peek(&first) {
            // Only a version beside our own cluster's name is news; anything else is garbage.
            return (first.get(8..24) == Some(&ids.cluster.0[..])).then_some(version.into());
        }
        let (_, payload) = read_whole(storage, ids, file, file_len, 0)?;
        match FileHeader::decode(&payload) {
            Err(FileFormatError::Newer { found }) => Some(found),
            _ => None,
        }
    })
}

/// The header of `file`, if its first block verifies whole.
pub fn read_header<S: ReadAt>(storage: &S, ids: JournalIds, file: FileId, file_len: u64) -> Option<(Lsn, FileHeader)> {
    let (head, payload) = read_whole(storage, ids, file, file_len, 0)?;
    let header = FileHeader::decode(&payload).ok()?;
    (head.kind == BlockKind::Header).then_some((head.lsn, header))
}

/// The index of a full file, from its footer, or put together from its blocks if the footer does not verify: a damaged
/// index is no damaged entry. None if neither can be read.
pub fn read_footer<S: ReadAt + ?Sized>(storage: &S, ids: JournalIds, file: FileId, at: FooterAt) -> Option<Footer> {
    footer_block(storage, ids, file, at).or_else(|| {
        let limits = ScanLimits { valid_len: Some(at.offset), holes: Vec::new() };
        let scan = scan_file(storage, ids, file, at.offset, &limits);
        let mut footer = Footer::default();
        for piece in scan.pieces {
            let Piece::Block(block) = piece else { continue };
            for (segment, run) in block.runs {
                footer.segments.entry(segment).or_default().push(run);
            }
        }
        (!footer.segments.is_empty()).then_some(footer)
    })
}

/// The footer of `file` at a place that a later file's header tells, if it verifies whole.
pub(super) fn footer_block<S: ReadAt + ?Sized>(
    storage: &S,
    ids: JournalIds,
    file: FileId,
    at: FooterAt,
) -> Option<Footer> {
    let file_len = at.offset.checked_add(at.len.into())?;
    let (head, payload) = read_whole(storage, ids, file, file_len, at.offset)?;
    let footer = Footer::decode(&payload, file.seq).ok()?;
    (head.kind == BlockKind::Footer).then_some(footer)
}

fn read_whole<S: ReadAt + ?Sized>(
    storage: &S,
    ids: JournalIds,
    file: FileId,
    file_len: u64,
    offset: u64,
) -> Option<(BlockHead, Bytes)> {
    let read = |len: usize| -> Option<Bytes> {
        let fits = offset.checked_add(len as u64)? <= file_len;
        let bytes = if fits { storage.read_at(file, offset, len).ok()? } else { return None };
        (bytes.len() == len).then_some(bytes)
    };
    let (len, _) = BlockHead::peek(&read(ALIGN as usize)?).ok()?;
    let block = read(len as usize)?;
    let head = BlockHead::decode(&block, ids, file, offset).ok()?;
    let payload = head.payload(&block)?;
    head.payload_verifies(&payload).then_some((head, payload))
}
