//! Closing the open segment while its owner lives (R6): pick members, make sure that metadata answers, let what is in
//! flight settle, freeze for ever, and propose the same end until it is decided.

use std::time::Duration;

use esker_bookie_core::owner::Closing;
use esker_metadata_core::{Command, Handover, PartitionRecord, Roll as RollCommand};
use esker_types::{Epoch, Rules, SessionId, Time};

use super::active::{Active, Fall, Tail};
use super::common::{Common, Verdict, close_of, next_of, verdict};
use super::decision::Decision;
use super::event::{Effect, MemberChoice, ProposeOutcome, Tag, Transfer};

/// A partition without appends for so long gets no new segment when its old one is closed for its age.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// Rolls for the sake of a member are counted together when they come within this time.
const LAG_MEMORY: Duration = Duration::from_secs(60);

/// Ordered by urgency: a later one takes over a roll that is not frozen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// A degraded segment could have its full width again.
    Widen,
    /// A member was abandoned.
    Lag,
    Size,
    Time,
    Drain,
    Move,
    /// Nothing is acked any more.
    QuorumLost,
}

pub(super) struct Roll {
    pub why: Why,
    /// Handover to this session, as far as that can still work.
    pub to: Option<SessionId>,
    /// The ack quorum is out of reach and too few bookies are above suspicion: suspects may be named again.
    any_member: bool,
    step: Step,
}

enum Step {
    Picking(Tag),
    /// A roll that nobody answers would stop acks for nothing: is metadata there?
    Probing(Tag, Option<MemberChoice>),
    Draining(Time, Option<MemberChoice>),
    Deciding(Box<Deciding>),
}

struct Deciding {
    /// None: there was no open segment (a handover of an idle partition).
    closing: Option<Closing>,
    base_offset: i64,
    decision: Decision,
    repicking: Option<Tag>,
}

impl Roll {
    /// New batches wait for the next segment.
    pub fn holds_appends(&self) -> bool {
        matches!(self.step, Step::Draining(..) | Step::Deciding(_))
    }

    pub fn is_frozen(&self) -> bool {
        matches!(self.step, Step::Deciding(_))
    }

    fn deadline(&self) -> Option<Time> {
        match &self.step {
            Step::Draining(until, _) => Some(*until),
            Step::Deciding(deciding) => deciding.decision.deadline(),
            Step::Picking(_) | Step::Probing(..) => None,
        }
    }
}

impl<R: Rules> Active<R> {
    pub fn deadline(&self, common: &Common) -> Option<Time> {
        let tail = match &self.tail {
            Tail::None => None,
            Tail::Opening(opening) => opening.deadline(),
            Tail::Writing(writing) => {
                let roll_at = self.roll.is_none().then(|| match self.roll_wanted {
                    Some(Why::QuorumLost) => self.quorum_roll_not_before,
                    Some(_) => self.roll_not_before,
                    None => self.roll_not_before.max(self.time_roll_at(common)),
                });
                writing.owner.deadline().into_iter().chain(roll_at).min()
            }
        };
        tail.into_iter().chain(self.roll.as_ref().and_then(Roll::deadline)).min()
    }

    /// Grows while rolls away from a lost quorum bring nothing: when bookies are only slow, each roll sends everything
    /// again and makes them slower. The first two come at full speed: one may have met the same dead bookie twice.
    pub fn patience(&self, doublings_max: u32) -> u32 {
        1 << self.fruitless.saturating_sub(1).min(doublings_max)
    }

    /// When the open segment is old enough to be closed. Spread over 10 % so that partitions do not roll as one.
    fn time_roll_at(&self, common: &Common) -> Time {
        let Tail::Writing(writing) = &self.tail else { return Time(u64::MAX) };
        let small = writing.owner.bytes() < 1 << 20;
        let full = common.settings.segment_ms.saturating_mul(if small { 6 } else { 1 });
        let spread = (common.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ writing.owner.segment().n) % 100;
        let ms = full - full / 1000 * spread;
        writing.opened_at + Duration::from_millis(ms.min(1 << 44))
    }

