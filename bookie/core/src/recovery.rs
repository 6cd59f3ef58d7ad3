//! Recovery of an OPEN segment by a new owner (R7): fence, find the end, make an ack quorum of whole copies, close.
//!
//! ```text
//! FENCE all ─► coverage answered ─► end ─► read from the last snapshot ─┬─► Done(closing)
//!                                     └──► write back to Qa copies ─────┘
//! ```
//! The end comes from the fence answers alone and may only fall while more of them come, until `Done`.

mod chain_reader;
mod copy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::time::Duration;

use esker_types::entry::CHAIN_START;
use esker_types::{Entry, EntryHeader, EntryId, Epoch, Member, Rules, SegmentId, Time};

pub use self::chain_reader::{ChainReader, ReadOutcome, ReadRequest};
use self::copy::{Copy, WriteBack};
use crate::owner::{Add, AddAnswer, AddAnswerKind, Closing, FenceAnswer, FenceAnswerKind, SegmentSpec, Totals};
use crate::quorum;

/// Times of one recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryLimits {
    /// A fence, or a write-back without progress, is sent again after this.
    pub retry: Duration,
    /// So long a missing ack quorum is waited for before a substitute is asked for.
    pub substitute_after: Duration,
    /// So long without an end in sight before a person is told; repeated at this pace.
    pub alarm_after: Duration,
}

impl Default for RecoveryLimits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { retry: Duration::from_millis(500), substitute_after: s(2), alarm_after: s(10) }
    }
}

/// What recovery wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryEffect {
    Fence {
        member: Member,
        segment: SegmentId,
        epoch: Epoch,
    },
    /// Answer with `on_read` and the same id.
    Read {
        id: u64,
        request: ReadRequest,
    },
    Send(Add),
    /// The end fell: forget all `Entry` effects so far.
    Restart,
    /// Next entry from the last complete snapshot on.
    Entry(Entry),
    /// The ack quorum is out of reach with the members: name `needed` bookies outside `exclude`, put intents for
    /// them, then call `add_substitute`.
    NeedSubstitute {
        needed: usize,
        exclude: Vec<Member>,
    },
    /// A higher epoch is at work: step down.
    Fenced {
        max_epoch: Epoch,
    },
    /// A copy has other bytes than the others: a bug.
    Conflict {
        member: Member,
        entry: EntryId,
    },
    Alarm(RecoveryAlarm),
    /// Roll with this. `totals` counts only what was read: the caller knows the rest from the snapshot.
    Done(Closing),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryAlarm {
    NoCoverage {
        answered: usize,
        needed: usize,
    },
    /// Entries `0..acked` were acked, but the answers prove only `0..end`: more copies were lost than the quorum bears.
    Loss {
        acked: u64,
        end: u64,
    },
    Unreadable {
        entry: EntryId,
    },
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Rebuild,
    WriteBack(Member),
}

/// See the module.
pub struct Recovery<R> {
    spec: SegmentSpec,
    epoch: Epoch,
    limits: RecoveryLimits,
    copies: Vec<Copy>,
    end: Option<u64>,
    rebuild: Option<ChainReader>,
    reads: BTreeMap<u64, (Purpose, u64)>,
    next_read: u64,
    /// Raised when the end falls: answers to older reads are stale.
    round: u64,
    started: Time,
    fence_at: Time,
    alarm_at: Time,
    short_since: Option<Time>,
    substitutes_asked: bool,
    totals: Totals,
    done: bool,
    effects: VecDeque<RecoveryEffect>,
    rules: PhantomData<R>,
}

impl<R: Rules> Recovery<R> {
    /// `epoch`: what `Assign` gave to this owner.
    pub fn start(now: Time, spec: SegmentSpec, epoch: Epoch, limits: RecoveryLimits) -> Self {
        let copies = spec.members.iter().map(|m| Copy::new(*m, false)).collect();
        let mut recovery = Self {
            epoch,
            limits,
            copies,
            end: None,
            rebuild: None,
            reads: BTreeMap::new(),
            next_read: 0,
            round: 0,
            started: now,
            fence_at: now,
            alarm_at: now + limits.alarm_after,
            short_since: None,
            substitutes_asked: false,
            totals: Totals::default(),
            done: false,
            effects: VecDeque::new(),
            rules: PhantomData,
            spec,
        };
        recovery.send_fences(now);
        recovery
    }

    pub fn spec(&self) -> &SegmentSpec {
        &self.spec
    }

    pub fn started(&self) -> Time {
        self.started
    }

    pub fn poll(&mut self) -> Option<RecoveryEffect> {
        self.effects.pop_front()
    }

    /// When `tick` has something to do next.
    pub fn deadline(&self) -> Option<Time> {
        (!self.done).then(|| self.fence_at.min(self.alarm_at))
    }

