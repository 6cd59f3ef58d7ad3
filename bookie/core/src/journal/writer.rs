//! Turns queued records into blocks, and completed writes into "durable up to here".

use std::collections::VecDeque;

use bytes::Bytes;
use esker_types::{SegmentId, checksum};

use super::block::{BLOCK_BYTES_MAX, BlockHead, BlockKind, BlockWrite, ITEMS_MAX, Item, ItemKind};
use super::files::{Footer, Run};
use super::{FileId, JournalIds, Lsn, Queued};

/// What the completion of writes has made durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// All records up to this one, inclusive.
    pub seq: u64,
    /// Exclusive.
    pub lsn: Lsn,
    /// Where the entries among them lie, in order.
    pub runs: Vec<(SegmentId, Run)>,
    /// The records that are not entries, each with the lsn of its block.
    pub controls: Vec<(Item, Lsn)>,
    /// Files whose header block is durable now.
    pub started: Vec<FileId>,
    /// The file whose footer is durable now, with the footer's place.
    pub closed: Option<(FileId, u64, u32)>,
}

/// The end of the journal. One at a time; a new one for each run of the process.
#[derive(Debug)]
pub struct Writer {
    ids: JournalIds,
    file: FileId,
    base: Lsn,
    /// Where the next block goes.
    offset: u64,
    prev_crc: u32,
    /// Exclusive end of the contiguous prefix of completed writes.
    durable: Lsn,
    /// `durable_upto` of the last block handed out: an epilogue is due while it is below `durable`.
    announced: Lsn,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    lsn: Lsn,
    end: Lsn,
    last_seq: u64,
    payload: usize,
    done: bool,
    effect: Durable,
}

