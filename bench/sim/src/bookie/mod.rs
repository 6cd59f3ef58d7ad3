//! A bookie process over a simulated disk. Decisions, journal, scan and collection are the real code; this is the
//! shell around it: when writes complete, what a crash leaves, what the operator does with an empty directory.

mod boot;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};

use esker_bookie_core::bookie::{Action, BookieState, ConnId, ReadPlan, Ticket};
use esker_bookie_core::journal::block::BlockWrite;
use esker_bookie_core::journal::gc::{GcPolicy, SegmentGc};
use esker_bookie_core::journal::space::{SpaceLevel, SpaceMarks};
use esker_bookie_core::journal::{FileId, Lsn};
use esker_bookie_core::owner::{Add, AddAnswer, AddAnswerKind, FenceAnswer, FenceAnswerKind};
use esker_bookie_core::wire::{
    self, AddStatus, AddStatusKind, FenceItem, FenceRequest, FenceVerdict, Read, ReadStatus,
};
use esker_gateway_core::partition::EntriesRead;
use esker_types::{BookieId, BootId, EntryHeader, Epoch, InstanceId, Member, Offset, PartitionId, Rules, SegmentId};

use crate::disk::{Disk, DiskError, PowerCut};
use crate::metadata::Asker;
use crate::network::Node;
use crate::plan::Fault;
use crate::rng::Rng;
use crate::sometimes::Case;
use crate::world::{Message, Pause, What, World};

/// A disk operation that completed.
#[derive(Clone, Debug)]
pub enum Journaled {
    Wrote { lsn: Lsn, write: u64 },
    FileReady { file: FileId },
    Idle,
}

/// Entries that a block makes durable, for the oracle.
struct InFlight {
    lsn: Lsn,
    done: bool,
    entries: Vec<(SegmentId, u64, Offset)>,
}

pub struct Bookie<R: Rules> {
    pub id: BookieId,
    pub instance: InstanceId,
    pub alive: bool,
    /// Never comes back.
    pub gone: bool,
    pub boot: u64,
    pub boot_id: BootId,
    /// Number of this run in metadata.
    pub boot_no: u64,
    pub disk: Disk,
    pub state: Option<BookieState<R>>,
    /// Which copies may go. Forgets with the process.
    gc: SegmentGc<R>,
    pub pause: Pause,
    in_flight: VecDeque<InFlight>,
    /// Writes that the disk takes at the same time.
    depth: usize,
    fences: BTreeMap<Ticket, Node>,
    next_ticket: u64,
    /// Lengths of journal files that can be used again.
    pub spare: Vec<FileId>,
    making_file: bool,
    /// The end of an idle span is being waited for.
    idling: bool,
    /// Something else than power cuts happened to the disk: a loss verdict at the next boot is no mistake.
    pub disturbed: bool,
    /// What metadata said at the boot about partitions with an open segment here.
    boot_epochs: Vec<(PartitionId, Epoch)>,
}

impl<R: Rules> Bookie<R> {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            id: BookieId(0),
            instance: InstanceId::from_random(rng.uuid()),
            alive: false,
            gone: false,
            boot: 0,
            boot_id: BootId::NIL,
            boot_no: 0,
            disk: Disk::default(),
            state: None,
            gc: SegmentGc::new(GcPolicy::default(), 0),
            pause: Pause::default(),
            in_flight: VecDeque::new(),
            depth: if rng.chance(500) { 1 } else { 3 },
            fences: BTreeMap::new(),
            next_ticket: 0,
            spare: Vec::new(),
            making_file: false,
            idling: false,
            disturbed: false,
            boot_epochs: Vec::new(),
        }
    }

    pub fn is_serving(&self) -> bool {
        self.alive && self.state.as_ref().is_some_and(BookieState::is_open)
    }

    pub fn member(&self) -> Member {
        Member { bookie: self.id, instance: self.instance }
    }
}

