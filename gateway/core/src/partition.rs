//! The whole life of a partition at one gateway: assigned, recovering, ready, rolling, handed over, stepped down.
//!
//! ```text
//!            Assign / Handover to us          recovered, producers known
//!   Idle ───────────────────────► Recovering ──────────────────────────► Active
//!    ▲                               │  ▲                                  │ │
//!    └──── higher epoch, FENCED ─────┴──┼── operator closed the tail ◄─────┘ │
//!                                       └────────── Stopped ◄── conflict ────┘
//! ```
//! Pure: events go in with the time, effects come out as data, in order. The gateway's shards and the simulator
//! drive the same code.

mod active;
mod batch;
mod common;
mod config;
mod decision;
mod event;
mod open;
mod read;
mod recovering;
mod retention;
mod roll;
mod snapshot;
#[cfg(test)]
mod tests;

use esker_metadata_core::{ClosedSegment, PartitionInfo, PartitionRecord};
use esker_types::{Epoch, ErrorCode, GatewayId, PartitionId, Rules, SessionId, Time};

pub use self::batch::Sequence;
pub use self::config::Config;
pub use self::event::{
    Alarm, Completed, Effect, EntriesRead, Event, MemberChoice, Phase, ProposeOutcome, RecordRead, Refusal, Settings,
    Tag, Ticket, Transfer,
};
pub use self::read::{Bounds, Location, Place, locate_closed};
pub use self::snapshot::SnapshotPayload;

use self::active::{Active, Fall, Tail, refuse};
use self::common::Common;
use self::recovering::Recovering;

enum Stage<R: Rules> {
    Idle,
    Recovering(Box<Recovering<R>>),
    Active(Box<Active<R>>),
    Stopped,
}

/// See the module.
pub struct Partition<R: Rules> {
    common: Common,
    stage: Stage<R>,
    /// Of the present stage; without meaning while `Idle`.
    epoch: Epoch,
    /// Epochs up to this one are over for us, whatever older news may say.
    over: Option<Epoch>,
    transfer: Option<Transfer>,
    move_to: Option<SessionId>,
    phase: Phase,
}

impl<R: Rules> Partition<R> {
    /// `started_upto`: what the last `Partition` of this id in this process answered to [`Partition::started_upto`],
    /// 0 for the first. A process that forgets it may write a segment twice.
    pub fn new(
        id: PartitionId,
        gateway: GatewayId,
        session: SessionId,
        config: Config,
        settings: Settings,
        started_upto: u64,
    ) -> Self {
        let common = Common::new(id, (gateway, session), config, settings, started_upto);
        Self {
            common,
            stage: Stage::Idle,
            epoch: Epoch(0),
            over: None,
            transfer: None,
            move_to: None,
            phase: Phase::Idle,
        }
    }

    pub fn id(&self) -> PartitionId {
        self.common.id
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Epoch under which this gateway acts; None while it does not.
    pub fn epoch(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Idle => None,
            Phase::Recovering { epoch } | Phase::Ready { epoch } | Phase::Stopped { epoch } => Some(epoch),
        }
    }

    /// Newest segment that this process began to write.
    pub fn started_upto(&self) -> u64 {
        self.common.started_upto
    }

    /// What metadata was last known to say.
    pub fn info(&self) -> Option<&PartitionInfo> {
        self.common.info.as_ref()
    }

    /// May more batches be handed in?
    pub fn accepting(&self) -> bool {
        matches!(&self.stage, Stage::Active(active) if active.flow_open && !active.draining)
    }

    /// Memory that the partition takes without what is on its way, in bytes: its own state, the rows of the chain that it
    /// follows, and the producers that it remembers. Cheap.
    pub fn state_bytes(&self) -> usize {
        let rows = self.common.info.as_ref().map_or(0, |info| info.chain.len());
        let stage = match &self.stage {
            Stage::Idle | Stage::Stopped => 0,
            Stage::Recovering(_) => size_of::<Recovering<R>>(),
            Stage::Active(active) => size_of::<Active<R>>() + active.table.state_bytes(),
        };
        size_of::<Self>() + rows * size_of::<ClosedSegment>() + stage
    }

    pub fn poll(&mut self) -> Option<Effect> {
        self.common.out.pop_front()
    }

