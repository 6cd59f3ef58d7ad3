//! The whole cluster in one thread: nodes, links, disks, clients and the oracle, moved by one event queue.

use std::collections::VecDeque;

use esker_bookie_core::owner::{Add, AddAnswer, FenceAnswer};
use esker_gateway_core::partition::{EntriesRead, ProposeOutcome, RecordRead, Transfer};
use esker_metadata_core::{Command, PartitionInfo};
use esker_types::{EntryId, Epoch, Member, Offset, PartitionId, Rules, SegmentId, SessionId, Time};
use esker_wire::batch::Batch;

use crate::bookie::{Bookie, Journaled};
use crate::client::{Fetched, Producer, Reader};
use crate::gateway::Gateway;
use crate::metadata::{Asker, Metadata};
use crate::nemesis::Nemesis;
use crate::network::{Network, Node};
use crate::objects::{BucketRead, Late, Objects};
use crate::oracle::Oracle;
use crate::plan::{Fault, Plan};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::sometimes::{Case, Sometimes};
use crate::trace::Trace;

/// What travels between nodes.
#[derive(Clone, Debug)]
pub enum Message {
    Add(Add),
    AddAnswer(AddAnswer),
    Fence { member: Member, segment: SegmentId, epoch: Epoch },
    FenceAnswer(FenceAnswer),
    Read { asker: Asker, member: Member, segment: SegmentId, from: EntryId, to: EntryId, bytes_max: u32 },
    Entries { asker: Asker, result: EntriesRead },
    Transfer { partition: PartitionId, transfer: Transfer },
    Produce { producer: usize, attempt: u32, partition: PartitionId, first: u32, batch: Batch },
    Produced { producer: usize, attempt: u32, first: u32, result: Result<Offset, Option<usize>> },
    Fetch { reader: usize, question: u64, partition: PartitionId, offset: Offset },
    Fetched { reader: usize, question: u64, fetched: Fetched },
}

/// Something that happens at a point in virtual time.
#[derive(Clone, Debug)]
pub enum What {
    Deliver { from: Node, to: Node, message: Message },
    Apply { commands: Vec<Command>, asker: Option<Asker> },
    Proposed { asker: Asker, outcome: ProposeOutcome },
    ReadPoint { asker: Asker },
    RecordRead { asker: Asker, result: RecordRead },
    Watch { gateway: usize, revision: u64, info: PartitionInfo },
    WatchGone { gateway: usize, partition: PartitionId },
    SessionLost { gateway: usize, session: SessionId },
    GatewayBoot { gateway: usize, boot: u64 },
    GatewayTick { gateway: usize, life: u64, partition: PartitionId },
    ReadTimeout { asker: Asker },
    Link { gateway: usize, bookie: usize },
    BookieBoot { bookie: usize, boot: u64 },
    Journaled { bookie: usize, boot: u64, done: Journaled },
    BookieTick { bookie: usize, boot: u64 },
    ProducerWake { producer: usize },
    ProducerTimeout { producer: usize, attempt: u32, elsewhere: bool },
    ReaderWake { reader: usize, question: u64 },
    Controller,
    Nemesis,
    Resume { node: Node, pause: u64 },
    Mend { from: Node, to: Node },
    TierTick { gateway: usize, life: u64, partition: PartitionId },
    BucketRead(Box<BucketRead>),
    Late(Late),
    Sweep,
    Strike { fault: Fault, bookie: usize },
}

impl What {
    /// The process that must be running for this to happen to it.
    fn process(&self) -> Option<Node> {
        let gateway = |i: usize| Some(Node::Gateway(i as u16));
        match self {
            Self::Deliver { to, .. } => Some(*to),
            Self::Proposed { asker, .. } | Self::RecordRead { asker, .. } | Self::ReadTimeout { asker } => {
                gateway(asker.gateway)
            }
            Self::Watch { gateway: g, .. }
            | Self::WatchGone { gateway: g, .. }
            | Self::SessionLost { gateway: g, .. }
            | Self::GatewayTick { gateway: g, .. }
            | Self::Link { gateway: g, .. }
            | Self::TierTick { gateway: g, .. }
            | Self::GatewayBoot { gateway: g, .. } => gateway(*g),
            Self::BucketRead(read) => gateway(read.gateway),
            Self::BookieBoot { bookie, .. } | Self::BookieTick { bookie, .. } => Some(Node::Bookie(*bookie as u16)),
            _ => None,
        }
    }
}

/// A process that may stand still: what happens to it meanwhile waits.
#[derive(Default)]
pub struct Pause {
    /// Number of the pause that is on, 0 = running.
    pub on: u64,
    pub waiting: VecDeque<What>,
}

pub struct World<R: Rules> {
    pub plan: Plan,
    pub rng: Rng,
    pub queue: Queue<What>,
    pub trace: Trace,
    pub cases: Sometimes,
    pub oracle: Oracle,
    pub network: Network,
    pub metadata: Metadata<R>,
    pub bookies: Vec<Bookie<R>>,
    pub gateways: Vec<Gateway<R>>,
    pub producers: Vec<Producer>,
    pub readers: Vec<Reader>,
    pub nemesis: Nemesis,
    pub objects: Objects,
    /// Partitions that still exist.
    pub partitions: Vec<PartitionId>,
    /// Per mille of commands that meet each command fault that is on.
    pub unknown_rate: u64,
    /// No more trouble: everything must come back.
    pub healed: bool,
    /// A node that dies after so many more actions: crashes strike between any two.
    pub doomed: Option<(Node, u32)>,
    /// Partitions hosted so far, over all gateways.
    pub lives: u64,
    pub healed_at: Time,
}