    /// Why the open segment should be closed now, if it should.
    fn reason_to_roll(&self, now: Time, common: &Common) -> Option<Why> {
        let Tail::Writing(writing) = &self.tail else { return None };
        let limit = match writing.degraded {
            true => common.config.degraded_segment_bytes.min(common.settings.segment_bytes),
            false => common.settings.segment_bytes,
        };
        // Only what is acked counts: entries carried over from the last segment may fill this one at once, and rolling
        // before they are acked would carry them on for ever.
        let has_data = writing.owner.acked_end() > writing.owner.spec().base_offset;
        let mut reasons = Vec::new();
        reasons.extend(self.quorum_lost.then_some(Why::QuorumLost));
        reasons.extend((self.draining && has_data && self.is_quiet()).then_some(Why::Drain));
        reasons.extend((has_data && now >= self.time_roll_at(common)).then_some(Why::Time));
        reasons.extend((has_data && writing.owner.acked_bytes() >= limit).then_some(Why::Size));
        reasons.extend((has_data && writing.owner.abandoned() > 0).then_some(Why::Lag));
        reasons.extend((has_data && writing.degraded).then_some(Why::Widen));
        reasons.into_iter().max()
    }

    /// Begins what is due: a roll, a handover, the next try of either.
    pub fn tick_roll(&mut self, now: Time, common: &mut Common) {
        self.hurry(now);
        if let Some(roll) = &mut self.roll {
            match &mut roll.step {
                Step::Draining(until, _) if now >= *until => self.freeze(now, common),
                Step::Deciding(deciding) if deciding.repicking.is_none() && deciding.decision.is_due(now) => {
                    deciding.decision.again(common);
                }
                _ => self.freeze_if_settled(now, common),
            }
            return;
        }
        if let Some(to) = self.move_to
            && !matches!(self.tail, Tail::Opening(_))
        {
            self.move_to = None;
            return self.begin_roll(now, common, Why::Move, Some(to));
        }
        let why = self.reason_to_roll(now, common);
        self.roll_wanted = why;
        let not_before = match why {
            Some(Why::QuorumLost) => self.quorum_roll_not_before,
            _ => self.roll_not_before,
        };
        if let Some(why) = why.filter(|_| now >= not_before) {
            self.begin_roll(now, common, why, None);
        }
    }

    /// When nothing is acked any more, a roll for another reason that is not frozen yet makes way.
    fn hurry(&mut self, now: Time) {
        if !self.quorum_lost {
            return;
        }
        let Some(roll) = self.roll.as_mut().filter(|roll| roll.to.is_none() && roll.why != Why::QuorumLost) else {
            return;
        };
        match &mut roll.step {
            Step::Picking(_) | Step::Probing(..) => self.roll = None,
            Step::Draining(until, _) => *until = now,
            Step::Deciding(_) => {}
        }
    }

    fn begin_roll(&mut self, now: Time, common: &mut Common, why: Why, to: Option<SessionId>) {
        let tag = common.tag();
        let unused = why == Why::Time && now.since(self.last_append) >= IDLE_AFTER;
        if why == Why::Drain || unused {
            // Nothing more will come, or not soon: close without a successor.
            common.emit(Effect::ReadRecord { tag });
            self.roll = Some(Roll { why, to, any_member: false, step: Step::Probing(tag, None) });
            return;
        }
        let exclude = match &self.tail {
            Tail::Writing(writing) => writing.owner.suspects(now).map(|m| m.bookie).collect(),
            _ => Vec::new(),
        };
        common.emit(Effect::PickMembers { tag, wanted: common.settings.quorum, exclude });
        self.roll = Some(Roll { why, to, any_member: false, step: Step::Picking(tag) });
    }

    /// Not now: the segment goes on. Only before the freeze.
    fn cancel_roll(&mut self, now: Time, common: &mut Common) {
        let Some(roll) = self.roll.take() else { return };
        assert!(!roll.is_frozen(), "a frozen segment never goes on");
        match roll.why {
            Why::QuorumLost => self.quorum_roll_not_before = now + common.config.roll_retry / 4,
            _ => self.roll_not_before = now + common.config.roll_retry,
        }
        self.pump(now, common);
    }