impl Writer {
    /// Nothing can be written before the first [`Writer::begin_file`]. `durable` is where the journal ended.
    pub fn new(ids: JournalIds, durable: Lsn) -> Self {
        Self {
            ids,
            file: FileId { seq: 0, uuid: [0; 16] },
            base: durable,
            offset: 0,
            prev_crc: 0,
            durable,
            announced: durable,
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    pub fn file(&self) -> FileId {
        self.file
    }

    /// Base lsn of the current file.
    pub fn base(&self) -> Lsn {
        self.base
    }

    /// Base of the next file, if it began now. All that is queued will lie behind it.
    pub fn next_base(&self) -> Lsn {
        Lsn(super::align_up(self.base.0 + self.offset))
    }

    /// Bytes of the current file that are handed out.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Entry bytes that wait here or at the disk.
    pub fn pending_bytes(&self) -> usize {
        self.queued_bytes + self.in_flight_bytes
    }

    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub fn push(&mut self, queued: Queued) {
        self.queued_bytes += queued.record.payload_len();
        self.queue.push_back(queued);
    }

    /// The first block of a new file; later blocks go behind it. The file before must be quiet.
    pub fn begin_file(&mut self, file: FileId, header: &[u8]) -> BlockWrite {
        assert!(self.is_quiet(), "a file begins only when the one before is complete");
        self.base = self.next_base();
        (self.file, self.offset, self.prev_crc) = (file, 0, 0);
        let effect = Durable { started: vec![file], ..Durable::default() };
        self.block(BlockKind::Header, Vec::new(), checksum::crc32c(header), vec![copied(header)], 0, effect)
    }

    /// The last block of the current file.
    pub fn end_file(&mut self, footer: &Footer) -> BlockWrite {
        assert!(self.is_quiet(), "a file ends only when its blocks are complete: the footer lists them all");
        let payload = footer.encode();
        let head_len = super::block::HEAD_LEN;
        let len = super::align_up((head_len + payload.len()) as u64) as u32;
        let effect = Durable { closed: Some((self.file, self.offset, len)), ..Durable::default() };
        self.block(BlockKind::Footer, Vec::new(), checksum::crc32c(&payload), vec![copied(&payload)], 0, effect)
    }

    /// Queued records as one group, at most `bytes_max` of payload unless the first alone is larger. None if nothing
    /// waits. The payload is not read: its CRC is put together from those of the entries.
    pub fn group(&mut self, bytes_max: usize) -> Option<BlockWrite> {
        let limit = bytes_max.min(GROUP_PAYLOAD_MAX);
        let (mut items, mut slices, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut crc, mut last_seq) = (0usize, 0u32, 0u64);
        while let Some(next) = self.queue.front() {
            let len = next.record.payload_len();
            if items.len() == ITEMS_MAX || (!items.is_empty() && bytes + len > limit) {
                break;
            }
            let Some(queued) = self.queue.pop_front() else { break };
            let item = Item::of(&queued.record);
            if let super::Record::Entry { bytes: slice, .. } = queued.record {
                crc = checksum::crc32c_combine(crc, item.crc, len as u64);
                add_run(&mut runs, &item, self.file.seq, self.offset);
                slices.push(slice);
            }
            bytes += len;
            last_seq = queued.seq;
            items.push(item);
        }
        if items.is_empty() {
            return None;
        }
        self.queued_bytes -= bytes;
        let lsn = self.next_lsn();
        let controls = items.iter().filter(|item| item.kind != ItemKind::Entry).map(|item| (*item, lsn)).collect();
        let effect = Durable { runs, controls, ..Durable::default() };
        let crc = if bytes == 0 { checksum::crc32c(&[]) } else { crc };
        Some(self.block(BlockKind::Group, items, crc, slices, last_seq, effect))
    }

    /// A block without records that tells a later restart how far the journal was durable. None unless all is written
    /// and the last block did not know it.
    pub fn epilogue(&mut self) -> Option<BlockWrite> {
        let due = self.is_quiet() && !self.has_queued() && self.file.seq > 0 && self.announced < self.durable;
        due.then(|| {
            let block =
                self.block(BlockKind::Group, Vec::new(), checksum::crc32c(&[]), Vec::new(), 0, Durable::default());
            // The epilogue's own durability need not be told by another one.
            self.announced = Lsn(u64::MAX);
            block
        })
    }

    /// The write of the block at `lsn` is complete and fsynced. Writes may complete in any order; the answer speaks
    /// for those without a hole before them. None if nothing moved.
    pub fn completed(&mut self, lsn: Lsn) -> Option<Durable> {
        self.in_flight.iter_mut().filter(|block| block.lsn == lsn).for_each(|block| block.done = true);
        let mut all = Durable::default();
        while self.in_flight.front().is_some_and(|block| block.done) {
            let Some(block) = self.in_flight.pop_front() else { break };
            self.in_flight_bytes -= block.payload;
            self.durable = block.end;
            all.lsn = block.end;
            all.seq = all.seq.max(block.last_seq);
            all.runs.extend(block.effect.runs);
            all.controls.extend(block.effect.controls);
            all.started.extend(block.effect.started);
            all.closed = block.effect.closed.or(all.closed);
        }
        (all.lsn > Lsn(0)).then_some(all)
    }

    fn next_lsn(&self) -> Lsn {
        Lsn(self.base.0 + self.offset)
    }

    fn block(
        &mut self,
        kind: BlockKind,
        items: Vec<Item>,
        payload_crc: u32,
        payload: Vec<Bytes>,
        last_seq: u64,
        mut effect: Durable,
    ) -> BlockWrite {
        let payload_len: usize = payload.iter().map(Bytes::len).sum();
        let head = BlockHead {
            kind,
            ids: self.ids,
            file: self.file,
            offset: self.offset,
            lsn: self.next_lsn(),
            durable_upto: self.durable,
            prev_crc: self.prev_crc,
            payload_len: u32::try_from(payload_len).expect("a block's payload is bounded"),
            payload_crc,
            items,
            head_crc: 0,
        };
        let write = BlockWrite::new(head, payload);
        let block_len = write.head.len() as u32;
        effect.runs.iter_mut().for_each(|(_, run)| run.block_len = block_len);
        self.announced = self.durable;
        self.prev_crc = write.head.head_crc;
        self.offset = write.head.end();
        self.in_flight_bytes += payload_len;
        self.in_flight.push_back(InFlight {
            lsn: write.head.lsn,
            end: write.head.end_lsn(),
            last_seq,
            payload: payload_len,
            done: false,
            effect,
        });
        write
    }
}

/// Largest payload of a group, whatever is asked for.
const GROUP_PAYLOAD_MAX: usize = (BLOCK_BYTES_MAX / 2) as usize;

fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn add_run(runs: &mut Vec<(SegmentId, Run)>, item: &Item, file: u64, offset: u64) {
    // Few segments per group are the rule; the last run of the same segment is near the end.
    let last = runs.iter_mut().rev().take(64).find(|(segment, _)| *segment == item.segment);
    match last {
        Some((_, run)) if run.end() == item.value => {
            run.count += 1;
            run.bytes += item.len;
        }
        _ => {
            let run = Run { first: item.value, count: 1, file, offset, block_len: 0, bytes: item.len };
            runs.push((item.segment, run));
        }
    }
}