    pub fn on_fence(&mut self, now: Time, answer: &FenceAnswer) {
        if self.done || answer.segment != self.spec.segment || answer.req_epoch != self.epoch {
            return;
        }
        let Some(copy) = self.copies.iter_mut().find(|c| c.member.instance == answer.instance) else { return };
        match answer.kind {
            FenceAnswerKind::Fenced { max_epoch } => {
                self.done = true;
                self.effects.push_back(RecoveryEffect::Fenced { max_epoch });
            }
            FenceAnswerKind::WrongInstance => copy.gone = true,
            FenceAnswerKind::Ok { durable, lac, limbo } => {
                copy.lac = copy.lac.max(lac);
                copy.limbo = limbo && R::LIMBO_EXCLUDED;
                if !copy.limbo {
                    // The first answer without limbo stands: later ones count what this recovery wrote back itself.
                    copy.fenced_at.get_or_insert(durable);
                    copy.durable = copy.durable.max(durable);
                }
                self.find_end();
            }
        }
        self.advance(now);
    }

    pub fn on_answer(&mut self, now: Time, answer: &AddAnswer) {
        if self.done || answer.segment != self.spec.segment || answer.req_epoch != self.epoch {
            return;
        }
        let Some(copy) = self.copies.iter_mut().find(|c| c.member.instance == answer.instance) else { return };
        match answer.kind {
            AddAnswerKind::Ok { durable } => {
                copy.progress(now, durable);
            }
            AddAnswerKind::Gap { accepted } => {
                // It holds less than its fence answer or our window said: read again from where it stands.
                let behind =
                    copy.write.as_ref().and_then(|w| w.window.first()).is_some_and(|e| accepted < e.header.entry);
                if behind && accepted >= copy.durable {
                    copy.write = None;
                }
            }
            AddAnswerKind::Fenced { max_epoch } => {
                self.done = true;
                self.effects.push_back(RecoveryEffect::Fenced { max_epoch });
            }
            AddAnswerKind::Conflict { entry } => {
                self.done = true;
                self.effects.push_back(RecoveryEffect::Conflict { member: copy.member, entry });
            }
            AddAnswerKind::ReadOnly | AddAnswerKind::Limbo => copy.refused = true,
            AddAnswerKind::WrongInstance => copy.gone = true,
        }
        self.advance(now);
    }

    pub fn on_read(&mut self, now: Time, id: u64, outcome: ReadOutcome) {
        let Some((purpose, round)) = self.reads.remove(&id) else { return };
        if self.done || round != self.round {
            return;
        }
        match purpose {
            Purpose::Rebuild => {
                let Some(reader) = &mut self.rebuild else { return };
                for entry in reader.on_read(outcome) {
                    self.totals.add(&entry, entry.header.max_ts);
                    self.effects.push_back(RecoveryEffect::Entry(entry));
                }
            }
            Purpose::WriteBack(member) => {
                let copy = self.copies.iter_mut().find(|c| c.member == member);
                let Some(write) = copy.and_then(|c| c.write.as_mut()) else { return };
                let entries = write.reader.on_read(outcome);
                (write.since, write.resent_at) = (now, now);
                for entry in entries {
                    self.effects.push_back(RecoveryEffect::Send(add(&self.spec, self.epoch, member, entry.clone())));
                    write.window.push(entry);
                }
            }
        }
        self.advance(now);
    }

    /// A bookie outside the set that an intent protects from now on: it gets a whole copy.
    pub fn add_substitute(&mut self, now: Time, member: Member) {
        if self.done || self.copies.iter().any(|c| c.member.bookie == member.bookie) {
            return;
        }
        self.copies.push(Copy::new(member, true));
        self.substitutes_asked = false;
        self.short_since = None;
        self.advance(now);
    }

    /// No substitute could be found or protected; it is asked for again later.
    pub fn no_substitute(&mut self, now: Time) {
        self.substitutes_asked = false;
        self.short_since = Some(now);
    }

    /// The connection to a member was made anew: what was sent on the old one may be lost.
    pub fn on_link(&mut self, now: Time, instance: esker_types::InstanceId) {
        if self.done {
            return;
        }
        let Some(copy) = self.copies.iter_mut().find(|c| c.member.instance == instance) else { return };
        if let Some(write) = &mut copy.write {
            write.resent_at = now;
            for entry in &write.window {
                self.effects.push_back(RecoveryEffect::Send(add(&self.spec, self.epoch, copy.member, entry.clone())));
            }
        }
        if copy.fenced_at.is_none() && !copy.substitute {
            let (segment, epoch) = (self.spec.segment, self.epoch);
            self.effects.push_back(RecoveryEffect::Fence { member: copy.member, segment, epoch });
        }
    }