impl<R: Rules> World<R> {
    pub fn crash_bookie(&mut self, b: usize, how: Option<PowerCut>) {
        let now = self.queue.now();
        let how = how.unwrap_or_else(|| *self.rng.pick(&[PowerCut::ProcessOnly, PowerCut::AllLost, PowerCut::Random]));
        self.trace.note(now, &[0xdeab, b as u64], || format!("bookie {b} crashes, {how:?}"));
        self.cases.hit(Case::BookieCrash);
        let bookie = &mut self.bookies[b];
        if bookie.disk.unsynced() > 0 {
            self.cases.hit(Case::BookieCrashWhileWriting);
        }
        bookie.alive = false;
        bookie.state = None;
        bookie.in_flight.clear();
        bookie.fences.clear();
        bookie.spare.clear();
        (bookie.making_file, bookie.idling) = (false, false);
        bookie.pause = Pause::default();
        bookie.disk.cut(how, &mut self.rng);
        self.tell_links(b);
    }

    /// Gateways notice that connections to the bookie broke or stand again, each in its own time.
    pub fn tell_links(&mut self, b: usize) {
        for gateway in 0..self.gateways.len() {
            let after = self.rng.latency_ns(self.plan.network_us);
            self.queue.after_ns(after, What::Link { gateway, bookie: b });
        }
    }

    pub fn bookie_message(&mut self, b: usize, from: Node, message: Message) {
        if !self.bookies[b].is_serving() {
            return;
        }
        match message {
            Message::Add(add) => self.on_add(b, from, add),
            Message::Fence { member, segment, epoch } => {
                let bookie = &mut self.bookies[b];
                bookie.next_ticket += 1;
                let ticket = Ticket(bookie.next_ticket);
                bookie.fences.insert(ticket, from);
                let request = FenceRequest { items: vec![FenceItem { instance: member.instance, segment, epoch }] };
                self.with_state(b, |state| state.on_fence(ticket, request));
            }
            Message::Read { asker, member, segment, from: first, to, bytes_max } => {
                let read = Read { instance: member.instance, segment, from: first, to, max_bytes: bytes_max };
                self.on_read(b, from, asker, &read);
            }
            _ => return,
        }
        self.pump_bookie(b);
    }

    fn with_state(&mut self, b: usize, act: impl FnOnce(&mut BookieState<R>)) {
        if let Some(state) = &mut self.bookies[b].state {
            act(state);
        }
    }

    fn on_add(&mut self, b: usize, from: Node, add: Add) {
        let Node::Gateway(g) = from else { return };
        let request = wire::Add {
            instance: add.member.instance,
            segment: add.segment,
            entry: add.entry.header.entry,
            req_epoch: add.req_epoch,
            lac: add.lac,
            crc: add.entry.crc(),
            recovery: add.recovery,
            bytes: add.entry.bytes.clone(),
        };
        debug_assert_eq!(request.verify().map_err(|e| e.to_string()), Ok(()));
        self.with_state(b, |state| state.on_add(ConnId(g.into()), request));
    }

    fn on_read(&mut self, b: usize, from: Node, asker: Asker, read: &Read) {
        let Some(state) = &mut self.bookies[b].state else { return };
        let response = match state.plan_read(read) {
            ReadPlan::Answer(response) => response,
            ReadPlan::Fetch(fetch) => {
                let fetched = fetch.run(&self.bookies[b].disk);
                if let Some(damage) = fetched.damage {
                    self.cases.hit(Case::DamagedEntry);
                    self.with_state(b, |state| {
                        state.on_damage(damage);
                    });
                }
                fetched.response
            }
        };
        let result = match response.status {
            ReadStatus::Data => EntriesRead::Data(response.entries),
            ReadStatus::NoSuchEntry => {
                if response.instance == read.instance {
                    self.oracle.denied(response.instance, read.segment, read.from);
                }
                EntriesRead::NoSuchEntry
            }
            ReadStatus::Damaged | ReadStatus::Limbo | ReadStatus::WrongInstance => EntriesRead::Failed,
        };
        self.send(Node::Bookie(b as u16), from, Message::Entries { asker, result });
    }

    /// Carries out what the state wants and hands blocks to the disk, until neither has more or the process dies.
    pub fn pump_bookie(&mut self, b: usize) {
        self.update_space(b);
        loop {
            while let Some(action) = self.bookies[b].state.as_mut().and_then(BookieState::poll) {
                if self.is_doomed_now(Node::Bookie(b as u16)) {
                    self.doomed = None;
                    self.crash_bookie(b, None);
                    self.plan_bookie_return(b);
                    return;
                }
                self.on_action(b, action);
            }
            let bookie = &mut self.bookies[b];
            if bookie.in_flight.len() >= bookie.depth {
                return;
            }
            let Some(block) = bookie.state.as_mut().and_then(BookieState::next_write) else { return };
            if !self.write_block(b, &block) {
                return;
            }
        }
    }