    /// When `Event::Tick` is due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        match &self.stage {
            Stage::Idle | Stage::Stopped => None,
            Stage::Recovering(recovering) => recovering.deadline(),
            Stage::Active(active) => active.deadline(&self.common),
        }
    }

    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Info { revision, info } => self.on_info(now, revision, info),
            Event::Deleted => self.on_deleted(),
            Event::RecordRead { tag, result } => self.on_record_read(now, tag, result),
            Event::Transfer(transfer) => self.on_transfer(transfer),
            Event::Settings(settings) => self.common.settings = settings,
            Event::MoveTo { to } => self.move_to = Some(to).filter(|to| *to != self.common.session),
            event => self.on_stage_event(now, event),
        }
        self.settle(now);
    }

    fn on_stage_event(&mut self, now: Time, event: Event) {
        let common = &mut self.common;
        match &mut self.stage {
            Stage::Idle | Stage::Stopped => refuse_requests(common, event, ErrorCode::NotOwner, "is not owned here"),
            Stage::Recovering(recovering) => match event {
                Event::FenceAnswer(answer) => recovering.on_fence(now, common, &answer),
                Event::AddAnswer(answer) => recovering.on_add_answer(now, common, &answer),
                Event::Entries { tag, result } => recovering.on_entries(now, common, tag, result),
                Event::Members { tag, choice } => recovering.on_members(now, common, tag, choice),
                Event::Proposed { tag, outcome } => recovering.on_proposed(now, common, tag, &outcome),
                Event::Link { instance, up: true } => recovering.on_link(now, common, instance),
                Event::Tick => recovering.tick(now, common),
                event => refuse_requests(common, event, ErrorCode::Recovering, "is being recovered"),
            },
            Stage::Active(active) => on_active_event(active, common, now, event),
        }
    }

    fn on_info(&mut self, now: Time, revision: u64, info: PartitionInfo) {
        if revision < self.common.revision || info.record.id != self.common.id {
            return;
        }
        let record = info.record.clone();
        self.common.revision = revision;
        let log_start = self.common.record().map_or(0, |known| known.log_start);
        self.common.info = Some(info);
        if !matches!(self.stage, Stage::Idle) && record.epoch > self.epoch {
            self.send_transfer(&record);
            self.step_down();
        }
        match &mut self.stage {
            Stage::Idle => self.take_up(now, &record),
            Stage::Recovering(recovering) => recovering.on_info(now, &mut self.common, &record),
            Stage::Active(active) => {
                if record.log_start > log_start {
                    self.common.emit(Effect::LogStart(record.log_start));
                }
                active.on_info(now, &mut self.common, &record);
            }
            Stage::Stopped => {}
        }
    }

    fn on_record_read(&mut self, now: Time, tag: Tag, result: RecordRead) {
        let answered = !matches!(result, RecordRead::Failed);
        match result {
            RecordRead::Info { revision, info } => {
                self.on_info(now, revision, info);
                self.settle(now);
            }
            RecordRead::Gone => return self.on_deleted(),
            RecordRead::Failed => {}
        }
        match &mut self.stage {
            Stage::Recovering(recovering) => recovering.on_record_read(now, tag),
            Stage::Active(active) => {
                if let Tail::Opening(opening) = &mut active.tail {
                    opening.on_read(now, &mut self.common, tag);
                }
                active.on_roll_read(now, &mut self.common, tag, answered);
            }
            Stage::Idle | Stage::Stopped => {}
        }
    }

    fn on_transfer(&mut self, transfer: Transfer) {
        match &mut self.stage {
            Stage::Idle => self.transfer = Some(transfer), // the record is still on its way
            Stage::Recovering(recovering) => recovering.on_transfer(&self.common, &transfer),
            Stage::Active(_) | Stage::Stopped => {}
        }
    }

    fn on_deleted(&mut self) {
        self.step_down();
        self.over = Some(Epoch::MAX);
    }

    /// Begins to own the partition, if the record says so.
    fn take_up(&mut self, now: Time, record: &PartitionRecord) {
        let mine = match &record.owner {
            Some(owner) if R::OWN_START_ONLY => owner.session == self.common.session,
            // The mutant goes by the node's name, which outlives the process.
            Some(owner) => owner.gateway == self.common.gateway,
            None => false,
        };
        if !mine || self.over.is_some_and(|over| record.epoch <= over) {
            return;
        }
        self.epoch = record.epoch;
        let transfer = self.transfer.take();
        let recovering = Recovering::begin(now, &mut self.common, record.epoch, transfer.as_ref());
        self.stage = Stage::Recovering(Box::new(recovering));
    }

    /// A handover that worked: what the new owner needs follows it.
    fn send_transfer(&mut self, record: &PartitionRecord) {
        if let Stage::Active(active) = &self.stage
            && let Some((to, transfer)) = active.transfer(record)
        {
            self.common.emit(Effect::SendTransfer { to, transfer });
        }
    }

    /// Stops acting under the present epoch, for good.
    fn step_down(&mut self) {
        if let Stage::Active(active) = &mut self.stage {
            active.fail_all(&mut self.common);
            if active.draining && !active.drained {
                self.common.emit(Effect::Drained);
            }
        }
        if !matches!(self.stage, Stage::Idle) {
            self.over = self.over.max(Some(self.epoch));
        }
        self.stage = Stage::Idle;
        self.move_to = None;
    }

    /// Follows up on what the stage concluded, until nothing changes any more.
    fn settle(&mut self, now: Time) {
        loop {
            let fall = match &mut self.stage {
                Stage::Idle | Stage::Stopped => None,
                Stage::Recovering(recovering) => match recovering.ready.take() {
                    Some(table) => {
                        self.become_active(now, table);
                        continue;
                    }
                    None => recovering.fall.take(),
                },
                Stage::Active(active) => {
                    active.move_to = self.move_to.take().or(active.move_to);
                    active.tick_roll(now, &mut self.common);
                    active.drain_owner(&mut self.common);
                    active.check_drained(&mut self.common);
                    active.fall.take()
                }
            };
            match fall {
                None => break,
                Some(fall) => self.on_fall(now, fall),
            }
        }
        self.publish_phase();
    }

    fn become_active(&mut self, now: Time, table: crate::producers::ProducerTable<R>) {
        let Some(record) = self.common.record().cloned() else { return };
        let mut active = Active::new(self.epoch, table, record.next_offset);
        self.common.emit(Effect::LogStart(record.log_start));
        self.common.emit(Effect::HighWatermark(record.next_offset));
        active.on_info(now, &mut self.common, &record);
        self.stage = Stage::Active(Box::new(active));
    }

    fn on_fall(&mut self, now: Time, fall: Fall) {
        if fall == Fall::Fenced {
            return self.step_down();
        }
        if let Stage::Active(active) = &mut self.stage {
            active.fail_all(&mut self.common);
        }
        match (fall, self.common.record().cloned()) {
            (Fall::Restart, Some(record)) => {
                self.stage = Stage::Idle;
                self.take_up(now, &record);
            }
            (Fall::NeedAssign, _) => {
                self.stage = Stage::Stopped;
                self.common.emit(Effect::NeedAssign);
            }
            _ => self.stage = Stage::Stopped,
        }
    }

    fn publish_phase(&mut self) {
        let epoch = self.epoch;
        let phase = match &self.stage {
            Stage::Idle => Phase::Idle,
            Stage::Recovering(_) => Phase::Recovering { epoch },
            Stage::Active(_) => Phase::Ready { epoch },
            Stage::Stopped => Phase::Stopped { epoch },
        };
        if phase != self.phase {
            self.phase = phase;
            self.common.emit(Effect::Phase(phase));
        }
    }
}

