//! From ownership to readiness: recover an OPEN tail if there is one, then know what every producer did last.

use std::collections::BTreeMap;

use esker_bookie_core::owner::{AddAnswer, Closing, FenceAnswer, Totals};
use esker_bookie_core::recovery::{ChainReader, ReadOutcome, Recovery, RecoveryAlarm, RecoveryEffect, RecoveryLimits};
use esker_metadata_core::{Command, OpenSegment, PartitionRecord, PutIntent, Roll};
use esker_types::{Epoch, InstanceId, Member, Offset, Quorum, Rules, SegmentId, Time};

use super::active::Fall;
use super::common::{Common, Verdict, close_of, verdict};
use super::decision::Decision;
use super::event::{Alarm, Effect, EntriesRead, MemberChoice, ProposeOutcome, Tag, Transfer};
use super::snapshot::{Rebuild, table_of};
use crate::producers::ProducerTable;

pub(super) struct Recovering<R: Rules> {
    epoch: Epoch,
    step: Step<R>,
    pub ready: Option<ProducerTable<R>>,
    pub fall: Option<Fall>,
}

enum Step<R: Rules> {
    Fencing(Box<Fencing<R>>),
    Closing(Box<ClosingStep<R>>),
    Reading(Box<Reading<R>>),
    Over,
}

struct Fencing<R: Rules> {
    recovery: Recovery<R>,
    rebuild: Rebuild<R>,
    reads: BTreeMap<Tag, u64>,
    substitute: Option<Substitute>,
}

/// A bookie outside the set is on its way in.
struct Substitute {
    needed: usize,
    tag: Tag,
    /// Chosen, their intents not all put yet; the last one's proposal is under way.
    chosen: Vec<Member>,
}

struct ClosingStep<R: Rules> {
    closing: Closing,
    base_offset: Offset,
    decision: Decision,
    table: Option<ProducerTable<R>>,
}

struct Reading<R: Rules> {
    reader: ChainReader,
    rebuild: Rebuild<R>,
    asked: Option<Tag>,
    retry_at: Option<Time>,
    alarm_at: Time,
    digest: u64,
}

impl<R: Rules> Recovering<R> {
    pub fn begin(now: Time, common: &mut Common, epoch: Epoch, transfer: Option<&Transfer>) -> Self {
        let mut this = Self { epoch, step: Step::Over, ready: None, fall: None };
        let Some(record) = common.record().cloned() else { return this };
        match &record.open {
            Some(open) if may_start::<R>(common, open, epoch) => this.read_tail(now, common, transfer),
            Some(open) if open.seg_epoch == epoch => this.fall = Some(Fall::NeedAssign),
            Some(open) => {
                let recovery = Recovery::start(now, common.spec(open), epoch, common.config.recovery);
                let rebuild = Rebuild::new(common.config.table);
                let fencing = Fencing { recovery, rebuild, reads: BTreeMap::new(), substitute: None };
                this.step = Step::Fencing(Box::new(fencing));
                this.drain(now, common);
            }
            None => this.read_tail(now, common, transfer),
        }
        this
    }

    pub fn deadline(&self) -> Option<Time> {
        match &self.step {
            Step::Fencing(fencing) => fencing.recovery.deadline(),
            Step::Closing(closing) => closing.decision.deadline(),
            Step::Reading(reading) => reading.retry_at,
            Step::Over => None,
        }
    }

    pub fn tick(&mut self, now: Time, common: &mut Common) {
        match &mut self.step {
            Step::Fencing(fencing) => fencing.recovery.tick(now),
            Step::Closing(closing) if closing.decision.is_due(now) => closing.decision.again(common),
            Step::Reading(reading) if reading.retry_at.is_some_and(|at| now >= at) => {
                reading.retry_at = None;
                if now >= reading.alarm_at {
                    reading.alarm_at = now + common.config.recovery.alarm_after;
                    let (segment, entry) = (tail_segment(common), reading.reader.next());
                    common.emit(Effect::Alarm(Alarm::Unreadable { segment, entry }));
                }
                reading.reader.retry();
                self.ask(now, common);
            }
            _ => {}
        }
        self.drain(now, common);
    }

