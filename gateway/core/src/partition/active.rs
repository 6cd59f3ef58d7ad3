//! A recovered partition at its owner: takes batches, packs them into entries, answers when they are acked.
//!
//! ```text
//! log_start ........ high_watermark ........ owner's next offset ........ next_offset
//!   readable            packed, in flight          waiting for an entry
//! ```

use std::collections::{BTreeMap, VecDeque};

use esker_bookie_core::owner::{Draft, OwnerEffect};
use esker_types::{Entry, EntryKind, Epoch, ErrorCode, Member, Offset, Rules, SegmentId, SessionId, Time};
use esker_wire::batch::Batch;

use super::common::Common;
use super::event::{Alarm, Completed, Effect, Refusal, Ticket};
use super::open::{Opening, Writing};
use super::retention::{Deleting, Retention};
use super::roll::{Roll, Why};
use super::{MemberChoice, Sequence, Tag};
use crate::producers::{Admission, ProducerTable};

/// A batch with its offset that is in no entry yet.
pub(super) struct Waiting {
    pub ticket: Ticket,
    pub batch: Batch,
    pub base_offset: Offset,
}

/// A batch in an entry that is not acked.
pub(super) struct InFlight {
    pub ticket: Ticket,
    pub base_offset: Offset,
    /// Exclusive.
    pub end_offset: Offset,
}

/// The end of the chain as the owner works on it.
pub(super) enum Tail<R: Rules> {
    /// No open segment: the next append opens one.
    None,
    Opening(Opening),
    Writing(Box<Writing<R>>),
}

/// Why an owner can't go on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fall {
    /// A higher epoch is at work.
    Fenced,
    /// The chain changed under us, by an operator: begin again from the record.
    Restart,
    /// The open segment may not be written by this process.
    NeedAssign,
    /// A bug or damage that a person must see.
    Stop,
}

pub(super) struct Active<R: Rules> {
    pub epoch: Epoch,
    pub table: ProducerTable<R>,
    /// Of the next batch taken.
    pub next_offset: Offset,
    pub high_watermark: Offset,
    pub waiting: VecDeque<Waiting>,
    pub waiting_bytes: u64,
    pub in_flight: VecDeque<InFlight>,
    /// Repetitions of batches under way, by the offset of the original.
    pub followers: BTreeMap<Offset, Vec<Ticket>>,
    /// Entries that the closed segment left out, to be sent again first.
    pub carried: Vec<Draft>,
    pub tail: Tail<R>,
    pub roll: Option<Roll>,
    pub last_append: Time,
    pub roll_not_before: Time,
    /// The same for rolls away from a lost quorum, which wait for nothing else.
    pub quorum_roll_not_before: Time,
    /// A roll is due then.
    pub roll_wanted: Option<Why>,
    /// Rolls for the sake of one member, in a row, and when the last one was.
    pub restless: u32,
    pub restless_at: Time,
    pub quorum_lost: bool,
    /// Rolls away from a lost quorum since a record was last acked.
    pub fruitless: u32,
    pub move_to: Option<SessionId>,
    pub draining: bool,
    pub drained: bool,
    pub flow_open: bool,
    pub deletes: Vec<Deleting>,
    pub retention: Retention,
    pub fall: Option<Fall>,
}

impl<R: Rules> Active<R> {
    /// `end`: where the log ends; nothing is in flight.
    pub fn new(epoch: Epoch, table: ProducerTable<R>, end: Offset) -> Self {
        Self {
            epoch,
            table,
            next_offset: end,
            high_watermark: end,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: VecDeque::new(),
            followers: BTreeMap::new(),
            carried: Vec::new(),
            tail: Tail::None,
            roll: None,
            last_append: Time::ZERO,
            roll_not_before: Time::ZERO,
            quorum_roll_not_before: Time::ZERO,
            roll_wanted: None,
            restless: 0,
            restless_at: Time::ZERO,
            quorum_lost: false,
            fruitless: 0,
            move_to: None,
            draining: false,
            drained: false,
            flow_open: true,
            deletes: Vec::new(),
            retention: Retention::default(),
            fall: None,
        }
    }

    pub fn on_members(&mut self, now: Time, common: &mut Common, tag: Tag, choice: Option<MemberChoice>) {
        if let Tail::Opening(opening) = &mut self.tail {
            opening.on_members(now, common, tag, self.epoch, choice.as_ref());
        }
        self.on_roll_members(now, common, tag, choice);
    }