fn on_active_event<R: Rules>(active: &mut Active<R>, common: &mut Common, now: Time, event: Event) {
    match event {
        Event::Append { ticket, batch } => active.append(now, common, ticket, batch),
        Event::AddAnswer(answer) => {
            if let Tail::Writing(writing) = &mut active.tail {
                writing.owner.on_answer(now, &answer);
            }
            active.pump(now, common);
        }
        Event::Link { instance, up } => {
            if let Tail::Writing(writing) = &mut active.tail {
                writing.owner.on_link(now, instance, up);
            }
            active.pump(now, common);
        }
        Event::Proposed { tag, outcome } => {
            if let Tail::Opening(opening) = &mut active.tail {
                opening.on_proposed(common, tag, &outcome);
            }
            active.on_roll_proposed(common, tag, &outcome);
            active.on_delete_proposed(common, tag, &outcome);
        }
        Event::Members { tag, choice } => active.on_members(now, common, tag, choice),
        Event::DeleteRecords { ticket, before } => active.delete_records(common, ticket, before),
        Event::Retention { wall } => active.retain(now, common, wall),
        Event::Drain => active.draining = true,
        Event::Tick => {
            match &mut active.tail {
                Tail::Writing(writing) => writing.owner.tick(now),
                Tail::Opening(opening) => opening.tick(now, common),
                Tail::None => {}
            }
            active.pump(now, common);
        }
        _ => {}
    }
}

/// Requests of clients get an answer in every stage; the rest is of no interest.
fn refuse_requests(common: &mut Common, event: Event, code: ErrorCode, what: &str) {
    match event {
        Event::Append { ticket, .. } | Event::DeleteRecords { ticket, .. } => {
            refuse(common, ticket, code, format!("partition {} {what}", common.id));
        }
        Event::Drain => common.emit(Effect::Drained),
        _ => {}
    }
}