    pub fn tick(&mut self, now: Time) {
        if self.done {
            return;
        }
        if now >= self.fence_at {
            self.send_fences(now);
            self.resend_writes(now);
            for reader in self.copies.iter_mut().filter_map(|c| c.write.as_mut().map(|w| &mut w.reader)) {
                reader.retry();
            }
            if let Some(reader) = &mut self.rebuild {
                reader.retry();
            }
        }
        self.advance(now);
        if now >= self.alarm_at {
            self.alarm_at = now + self.limits.alarm_after;
            self.alarm();
        }
    }

    fn send_fences(&mut self, now: Time) {
        self.fence_at = now + self.limits.retry;
        let (segment, epoch) = (self.spec.segment, self.epoch);
        // A copy in limbo is asked again: it may have been cleared. Substitutes hold nothing that must be fenced.
        for copy in self.copies.iter().filter(|c| !c.substitute && !c.gone && (c.fenced_at.is_none() || c.limbo)) {
            self.effects.push_back(RecoveryEffect::Fence { member: copy.member, segment, epoch });
        }
    }

    fn resend_writes(&mut self, now: Time) {
        for copy in &mut self.copies {
            let Some(write) = copy.write.as_mut().filter(|w| !w.window.is_empty()) else { continue };
            copy.stalled = now.since(write.since) >= self.limits.retry * 2;
            if now.since(write.resent_at) >= self.limits.retry {
                write.resent_at = now;
                for entry in &write.window {
                    let again = add(&self.spec, self.epoch, copy.member, entry.clone());
                    self.effects.push_back(RecoveryEffect::Send(again));
                }
            }
        }
    }

