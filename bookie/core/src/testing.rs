//! A disk in memory and a driver for one bookie, for this crate's own tests. The simulator has a far meaner disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use esker_types::{
    ClusterId, Entry, EntryHeader, EntryKind, Epoch, InstanceId, PartitionId, Rules, SegmentId, checksum, entry,
};

use crate::bookie::{Action, BookieState, BootFacts, ConnId, Limits, ReadPlan, Ticket};
use crate::journal::block::BlockWrite;
use crate::journal::restart::{Evidence, Restored, restart};
use crate::journal::storage::{ReadAt, ReadFault};
use crate::journal::{FileId, JournalIds};
use crate::wire::{Add, AddStatus, AddStatusKind, FenceItem, FenceRequest, FenceResult, Read, ReadResponse};

pub const IDS: JournalIds = JournalIds { cluster: ClusterId([0xc1; 16]), instance: InstanceId([0x1a; 16]) };
pub const CONN: ConnId = ConnId(1);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemDisk {
    pub files: BTreeMap<FileId, Vec<u8>>,
}

impl MemDisk {
    pub fn write(&mut self, write: &BlockWrite) {
        let file = self.files.entry(write.file()).or_default();
        let (from, to) = (write.offset() as usize, write.offset() as usize + write.len());
        if file.len() < to {
            file.resize(to, 0);
        }
        write.copy_to(&mut file[from..to]);
    }
}

impl ReadAt for MemDisk {
    fn files(&self) -> Vec<(FileId, u64)> {
        self.files.iter().map(|(id, bytes)| (*id, bytes.len() as u64)).collect()
    }

    fn read_at(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, ReadFault> {
        let fault = |reason: &str| ReadFault { file, offset, len, reason: reason.into() };
        let bytes = self.files.get(&file).ok_or_else(|| fault("no such file"))?;
        let from = (offset as usize).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[from..(from + len).min(bytes.len())]))
    }
}

/// A bookie on a disk that completes every write at once, unless it is told to hold them back.
#[derive(Debug)]
pub struct Node<R: Rules> {
    pub disk: MemDisk,
    pub state: BookieState<R>,
    pub statuses: Vec<(ConnId, AddStatus)>,
    pub fenced: Vec<(Ticket, Vec<FenceResult>)>,
    pub started: Vec<FileId>,
    pub unlinked: Vec<FileId>,
    /// Offer files as they are wanted.
    pub offers: bool,
    /// Bytes (0xee) that a fresh file is filled with, as if recycled.
    pub prefill: usize,
}

impl<R: Rules> Node<R> {
    pub fn fresh(limits: Limits) -> Self {
        Self::boot(MemDisk::default(), limits, BootFacts::default(), &Evidence::default()).0
    }

    pub fn boot(disk: MemDisk, limits: Limits, facts: BootFacts, evidence: &Evidence) -> (Self, Restored) {
        let restored = restart::<R, _>(IDS, &disk, evidence);
        let state = BookieState::boot(IDS, limits, restored.clone(), facts);
        let (statuses, fenced, started, unlinked) = Default::default();
        let mut node = Self { disk, state, statuses, fenced, started, unlinked, offers: true, prefill: 0 };
        node.pump();
        assert!(node.state.is_open());
        (node, restored)
    }

    /// Writes and answers until nothing is left to do.
    pub fn pump(&mut self) {
        loop {
            self.poll();
            let Some(write) = self.state.next_write() else { break };
            self.disk.write(&write);
            self.state.on_written(write.head.lsn);
        }
        self.poll();
    }

    pub fn poll(&mut self) {
        while let Some(action) = self.state.poll() {
            match action {
                Action::AddStatus { conn, status } => self.statuses.push((conn, status)),
                Action::Fenced { ticket, response } => self.fenced.push((ticket, response.results)),
                Action::Compare(compare) => self.state.on_compared(compare.run(&self.disk)),
                Action::WantFile if self.offers => {
                    let seq = self.state.next_file_seq();
                    let file = FileId { seq, uuid: [seq as u8 ^ 0x5a; 16] };
                    self.disk.files.insert(file, vec![0xee; self.prefill]);
                    self.state.offer_file(file);
                }
                Action::WantFile => {}
                Action::FileStarted(file) => self.started.push(file),
                Action::Unlink(file) => {
                    self.disk.files.remove(&file);
                    self.unlinked.push(file);
                }
            }
        }
    }

    pub fn add(&mut self, segment: SegmentId, entry: u64, epoch: u32) {
        self.state.on_add(CONN, add(segment, entry, epoch));
    }

    /// The kinds and positions of all ADD answers since the last call.
    pub fn answers(&mut self) -> Vec<(AddStatusKind, u64)> {
        self.poll();
        self.statuses.drain(..).map(|(_, status)| (status.kind, status.next)).collect()
    }

    pub fn fence(&mut self, segment: SegmentId, epoch: u32) {
        let item = FenceItem { instance: IDS.instance, segment, epoch: Epoch(epoch) };
        self.state.on_fence(Ticket(epoch.into()), FenceRequest { items: vec![item] });
    }

    pub fn read(&mut self, segment: SegmentId, from: u64, to: u64) -> ReadResponse {
        let read = Read { instance: IDS.instance, segment, from, to, max_bytes: u32::MAX };
        match self.state.plan_read(&read) {
            ReadPlan::Answer(response) => response,
            ReadPlan::Fetch(fetch) => fetch.run(&self.disk).response,
        }
    }
}

/// Bytes of an entry: a pure function of its name, so that any entry read can be checked.
pub fn entry_bytes(segment: SegmentId, entry: u64) -> Bytes {
    let seed = segment.partition.0 * 7919 + segment.n * 104_729 + entry * 31;
    let len = (seed % 97) as usize;
    let payload: Vec<u8> = (0..len).map(|i| (seed as usize * 13 + i * 7) as u8).collect();
    let header = EntryHeader {
        kind: EntryKind::Data,
        segment,
        seg_epoch: Epoch(1),
        entry,
        base_offset: entry as i64,
        count: 1,
        max_ts: 0,
        snap: entry::NO_SNAPSHOT,
        len: len as u32,
        payload_crc: checksum::crc32c(&payload),
        chain: 0,
    };
    Entry::assemble(header.sealed(seed), &payload).bytes
}

pub fn add(segment: SegmentId, entry: u64, epoch: u32) -> Add {
    let bytes = entry_bytes(segment, entry);
    let crc = checksum::crc32c(&bytes);
    let (instance, req_epoch) = (IDS.instance, Epoch(epoch));
    Add { instance, segment, entry, req_epoch, lac: entry, crc, recovery: false, bytes }
}

pub fn seg(partition: u64, n: u64) -> SegmentId {
    SegmentId { partition: PartitionId(partition), n }
}