    fn on_action(&mut self, b: usize, action: Action) {
        match action {
            Action::AddStatus { conn, status } => self.send_status(b, conn, status),
            Action::Fenced { ticket, response } => {
                let Some(to) = self.bookies[b].fences.remove(&ticket) else { return };
                for result in response.results {
                    self.send_fence_answer(b, to, result);
                }
            }
            Action::Compare(compare) => {
                let compared = compare.run(&self.bookies[b].disk);
                self.with_state(b, |state| state.on_compared(compared));
            }
            Action::WantFile => self.make_file(b),
            Action::FileStarted(_) => self.on_file_started(b),
            Action::Unlink(file) => {
                self.cases.hit(Case::GcDeletedFile);
                let bookie = &mut self.bookies[b];
                if self.rng.chance(500) {
                    bookie.spare.push(file);
                } else {
                    bookie.disk.unlink(file);
                }
            }
        }
    }

    fn send_status(&mut self, b: usize, conn: ConnId, status: AddStatus) {
        let kind = match status.kind {
            AddStatusKind::Ok => {
                self.oracle.promised(status.instance, status.segment, status.next);
                AddAnswerKind::Ok { durable: status.next }
            }
            AddStatusKind::Gap => AddAnswerKind::Gap { accepted: status.next },
            AddStatusKind::Fenced => AddAnswerKind::Fenced { max_epoch: status.max_epoch },
            AddStatusKind::Conflict => AddAnswerKind::Conflict { entry: status.next },
            AddStatusKind::ReadOnly => AddAnswerKind::ReadOnly,
            AddStatusKind::Limbo => AddAnswerKind::Limbo,
            AddStatusKind::WrongInstance => AddAnswerKind::WrongInstance,
        };
        let answer =
            AddAnswer { segment: status.segment, instance: status.instance, req_epoch: status.req_epoch, kind };
        self.send(Node::Bookie(b as u16), Node::Gateway(conn.0 as u16), Message::AddAnswer(answer));
    }

    fn send_fence_answer(&mut self, b: usize, to: Node, result: wire::FenceResult) {
        let kind = match result.verdict {
            FenceVerdict::Ok { durable, lac, limbo } => {
                if limbo {
                    self.cases.hit(Case::RecoveryWithLimbo);
                }
                self.oracle.fence_promised(result.instance, result.segment.partition, result.req_epoch);
                FenceAnswerKind::Ok { durable, lac, limbo }
            }
            FenceVerdict::Fenced { max_epoch } => {
                self.cases.hit(Case::RecoveryOvertaken);
                FenceAnswerKind::Fenced { max_epoch }
            }
            FenceVerdict::WrongInstance => FenceAnswerKind::WrongInstance,
        };
        let answer =
            FenceAnswer { segment: result.segment, instance: result.instance, req_epoch: result.req_epoch, kind };
        self.send(Node::Bookie(b as u16), to, Message::FenceAnswer(answer));
    }

    // --- the disk

    /// False if the process is gone.
    fn write_block(&mut self, b: usize, block: &BlockWrite) -> bool {
        self.may_misplace(b);
        let bytes = block.to_bytes();
        let bookie = &mut self.bookies[b];
        let written = bookie.disk.write(block.file(), block.offset() as usize, &bytes, &mut self.rng);
        match written {
            Ok(write) => {
                let lsn = block.head.lsn;
                bookie.in_flight.push_back(InFlight { lsn, done: false, entries: entries_of(block, &bytes) });
                let (boot, mut after) = (bookie.boot, self.rng.latency_ns(self.plan.disk_us));
                if self.plan.faults.has(Fault::SlowDisk) && !self.healed && self.rng.chance(100) {
                    after *= 30;
                }
                self.queue.after_ns(after, What::Journaled { bookie: b, boot, done: Journaled::Wrote { lsn, write } });
                true
            }
            Err(error) => {
                self.journal_failed(b, error);
                false
            }
        }
    }