    pub fn on_roll_members(&mut self, now: Time, common: &mut Common, tag: Tag, choice: Option<MemberChoice>) {
        let Some(roll) = &mut self.roll else { return };
        match &mut roll.step {
            Step::Picking(asked) if *asked == tag => {
                if choice.is_none() && roll.why == Why::QuorumLost && !std::mem::replace(&mut roll.any_member, true) {
                    // There are not enough others. A member that was silent, or in limbo for the old segment, may
                    // well take a new one: without them the partition would stand still although all are back.
                    let tag = common.tag();
                    roll.step = Step::Picking(tag);
                    common.emit(Effect::PickMembers { tag, wanted: common.settings.quorum, exclude: Vec::new() });
                    return;
                }
                let full = choice.as_ref().is_some_and(|c| c.quorum.write >= common.settings.quorum.write);
                let good_enough = match roll.why {
                    Why::Widen | Why::Lag => full,
                    Why::Move | Why::Drain => true,
                    Why::Size | Why::Time | Why::QuorumLost => choice.is_some(),
                };
                if !good_enough {
                    return self.cancel_roll(now, common);
                }
                let tag = common.tag();
                roll.step = Step::Probing(tag, choice);
                common.emit(Effect::ReadRecord { tag });
            }
            Step::Deciding(deciding) if deciding.repicking == Some(tag) => {
                deciding.repicking = None;
                let command = command(common, self.epoch, deciding.closing.as_ref(), choice.as_ref(), roll.to);
                match command {
                    Some(command) => {
                        deciding.decision.replace(command);
                        deciding.decision.again(common);
                    }
                    None => self.roll = None,
                }
            }
            _ => {}
        }
    }

    /// A linearizable read came back and left the segment open under our epoch, or failed.
    pub fn on_roll_read(&mut self, now: Time, common: &mut Common, tag: Tag, answered: bool) {
        let Some(roll) = &mut self.roll else { return };
        match &mut roll.step {
            Step::Probing(asked, choice) if *asked == tag => {
                if !answered && roll.why != Why::Move {
                    return self.cancel_roll(now, common);
                }
                if !answered {
                    self.roll = None; // who asked for the move will ask again
                    return self.pump(now, common);
                }
                let wait = if roll.why == Why::QuorumLost { now } else { now + common.config.drain };
                roll.step = Step::Draining(wait, choice.take());
                self.freeze_if_settled(now, common);
            }
            Step::Deciding(deciding) => {
                if !deciding.decision.on_read(now, tag) {
                    return;
                }
                if deciding.closing.is_none() && (answered || deciding.decision.rejected.is_some()) {
                    // A handover of an idle partition froze nothing, so it may be given up: should it still be
                    // applied, the epoch moves and we step down. Who wants it asks again.
                    self.roll = None;
                    return self.pump(now, common);
                }
                if deciding.decision.rejected.is_some() {
                    return self.after_reject(common);
                }
                if answered && !R::STAY_FROZEN_WHILE_UNKNOWN {
                    // The mutant takes "still open" for "my command is gone".
                    self.roll = None;
                    if let Tail::Writing(writing) = &mut self.tail {
                        writing.owner.unfreeze();
                    }
                    self.roll_not_before = now + common.config.roll_retry;
                    self.quorum_roll_not_before = self.roll_not_before;
                    self.pump(now, common);
                }
            }
            _ => {}
        }
    }

    /// This try was refused and the segment is open: a named bookie or the target session is gone. The end stays the
    /// same; the successor is picked anew, and a move is given up (whoever wants it asks again).
    fn after_reject(&mut self, common: &mut Common) {
        let Some(Roll { to, step: Step::Deciding(deciding), .. }) = &mut self.roll else { return };
        *to = None;
        let tag = common.tag();
        deciding.repicking = Some(tag);
        common.emit(Effect::PickMembers { tag, wanted: common.settings.quorum, exclude: Vec::new() });
    }

    pub fn on_roll_proposed(&mut self, common: &mut Common, tag: Tag, outcome: &ProposeOutcome) {
        if let Some(Roll { step: Step::Deciding(deciding), .. }) = &mut self.roll {
            deciding.decision.on_proposed(common, tag, outcome);
        }
    }

    /// Freezes early when everything assigned is acked.
    pub fn freeze_if_settled(&mut self, now: Time, common: &mut Common) {
        let Some(Roll { step: Step::Draining(until, _), .. }) = &self.roll else { return };
        let settled = match &self.tail {
            Tail::Writing(writing) => writing.owner.lac() == writing.owner.assigned(),
            _ => true,
        };
        if settled || now >= *until {
            self.freeze(now, common);
        }
    }