    pub fn on_fence(&mut self, now: Time, common: &mut Common, answer: &FenceAnswer) {
        if let Step::Fencing(fencing) = &mut self.step {
            fencing.recovery.on_fence(now, answer);
            self.drain(now, common);
        }
    }

    pub fn on_add_answer(&mut self, now: Time, common: &mut Common, answer: &AddAnswer) {
        if let Step::Fencing(fencing) = &mut self.step {
            fencing.recovery.on_answer(now, answer);
            self.drain(now, common);
        }
    }

    pub fn on_link(&mut self, now: Time, common: &mut Common, instance: InstanceId) {
        if let Step::Fencing(fencing) = &mut self.step {
            fencing.recovery.on_link(now, instance);
            self.drain(now, common);
        }
    }

    pub fn on_entries(&mut self, now: Time, common: &mut Common, tag: Tag, result: EntriesRead) {
        let outcome = match result {
            EntriesRead::Data(blobs) => ReadOutcome::Data(blobs),
            EntriesRead::NoSuchEntry | EntriesRead::Failed => ReadOutcome::Failed,
        };
        match &mut self.step {
            Step::Fencing(fencing) => {
                let Some(id) = fencing.reads.remove(&tag) else { return };
                fencing.recovery.on_read(now, id, outcome);
                self.drain(now, common);
            }
            Step::Reading(reading) if reading.asked == Some(tag) => {
                reading.asked = None;
                for entry in reading.reader.on_read(outcome) {
                    reading.rebuild.push(&entry);
                }
                self.ask(now, common);
            }
            _ => {}
        }
    }

    pub fn on_members(&mut self, now: Time, common: &mut Common, tag: Tag, choice: Option<MemberChoice>) {
        let Step::Fencing(fencing) = &mut self.step else { return };
        let Some(substitute) = fencing.substitute.as_mut().filter(|s| s.tag == tag && s.chosen.is_empty()) else {
            return;
        };
        let mut chosen = choice.map(|c| c.members).unwrap_or_default();
        chosen.truncate(substitute.needed);
        let Some(member) = chosen.last().copied() else {
            fencing.substitute = None;
            fencing.recovery.no_substitute(now);
            return;
        };
        substitute.chosen = chosen;
        substitute.tag = put_intent(common, fencing.recovery.spec().segment, self.epoch, member);
    }

    pub fn on_proposed(&mut self, now: Time, common: &mut Common, tag: Tag, outcome: &ProposeOutcome) {
        match &mut self.step {
            Step::Closing(closing) => closing.decision.on_proposed(common, tag, outcome),
            Step::Fencing(fencing) => {
                let Some(substitute) = fencing.substitute.as_mut().filter(|s| s.tag == tag) else { return };
                if !matches!(outcome, ProposeOutcome::Applied { .. }) {
                    // Also when unknown: an intent too many does no harm, and it runs out.
                    fencing.substitute = None;
                    fencing.recovery.no_substitute(now);
                    return;
                }
                let ready = substitute.chosen.pop();
                match substitute.chosen.last().copied() {
                    Some(next) => {
                        substitute.tag = put_intent(common, fencing.recovery.spec().segment, self.epoch, next);
                    }
                    None => fencing.substitute = None,
                }
                if let Some(member) = ready {
                    fencing.recovery.add_substitute(now, member);
                }
                self.drain(now, common);
            }
            Step::Reading(_) | Step::Over => {}
        }
    }

    pub fn on_record_read(&mut self, now: Time, tag: Tag) {
        if let Step::Closing(closing) = &mut self.step
            && closing.decision.on_read(now, tag)
            && closing.decision.rejected.is_some()
        {
            // An intent ran out, or something else that proposing the same again won't mend. Nothing was served or
            // acked under this epoch yet, so another end would be as good: recover anew.
            self.fall = Some(Fall::Restart);
        }
    }