    /// R9b: no retry, no further ack; the process ends and what was on its way may be there or not.
    fn journal_failed(&mut self, b: usize, error: DiskError) {
        let now = self.queue.now();
        self.trace.note(now, &[0xe10], || format!("bookie {b}: journal failed: {error:?}"));
        self.with_state(b, BookieState::on_write_failed);
        self.write_superblock(b, true);
        self.crash_bookie(b, Some(PowerCut::Random));
        self.plan_bookie_return(b);
    }

    pub fn on_journaled(&mut self, b: usize, boot: u64, done: Journaled) {
        if self.bookies[b].boot != boot || !self.bookies[b].alive {
            return;
        }
        match done {
            Journaled::Wrote { lsn, write } => {
                self.may_fail_sync(b);
                if let Err(error) = self.bookies[b].disk.sync(write) {
                    return self.journal_failed(b, error);
                }
                self.tell_oracle(b, lsn);
                self.with_state(b, |state| state.on_written(lsn));
                // A while without a write: tell how far the journal is durable. One such look at a time.
                if !std::mem::replace(&mut self.bookies[b].idling, true) {
                    let idle = self.plan.disk_us * 6_000;
                    self.queue.after_ns(idle, What::Journaled { bookie: b, boot, done: Journaled::Idle });
                }
            }
            Journaled::FileReady { file } => self.file_ready(b, file),
            Journaled::Idle => {
                self.bookies[b].idling = false;
                self.with_state(b, BookieState::idle);
            }
        }
        self.pump_bookie(b);
    }

    /// What is durable without a hole before it, as the disk sees it.
    fn tell_oracle(&mut self, b: usize, lsn: Lsn) {
        let bookie = &mut self.bookies[b];
        bookie.in_flight.iter_mut().filter(|block| block.lsn == lsn).for_each(|block| block.done = true);
        while let Some(block) = bookie.in_flight.pop_front_if(|block| block.done) {
            for (segment, entries, end_offset) in block.entries {
                self.oracle.synced(segment, bookie.instance, entries, end_offset);
            }
        }
    }

    fn make_file(&mut self, b: usize) {
        if std::mem::replace(&mut self.bookies[b].making_file, true) {
            return;
        }
        let uuid = self.rng.uuid();
        let bookie = &mut self.bookies[b];
        let Some(state) = &bookie.state else { return };
        let file = FileId { seq: state.next_file_seq(), uuid };
        let (boot, after) = (bookie.boot, self.rng.latency_ns(self.plan.disk_us));
        self.queue.after_ns(after, What::Journaled { bookie: b, boot, done: Journaled::FileReady { file } });
    }

    fn file_ready(&mut self, b: usize, file: FileId) {
        let len = self.plan.journal_file_bytes + (8 << 10);
        let bookie = &mut self.bookies[b];
        bookie.making_file = false;
        let recycled = bookie.spare.pop();
        match bookie.disk.create(file, len, recycled) {
            Ok(()) => {
                bookie.disk.sync_directory();
                self.with_state(b, |state| state.offer_file(file));
            }
            Err(_) => {
                // No room: the current file must do; try again later.
                let boot = bookie.boot;
                bookie.making_file = true;
                let later = self.plan.disk_us * 100_000;
                self.queue.after_ns(later, What::Journaled { bookie: b, boot, done: Journaled::FileReady { file } });
            }
        }
    }

    fn update_space(&mut self, b: usize) {
        let file_bytes = self.plan.journal_file_bytes as u64;
        let bookie = &mut self.bookies[b];
        let free = bookie.disk.capacity.map(|capacity| capacity.saturating_sub(bookie.disk.used()) as u64);
        let level = free.map_or(SpaceLevel::All, |free| SpaceMarks::for_files(file_bytes).level(free));
        self.with_state(b, |state| state.set_space(level));
    }
}

/// (segment, count of entries, end offset) for each entry in the block.
fn entries_of(block: &BlockWrite, bytes: &[u8]) -> Vec<(SegmentId, u64, Offset)> {
    let mut at = block.head.head_len();
    let mut out = Vec::new();
    for item in &block.head.items {
        let Some(entry) = item.entry() else { continue };
        if let Ok(header) = EntryHeader::decode(&bytes[at..at + item.len as usize]) {
            out.push((item.segment, entry + 1, header.end_offset()));
        }
        at += item.len as usize;
    }
    out
}