impl<R: Rules> World<R> {
    pub fn send(&mut self, from: Node, to: Node, message: Message) {
        let now = self.queue.now().0;
        let fate = self.network.fate(now, from, to, &mut self.rng);
        match fate.first {
            None => self.cases.hit(Case::MessageLost),
            Some(after) => {
                if let Some(again) = fate.second {
                    self.cases.hit(Case::MessageDuplicated);
                    self.queue.after_ns(again, What::Deliver { from, to, message: message.clone() });
                }
                self.queue.after_ns(after, What::Deliver { from, to, message });
            }
        }
    }

    /// Takes the next event. False when there is none.
    pub fn step(&mut self) -> bool {
        let Some(what) = self.queue.pop() else { return false };
        self.happen(what);
        true
    }

    pub fn happen(&mut self, what: What) {
        if let Some(pause) = what.process().and_then(|node| self.pause_of(node)).filter(|pause| pause.on != 0) {
            pause.waiting.push_back(what);
            return;
        }
        let now = self.queue.now();
        match what {
            What::Deliver { from, to, message } => self.deliver(from, to, message),
            What::Apply { commands, asker } => self.on_apply(commands, asker),
            What::Proposed { asker, outcome } => self.on_proposed(asker, outcome),
            What::ReadPoint { asker } => self.on_read_point(asker),
            What::RecordRead { asker, result } => self.on_record_read(asker, result),
            What::Watch { gateway, revision, info } => self.on_watch(gateway, revision, info),
            What::WatchGone { gateway, partition } => self.on_watch_gone(gateway, partition),
            What::SessionLost { gateway, session } => self.on_session_lost(gateway, session),
            What::GatewayBoot { gateway, boot } => self.on_gateway_boot(gateway, boot),
            What::GatewayTick { gateway, life, partition } => self.on_gateway_tick(gateway, life, partition),
            What::ReadTimeout { asker } => self.on_entries(asker, EntriesRead::Failed),
            What::Link { gateway, bookie } => self.on_link(gateway, bookie),
            What::BookieBoot { bookie, boot } => self.on_bookie_boot(bookie, boot),
            What::Journaled { bookie, boot, done } => self.on_journaled(bookie, boot, done),
            What::BookieTick { bookie, boot } => self.on_bookie_tick(bookie, boot),
            What::ProducerWake { producer } => self.on_producer_wake(producer),
            What::ProducerTimeout { producer, attempt, elsewhere } => {
                self.on_producer_timeout(producer, attempt, elsewhere);
            }
            What::ReaderWake { reader, question } => self.on_reader_wake(reader, question),
            What::Controller => self.on_controller(),
            What::Nemesis => self.on_nemesis(),
            What::Resume { node, pause } => self.on_resume(node, pause),
            What::Strike { fault, bookie } => self.on_strike(fault, bookie),
            What::Mend { from, to } => self.network.join(from, to),
            What::TierTick { gateway, life, partition } => self.on_tier_tick(gateway, life, partition),
            What::BucketRead(read) => self.on_bucket_read(*read),
            What::Late(late) => self.on_late(late),
            What::Sweep => self.on_sweep(),
        }
        self.trace.tick(now);
    }

    fn deliver(&mut self, from: Node, to: Node, message: Message) {
        let now = self.queue.now();
        self.trace.note(now, &[from.code(), to.code()], || format!("{from:?} -> {to:?}: {}", brief(&message)));
        match (to, message) {
            (Node::Gateway(g), message) => self.gateway_message(g.into(), message),
            (Node::Bookie(b), message) => self.bookie_message(b.into(), from, message),
            (Node::Client(_), Message::Produced { producer, attempt, first, result }) => {
                self.on_produced(producer, attempt, first, result);
            }
            (Node::Client(_), Message::Fetched { reader, question, fetched }) => {
                self.on_fetched(reader, question, fetched);
            }
            _ => {}
        }
    }

    pub fn pause_of(&mut self, node: Node) -> Option<&mut Pause> {
        match node {
            Node::Gateway(i) => self.gateways.get_mut(usize::from(i)).map(|gateway| &mut gateway.pause),
            Node::Bookie(i) => self.bookies.get_mut(usize::from(i)).map(|bookie| &mut bookie.pause),
            _ => None,
        }
    }

    pub fn on_resume(&mut self, node: Node, number: u64) {
        let Some(pause) = self.pause_of(node).filter(|pause| pause.on == number && number != 0) else { return };
        pause.on = 0;
        for what in std::mem::take(&mut pause.waiting) {
            // Behind what is due now, in the order in which it came.
            self.queue.after_ns(0, what);
        }
    }

    /// True if the node's last action was the one before its death.
    pub fn is_doomed_now(&mut self, node: Node) -> bool {
        match &mut self.doomed {
            Some((doomed, left)) if *doomed == node => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            _ => false,
        }
    }

    pub fn bookie_of(&self, member: Member) -> Option<usize> {
        self.bookies.iter().position(|bookie| bookie.id == member.bookie)
    }
}

fn brief(message: &Message) -> String {
    match message {
        Message::Add(add) => format!(
            "ADD {} e{} epoch {} lac {}{}",
            add.segment,
            add.entry.header.entry,
            add.req_epoch,
            add.lac,
            if add.recovery { " recovery" } else { "" }
        ),
        Message::Produce { producer, first, partition, attempt, .. } => {
            format!("PRODUCE p{partition} by {producer} seq {first} try {attempt}")
        }
        other => format!("{other:?}").chars().take(300).collect(),
    }
}