    /// News under our own epoch.
    pub fn on_info(&mut self, now: Time, common: &mut Common, record: &PartitionRecord) {
        match &mut self.step {
            Step::Fencing(fencing) => {
                let n = fencing.recovery.spec().segment.n;
                if record.open.as_ref().is_none_or(|open| open.n != n) {
                    self.fall = Some(Fall::Restart);
                }
            }
            Step::Closing(closing) => match verdict(record, &closing.closing, closing.base_offset) {
                Verdict::StillOpen => {}
                Verdict::ClosedOtherwise => self.fall = Some(Fall::Restart),
                Verdict::Closed if closing.closing.end_offset == closing.base_offset => {
                    self.step = Step::Over;
                    self.read_tail(now, common, None);
                }
                Verdict::Closed => {
                    self.ready = closing.table.take();
                    self.step = Step::Over;
                }
            },
            Step::Reading(reading) => {
                if record.last.as_ref().is_none_or(|last| last.digest != reading.digest) {
                    self.fall = Some(Fall::Restart);
                }
            }
            Step::Over => {}
        }
    }

    /// What the previous owner sent; it may spare us the reading.
    pub fn on_transfer(&mut self, common: &Common, transfer: &Transfer) {
        if let Step::Reading(reading) = &self.step
            && reading.digest == transfer.digest
            && let Some(table) = table_of(&transfer.snapshot, common.config.table)
        {
            self.ready = Some(table);
            self.step = Step::Over;
        }
    }

    /// The chain ends in a closed segment, or nothing was ever written.
    fn read_tail(&mut self, now: Time, common: &mut Common, transfer: Option<&Transfer>) {
        let Some(last) = common.last() else {
            self.ready = Some(ProducerTable::new(common.config.table));
            return;
        };
        let sent = transfer.filter(|t| t.digest == last.digest && t.end_offset == last.end_offset);
        if let Some(table) = sent.and_then(|t| table_of(&t.snapshot, common.config.table)) {
            self.ready = Some(table);
            return;
        }
        let deleted = common.record().is_some_and(|record| last.end_offset <= record.log_start);
        if deleted && common.closed_tail().is_none_or(|closed| closed.holders.is_empty()) {
            // It was in the bucket alone and retention or a user let it go: its object is deleted, or may be any time,
            // and what its producers did goes with it, as it does on Kafka.
            self.ready = Some(ProducerTable::starting_at(common.config.table, last.end_offset));
            return;
        }
        let Some(closed) = common.closed_tail().cloned() else {
            let alarm = Alarm::BadChain { segment: tail_segment(common), what: "the tail segment has no record" };
            return self.stop(common, alarm);
        };
        let mut reader = ChainReader::from_snapshot(closed.segment, closed.seg_epoch, last.last + 1, Some(last.digest));
        let others = closed.members.iter().filter(|m| !closed.holders.contains(m));
        // After a restore, or when all copies are gone, the object alone can tell what its producers did.
        let bucket = closed.object.is_some().then_some(Member::BUCKET);
        reader.set_sources(closed.holders.iter().chain(others).copied().chain(bucket).collect());
        let rebuild = Rebuild::new(common.config.table);
        let alarm_at = now + common.config.recovery.alarm_after;
        let reading = Reading { reader, rebuild, asked: None, retry_at: None, alarm_at, digest: last.digest };
        self.step = Step::Reading(Box::new(reading));
        self.ask(now, common);
    }

    /// The next READ of the closed tail, or the end of it.
    fn ask(&mut self, now: Time, common: &mut Common) {
        let Step::Reading(reading) = &mut self.step else { return };
        if reading.reader.is_done() {
            let Step::Reading(reading) = std::mem::replace(&mut self.step, Step::Over) else { return };
            let end = common.last().map(|last| last.end_offset);
            match reading.rebuild.finish() {
                Some((table, _)) if Some(table.committed_end()) == end => self.ready = Some(table),
                _ => self.stop(common, Alarm::BadChain { segment: tail_segment(common), what: "producer state" }),
            }
            return;
        }
        if let Some(request) = reading.reader.request() {
            let tag = common.tag();
            reading.asked = Some(tag);
            emit_read(common, tag, tail_segment(common), request.member, (request.from, request.to));
        } else if reading.asked.is_none() {
            let RecoveryLimits { retry, .. } = common.config.recovery;
            reading.retry_at = Some(now + retry);
        }
    }

    fn stop(&mut self, common: &mut Common, alarm: Alarm) {
        self.step = Step::Over;
        self.fall = Some(Fall::Stop);
        common.emit(Effect::Alarm(alarm));
    }