    /// Answers that count for coverage: given by members of the set, the right instances, while not in limbo.
    fn covered(&self) -> impl Iterator<Item = u64> + '_ {
        self.copies.iter().filter_map(|c| c.fenced_at)
    }

    fn find_end(&mut self) {
        let needed = if R::RECOVERY_COVERAGE { self.spec.quorum.coverage() } else { 1 };
        let Some(end) = quorum::recovery_end(self.covered(), needed) else { return };
        match self.end {
            Some(known) if end >= known => return,
            Some(_) => self.effects.push_back(RecoveryEffect::Restart),
            None => {}
        }
        self.end = Some(end);
        self.round += 1;
        self.totals = Totals::default();
        for copy in &mut self.copies {
            copy.write = None;
        }
        let SegmentSpec { segment, seg_epoch, .. } = self.spec;
        self.rebuild = (end > 0).then(|| ChainReader::from_snapshot(segment, seg_epoch, end, None));
    }

    /// Does whatever can be done now.
    fn advance(&mut self, now: Time) {
        if self.done {
            return;
        }
        let Some(end) = self.end else { return };
        if self.lost_beyond(end).is_some() {
            return; // never guess: more answers, or the operator, must help
        }
        let Some(rebuild) = &self.rebuild else {
            return self.finish_empty();
        };
        if let Some(tail) = rebuild.tail().copied() {
            if tail.end_offset() == self.spec.base_offset {
                return self.finish(&tail, end, true); // no records: it will be dropped from the chain
            }
            self.write_back(now, &tail, end);
            let whole = self.holders(end);
            let enough = whole.len() >= usize::from(self.spec.quorum.ack) || !R::WRITE_BACK;
            if enough && self.rebuild.as_ref().is_some_and(ChainReader::is_done) {
                return self.finish(&tail, end, false);
            }
        }
        self.send_reads(end);
    }

    fn lost_beyond(&self, end: u64) -> Option<u64> {
        self.copies.iter().map(|c| c.lac).max().filter(|acked| *acked > end)
    }

    /// Copies that hold `0..end`, as far as the rules demand.
    fn holders(&self, end: u64) -> Vec<Member> {
        let holds = |c: &&Copy| match R::WRITE_BACK_WHOLE_SUFFIX {
            true => c.durable >= end,
            // The mutant takes the first acked entry of a write-back for the whole of it.
            false => c.durable >= end || c.write.is_some() && c.fenced_at.is_none_or(|at| c.durable > at),
        };
        let candidates = self.copies.iter().filter(|c| !c.limbo && !c.gone && (c.substitute || c.fenced_at.is_some()));
        match R::WRITE_BACK {
            true => candidates.filter(holds).map(|c| c.member).collect(),
            false => self.spec.members.clone(),
        }
    }

    fn write_back(&mut self, now: Time, tail: &EntryHeader, end: u64) {
        if !R::WRITE_BACK {
            return;
        }
        let mut order: Vec<usize> = (0..self.copies.len()).filter(|i| self.copies[*i].is_candidate()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(self.copies[*i].durable));
        let stalled = self.copies.iter().filter(|c| c.stalled).count();
        self.ask_substitutes(now, order.len().saturating_sub(stalled));
        for index in order.into_iter().take(usize::from(self.spec.quorum.ack) + stalled) {
            let copy = &mut self.copies[index];
            if copy.durable >= end || copy.write.is_some() {
                continue;
            }
            let SegmentSpec { segment, seg_epoch, .. } = self.spec;
            let reader = ChainReader::range(segment, seg_epoch, copy.durable, end, tail.chain);
            copy.write = Some(WriteBack { reader, window: Vec::new(), since: now, resent_at: now });
        }
    }

    fn ask_substitutes(&mut self, now: Time, candidates: usize) {
        let needed = usize::from(self.spec.quorum.ack).saturating_sub(candidates);
        if needed == 0 {
            self.short_since = None;
            return;
        }
        let since = *self.short_since.get_or_insert(now);
        if !self.substitutes_asked && now.since(since) >= self.limits.substitute_after {
            self.substitutes_asked = true;
            let exclude = self.copies.iter().map(|c| c.member).collect();
            self.effects.push_back(RecoveryEffect::NeedSubstitute { needed, exclude });
        }
    }

    fn send_reads(&mut self, end: u64) {
        let mut wanted = Vec::new();
        if let Some(reader) = &mut self.rebuild {
            let needs = if reader.tail().is_none() { end } else { reader.next() + 1 };
            reader.set_sources(sources(&self.copies, needs, None));
            wanted.extend(reader.request().map(|request| (Purpose::Rebuild, request)));
        }
        for index in 0..self.copies.len() {
            let (target, next) = (self.copies[index].member, self.copies[index].next());
            let from = sources(&self.copies, next + 1, Some(target));
            // One window at a time: the copy's disk sets the pace, and what is in memory stays bounded.
            let Some(write) = self.copies[index].write.as_mut().filter(|w| w.window.is_empty()) else { continue };
            write.reader.set_sources(from);
            wanted.extend(write.reader.request().map(|request| (Purpose::WriteBack(target), request)));
        }
        for (purpose, request) in wanted {
            let id = self.next_read;
            self.next_read += 1;
            self.reads.insert(id, (purpose, self.round));
            self.effects.push_back(RecoveryEffect::Read { id, request });
        }
    }

    fn finish_empty(&mut self) {
        let closing = Closing {
            segment: self.spec.segment,
            entries: 0,
            end_offset: self.spec.base_offset,
            digest: CHAIN_START,
            totals: Totals::default(),
            holders: self.spec.members.clone(),
        };
        self.done = true;
        self.effects.push_back(RecoveryEffect::Done(closing));
    }

    fn finish(&mut self, tail: &EntryHeader, end: u64, dropped: bool) {
        let holders = if dropped { self.spec.members.clone() } else { self.holders(end) };
        let closing = Closing {
            segment: self.spec.segment,
            entries: end,
            end_offset: tail.end_offset(),
            digest: tail.chain,
            totals: self.totals,
            holders,
        };
        self.done = true;
        self.effects.push_back(RecoveryEffect::Done(closing));
    }

    fn alarm(&mut self) {
        let needed = self.spec.quorum.coverage();
        let stuck = self.rebuild.iter().chain(self.copies.iter().filter_map(|c| c.write.as_ref().map(|w| &w.reader)));
        let alarm = match self.end {
            None => Some(RecoveryAlarm::NoCoverage { answered: self.covered().count(), needed }),
            Some(end) => match self.lost_beyond(end) {
                Some(acked) => Some(RecoveryAlarm::Loss { acked, end }),
                None => stuck.filter_map(ChainReader::stuck).next().map(|entry| RecoveryAlarm::Unreadable { entry }),
            },
        };
        self.effects.extend(alarm.map(RecoveryEffect::Alarm));
    }
}

/// Copies that can serve entries `0..needs`, the fullest first, those in limbo last: they may only add data.
fn sources(copies: &[Copy], needs: u64, except: Option<Member>) -> Vec<Member> {
    let usable = copies.iter().filter(|c| !c.gone && Some(c.member) != except);
    let mut found: Vec<&Copy> = usable.filter(|c| c.limbo || c.durable >= needs).collect();
    found.sort_by_key(|c| (c.limbo, std::cmp::Reverse(c.durable)));
    found.into_iter().map(|c| c.member).collect()
}

fn add(spec: &SegmentSpec, req_epoch: Epoch, member: Member, entry: Entry) -> Add {
    // The LAC that a recoverer knows for sure is not worth sending: the Roll tells all.
    Add { member, segment: spec.segment, req_epoch, lac: 0, recovery: true, entry }
}