    /// After `Drain`: says so once when nothing is in flight and the open segment, if it held records, is closed.
    pub fn check_drained(&mut self, common: &mut Common) {
        let closed = match &self.tail {
            Tail::None => true,
            Tail::Opening(_) => false,
            Tail::Writing(writing) => writing.owner.next_offset() == writing.owner.spec().base_offset,
        };
        if self.draining && !self.drained && closed && self.is_quiet() && self.roll.is_none() {
            self.drained = true;
            common.emit(Effect::Drained);
        }
    }

    /// Bytes taken and not acked.
    pub fn backlog(&self) -> u64 {
        let sent = match &self.tail {
            Tail::Writing(writing) => writing.owner.unacked().1,
            _ => self.carried.iter().map(|draft| draft.payload_len() as u64).sum(),
        };
        self.waiting_bytes + sent
    }

    /// Nothing is waiting for an ack.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty() && self.carried.is_empty()
    }

    pub fn append(&mut self, now: Time, common: &mut Common, ticket: Ticket, batch: Batch) {
        if self.draining {
            return refuse(common, ticket, ErrorCode::ShuttingDown, "this gateway is stopping".to_owned());
        }
        if self.backlog() >= common.config.partition_bytes.saturating_mul(2) {
            let reason = format!("partition {}: too many bytes wait for an ack", common.id);
            return refuse(common, ticket, ErrorCode::Overloaded, reason);
        }
        let sequence = Sequence::of(&batch);
        match self.table.admit(sequence.as_ref()) {
            Err(refusal) => refuse(common, ticket, refusal.code(), refusal.to_string()),
            Ok(Admission::DuplicateCommitted { base_offset }) => {
                let result = Ok(Completed { base_offset, duplicate: true });
                common.emit(Effect::Complete { ticket, result });
            }
            Ok(Admission::DuplicatePending { base_offset }) => {
                self.followers.entry(base_offset).or_default().push(ticket);
            }
            Ok(Admission::Append) => {
                let base_offset = self.next_offset;
                self.table.pend(sequence.as_ref(), base_offset, batch.count(), batch.header().largest_ts());
                self.next_offset += Offset::from(batch.count());
                self.waiting_bytes += batch.bytes().len() as u64;
                self.last_append = now;
                self.waiting.push_back(Waiting { ticket, batch, base_offset });
                self.pump(now, common);
            }
        }
    }

    /// Packs what may be sent, opens a segment if there is need for one, and passes on what the owner wants.
    pub fn pump(&mut self, now: Time, common: &mut Common) {
        while self.may_pack(common) {
            self.pack(now, common);
        }
        let idle = matches!(self.tail, Tail::None) && self.roll.is_none();
        if idle && !(self.waiting.is_empty() && self.carried.is_empty()) {
            self.tail = Tail::Opening(Opening::begin(common));
        }
        self.drain_owner(common);
        self.check_flow(common);
    }

    fn may_pack(&self, common: &Common) -> bool {
        let Tail::Writing(writing) = &self.tail else { return false };
        if self.waiting.is_empty() || writing.owner.is_frozen() || self.roll.as_ref().is_some_and(Roll::holds_appends) {
            return false;
        }
        let (entries, bytes) = writing.owner.unacked();
        let worth_it =
            entries < common.config.pipeline_entries || self.waiting_bytes >= common.config.entry_bytes as u64;
        worth_it && bytes < common.config.in_flight_bytes
    }

    /// Makes the next entry of what is waiting: each batch's bytes are copied once, into their place.
    fn pack(&mut self, now: Time, common: &Common) {
        let Tail::Writing(writing) = &mut self.tail else { return };
        writing.snapshot_if_due(now, &self.table, common);
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            bytes += waiting.batch.bytes().len();
            bytes <= common.config.entry_bytes
        };
        let take = self.waiting.iter().take_while(fits).count().max(1);
        let batches: Vec<Waiting> = self.waiting.drain(..take).collect();
        let payload = batches.iter().map(|w| w.batch.bytes().len()).sum();
        let base_offset = batches[0].base_offset;
        let mut draft = Draft::new(EntryKind::Data, base_offset, payload);
        draft.first_ts = batches[0].batch.header().base_ts;
        for Waiting { ticket, batch, base_offset } in &batches {
            // Kafka's leader epoch is the partition's; below 2^31.
            draft.put_with(|out| batch.copy_assigned(out, *base_offset, self.epoch.0 as i32));
            draft.count += batch.count();
            draft.max_ts = draft.max_ts.max(batch.header().largest_ts());
            let end_offset = base_offset + Offset::from(batch.count());
            self.in_flight.push_back(InFlight { ticket: *ticket, base_offset: *base_offset, end_offset });
        }
        self.waiting_bytes -= payload as u64;
        writing.append(now, draft);
    }

    /// Passes on what the owner of the open segment has to say.
    pub fn drain_owner(&mut self, common: &mut Common) {
        let before = self.high_watermark;
        while let Tail::Writing(writing) = &mut self.tail
            && let Some(effect) = writing.owner.poll()
        {
            let segment = writing.owner.segment();
            match effect {
                OwnerEffect::Send(add) => common.emit(Effect::SendAdd(add)),
                OwnerEffect::Acked(entry) => self.on_acked(common, entry),
                OwnerEffect::Abandoned { member, .. } => common.emit(Effect::Suspect(member)),
                OwnerEffect::QuorumLost => self.quorum_lost = true,
                OwnerEffect::Fenced { .. } => self.fall = Some(Fall::Fenced),
                OwnerEffect::Conflict { member, entry } => self.on_conflict(common, segment, member, entry),
            }
        }
        if self.high_watermark != before {
            common.emit(Effect::HighWatermark(self.high_watermark));
        }
    }

    fn on_acked(&mut self, common: &mut Common, entry: Entry) {
        self.quorum_lost = false;
        if entry.header.kind != EntryKind::Data {
            return;
        }
        self.fruitless = 0;
        let end = entry.header.end_offset();
        self.table.commit_up_to(end);
        self.high_watermark = self.high_watermark.max(end);
        common.emit(Effect::Committed(entry));
        while self.in_flight.front().is_some_and(|first| first.end_offset <= end) {
            let Some(InFlight { ticket, base_offset, .. }) = self.in_flight.pop_front() else { break };
            common.emit(Effect::Complete { ticket, result: Ok(Completed { base_offset, duplicate: false }) });
            for ticket in self.followers.remove(&base_offset).unwrap_or_default() {
                common.emit(Effect::Complete { ticket, result: Ok(Completed { base_offset, duplicate: true }) });
            }
        }
    }

    fn on_conflict(&mut self, common: &mut Common, segment: SegmentId, member: Member, entry: u64) {
        self.fall = Some(Fall::Stop);
        common.emit(Effect::Alarm(Alarm::Conflict { segment, entry, instance: member.instance }));
    }

    fn check_flow(&mut self, common: &mut Common) {
        let (backlog, bound) = (self.backlog(), common.config.partition_bytes);
        let open = if self.flow_open { backlog < bound } else { backlog < bound / 2 };
        if open != self.flow_open {
            self.flow_open = open;
            common.emit(Effect::Flow { open });
        }
    }

    /// Ends the reign: everything unanswered is answered. What was sent may survive under the next owner, whose
    /// dedupe decides; what was not sent is certainly not done.
    pub fn fail_all(&mut self, common: &mut Common) {
        self.table.fail_from(self.high_watermark);
        let moved = |id| format!("partition {id} changed its owner while the batch was under way");
        for InFlight { ticket, base_offset, .. } in std::mem::take(&mut self.in_flight) {
            refuse(common, ticket, ErrorCode::Moved, moved(common.id));
            for ticket in self.followers.remove(&base_offset).unwrap_or_default() {
                refuse(common, ticket, ErrorCode::Moved, moved(common.id));
            }
        }
        let not_owner = |id| format!("partition {id} is not owned here any more");
        for Waiting { ticket, .. } in std::mem::take(&mut self.waiting) {
            refuse(common, ticket, ErrorCode::NotOwner, not_owner(common.id));
        }
        for ticket in std::mem::take(&mut self.followers).into_values().flatten() {
            refuse(common, ticket, ErrorCode::NotOwner, not_owner(common.id));
        }
        for Deleting { ticket, .. } in std::mem::take(&mut self.deletes) {
            refuse(common, ticket, ErrorCode::TimedOutUnknown, moved(common.id));
        }
        self.waiting_bytes = 0;
        if !self.flow_open {
            self.flow_open = true;
            common.emit(Effect::Flow { open: true });
        }
    }
}

pub(super) fn refuse(common: &mut Common, ticket: Ticket, code: ErrorCode, reason: String) {
    common.emit(Effect::Complete { ticket, result: Err(Refusal { code, reason }) });
}