    /// Passes on what recovery wants.
    fn drain(&mut self, _now: Time, common: &mut Common) {
        while let Step::Fencing(fencing) = &mut self.step
            && let Some(effect) = fencing.recovery.poll()
        {
            let segment = fencing.recovery.spec().segment;
            match effect {
                RecoveryEffect::Fence { member, segment, epoch } => {
                    common.emit(Effect::SendFence { member, segment, epoch });
                }
                RecoveryEffect::Send(add) => common.emit(Effect::SendAdd(add)),
                RecoveryEffect::Read { id, request } => {
                    let tag = common.tag();
                    fencing.reads.insert(tag, id);
                    emit_read(common, tag, segment, request.member, (request.from, request.to));
                }
                RecoveryEffect::Restart => fencing.rebuild = Rebuild::new(common.config.table),
                RecoveryEffect::Entry(entry) => fencing.rebuild.push(&entry),
                RecoveryEffect::NeedSubstitute { needed, exclude } => {
                    let tag = common.tag();
                    let width = u8::try_from(needed).unwrap_or(Quorum::WRITE_MAX);
                    let exclude = exclude.iter().map(|m| m.bookie).collect();
                    common.emit(Effect::PickMembers { tag, wanted: Quorum { write: width, ack: 1 }, exclude });
                    fencing.substitute = Some(Substitute { needed, tag, chosen: Vec::new() });
                }
                RecoveryEffect::Fenced { .. } => self.fall = Some(Fall::Fenced),
                RecoveryEffect::Conflict { member, entry } => {
                    self.stop(common, Alarm::Conflict { segment, entry, instance: member.instance });
                }
                RecoveryEffect::Alarm(alarm) => common.emit(Effect::Alarm(alarm_of(segment, alarm))),
                RecoveryEffect::Done(closing) => self.close(common, closing),
            }
        }
    }

    fn close(&mut self, common: &mut Common, mut closing: Closing) {
        let Step::Fencing(fencing) = std::mem::replace(&mut self.step, Step::Over) else { return };
        let base_offset = fencing.recovery.spec().base_offset;
        let mut table = None;
        if closing.end_offset > base_offset {
            let Some((rebuilt, totals)) =
                fencing.rebuild.finish().filter(|(t, _)| t.committed_end() == closing.end_offset)
            else {
                return self.stop(common, Alarm::BadChain { segment: closing.segment, what: "producer state" });
            };
            closing.totals = Totals { has_data: true, ..totals };
            table = Some(rebuilt);
        }
        let roll = Roll { partition: common.id, epoch: self.epoch, close: close_of(&closing), next: None };
        let decision = Decision::propose(common, Command::from(roll));
        self.step = Step::Closing(Box::new(ClosingStep { closing, base_offset, decision, table }));
    }
}

/// R6: the record names our session, and this process never started the segment before.
fn may_start<R: Rules>(common: &Common, open: &OpenSegment, epoch: Epoch) -> bool {
    let own = open.session == common.session && open.n > common.started_upto;
    open.seg_epoch == epoch && (own || !R::OWN_START_ONLY)
}

fn tail_segment(common: &Common) -> SegmentId {
    let n = common.last().map_or(0, |last| last.n);
    SegmentId { partition: common.id, n }
}

fn emit_read(common: &mut Common, tag: Tag, segment: SegmentId, member: Member, (from, to): (u64, u64)) {
    let bytes_max = common.config.read_bytes;
    common.emit(Effect::ReadEntries { tag, member, segment, from, to, bytes_max });
}

fn put_intent(common: &mut Common, segment: SegmentId, epoch: Epoch, member: Member) -> Tag {
    let tag = common.tag();
    let command = Command::from(PutIntent { segment, ver: 0, epoch, member, ttl_ms: common.config.intent_ms });
    common.emit(Effect::Propose { tag, command });
    tag
}

fn alarm_of(segment: SegmentId, alarm: RecoveryAlarm) -> Alarm {
    match alarm {
        RecoveryAlarm::NoCoverage { answered, needed } => Alarm::NoCoverage { segment, answered, needed },
        RecoveryAlarm::Loss { acked, end } => Alarm::Loss { segment, acked, end },
        RecoveryAlarm::Unreadable { entry } => Alarm::Unreadable { segment, entry },
    }
}