    fn freeze(&mut self, now: Time, common: &mut Common) {
        let Some(roll) = &mut self.roll else { return };
        let Step::Draining(_, choice) = &mut roll.step else { return };
        let choice = choice.take();
        let enforce = if roll.to.is_some() { R::HANDOVER_FREEZES } else { R::FREEZE_BEFORE_ROLL };
        let (closing, base_offset) = match &mut self.tail {
            Tail::Writing(writing) => (Some(writing.owner.freeze(enforce)), writing.owner.spec().base_offset),
            _ => (None, 0),
        };
        let Some(command) = command(common, self.epoch, closing.as_ref(), choice.as_ref(), roll.to) else {
            self.roll = None;
            return self.pump(now, common);
        };
        let decision = Decision::propose(common, command);
        roll.step = Step::Deciding(Box::new(Deciding { closing, base_offset, decision, repicking: None }));
    }

    /// News of the committed record under our own epoch.
    pub fn on_info(&mut self, now: Time, common: &mut Common, record: &PartitionRecord) {
        match &mut self.tail {
            Tail::Writing(writing) => {
                let n = writing.owner.segment().n;
                let deciding = match &self.roll {
                    Some(Roll { step: Step::Deciding(deciding), .. }) => {
                        deciding.closing.as_ref().map(|c| (c, deciding))
                    }
                    _ => None,
                };
                let Some((closing, deciding)) = deciding else {
                    if record.open.as_ref().is_none_or(|open| open.n != n) {
                        self.fall = Some(Fall::Restart);
                    }
                    return;
                };
                match verdict(record, closing, deciding.base_offset) {
                    Verdict::StillOpen => {}
                    Verdict::ClosedOtherwise => self.fall = Some(Fall::Restart),
                    Verdict::Closed => {
                        self.carried = writing.owner.suffix(closing.entries);
                        self.drain_owner(common);
                        self.after_close(now, common, record);
                    }
                }
            }
            Tail::Opening(_) | Tail::None => {
                if let Some(open) = &record.open {
                    self.start_segment(now, common, open);
                }
            }
        }
    }

    fn after_close(&mut self, now: Time, common: &mut Common, record: &PartitionRecord) {
        let why = self.roll.take().map(|roll| roll.why);
        self.tail = Tail::None;
        self.quorum_lost = false;
        if why == Some(Why::QuorumLost) {
            self.fruitless = self.fruitless.saturating_add(1);
            self.quorum_roll_not_before = now + common.config.roll_retry * self.patience(4);
        }
        let restless = matches!(why, Some(Why::Lag | Why::Widen));
        if restless {
            // A member that is slow, not dead, comes back and is left behind again: ever more rarely.
            let again = now.since(self.restless_at) < LAG_MEMORY;
            self.restless = if again { self.restless.saturating_add(1) } else { 0 };
            self.restless_at = now;
        }
        let doublings = if restless { self.restless.min(6) } else { 0 };
        self.roll_not_before = now + common.config.roll_retry * (1 << doublings);
        match &record.open {
            Some(open) => self.start_segment(now, common, open),
            None => self.pump(now, common),
        }
    }

    /// What the next owner needs, if the record says that our handover is what moved the partition.
    pub fn transfer(&self, record: &PartitionRecord) -> Option<(SessionId, Transfer)> {
        let Some(Roll { step: Step::Deciding(deciding), .. }) = &self.roll else { return None };
        let upto = match &deciding.closing {
            Some(closing) if verdict(record, closing, deciding.base_offset) == Verdict::Closed => closing.end_offset,
            Some(_) => return None,
            None => self.high_watermark,
        };
        let last = record.last.as_ref().filter(|last| last.end_offset == upto)?;
        let snapshot = self.table.snapshot_at(upto);
        Some((record.owner.as_ref()?.session, Transfer { digest: last.digest, end_offset: upto, snapshot }))
    }
}

/// The command that ends the segment; None: there is nothing to end and nowhere to go.
fn command(
    common: &Common,
    epoch: Epoch,
    closing: Option<&Closing>,
    choice: Option<&MemberChoice>,
    to: Option<SessionId>,
) -> Option<Command> {
    let next_n = common.record()?.next_n;
    let next = choice.map(|choice| next_of(closing.map_or(next_n, |c| c.segment.n + 1), choice));
    let partition = common.id;
    match (closing, to) {
        (closing, Some(to_session)) => {
            let close = closing.map(close_of);
            // An idle partition stays without a segment until its new owner gets a batch.
            let next = if close.is_some() { next } else { None };
            Some(Command::from(Handover { partition, epoch, close, to_session, next }))
        }
        (Some(closing), None) => Some(Command::from(RollCommand { partition, epoch, close: close_of(closing), next })),
        (None, None) => None,
    }
}
