//! What a bookie does now and then: report, collect what metadata counts on no more, copy forward, leave limbo.

use esker_bookie_core::bookie::{BookieState, FileUse, ReadPlan};
use esker_bookie_core::journal::gc::{GcDecision, GcFacts, SegmentFact};
use esker_bookie_core::wire::Read;
use esker_metadata_core::{Command, ReportBookie, State, gc};
use esker_types::{Entry, EntryId, Rules, SegmentId};

use crate::sometimes::Case;
use crate::world::{What, World};

impl<R: Rules> World<R> {
    pub fn on_bookie_tick(&mut self, b: usize, boot: u64) {
        if self.bookies[b].boot != boot || !self.bookies[b].alive {
            return;
        }
        let again = self.rng.latency_ns(self.plan.upkeep_us());
        self.queue.after_ns(again, What::BookieTick { bookie: b, boot });
        if !self.bookies[b].is_serving() {
            return;
        }
        if self.rng.chance(150) {
            self.report_bookie(b);
        }
        self.drop_unneeded(b);
        self.leave_limbo(b);
        self.free_files(b);
        self.pump_bookie(b);
    }

    fn report_bookie(&mut self, b: usize) {
        let bookie = &self.bookies[b];
        let Some(state) = &bookie.state else { return };
        let report = self.report_of(b, bookie.boot_no, state.durable_lsn().0);
        self.apply_now(&[report]);
    }

    /// News of a process of this bookie; the older of two clones sends an older number.
    pub fn report_of(&self, b: usize, boot_no: u64, durable_lsn: u64) -> Command {
        let bookie = &self.bookies[b];
        Command::ReportBookie(ReportBookie {
            bookie: bookie.id,
            instance: bookie.instance,
            boot_no,
            durable_lsn,
            read_only: false,
            disk_total: 0,
            disk_used: 0,
        })
    }

    /// R14: only what a linearizable read allows, and the collector after it.
    fn drop_unneeded(&mut self, b: usize) {
        let Some(state) = &self.bookies[b].state else { return };
        let (instance, now) = (self.bookies[b].instance, self.queue.now());
        let local: Vec<SegmentId> = state.segment_ids().collect();
        let amnesia = now < self.objects.amnesia_until;
        let nothing = State::default();
        let known = if amnesia { &nothing } else { &self.metadata.state };
        let facts = local.iter().map(|segment| (*segment, fact(gc::verdict(known, instance, *segment))));
        let facts = GcFacts { incarnation: self.incarnation(), segments: facts.collect() };
        match self.bookies[b].gc.decide(now, &local, &facts) {
            GcDecision::Refuse(_) => self.cases.hit(Case::GcRefused),
            GcDecision::Drop(segments) => {
                for segment in segments {
                    let dropped =
                        self.bookies[b].state.as_mut().is_some_and(|state| state.drop_segment(segment).is_ok());
                    if dropped {
                        self.cases.hit(Case::GcDroppedSegment);
                        self.oracle.dropped(instance, segment);
                    }
                }
            }
        }
        let Some(state) = &mut self.bookies[b].state else { return };
        for partition in state.fenced_partitions().collect::<Vec<_>>() {
            if self.metadata.state.deleted(partition).is_some() && state.forget_partition(partition).is_err() {
                self.cases.hit(Case::GcRefused);
            }
        }
    }

    /// A copy in limbo becomes whole again: what is missing comes from other holders of the closed segment.
    fn leave_limbo(&mut self, b: usize) {
        let Some(state) = &self.bookies[b].state else { return };
        for segment in state.limbo_segments().collect::<Vec<_>>() {
            let Some(closed) = self.metadata.state.segment(segment).cloned() else { continue };
            let end = closed.last + 1;
            let missing: Vec<EntryId> = (0..end).filter(|e| self.read_own(b, segment, *e).is_none()).collect();
            for entry in &missing {
                let Some(found) = self.fetch_from_holders(b, segment, *entry) else { break };
                let Some(state) = &mut self.bookies[b].state else { return };
                if state.repair(segment, *entry, found.crc(), found.bytes.clone()).is_err() {
                    break;
                }
            }
            if missing.is_empty()
                && let Some(state) = &mut self.bookies[b].state
                && state.clear_limbo(segment, end).is_ok()
            {
                self.cases.hit(Case::LimboCleared);
            }
        }
    }

    /// An entry as this bookie itself can read it now.
    pub fn read_own(&self, b: usize, segment: SegmentId, entry: EntryId) -> Option<Entry> {
        let bookie = &self.bookies[b];
        let state = bookie.state.as_ref().filter(|_| bookie.is_serving())?;
        let read = Read { instance: bookie.instance, segment, from: entry, to: entry + 1, max_bytes: 1 };
        let response = match state.plan_read(&read) {
            ReadPlan::Answer(response) => response,
            ReadPlan::Fetch(fetch) => fetch.run(&bookie.disk).response,
        };
        response.entries.first().and_then(|bytes| Entry::parse(bytes.clone()).ok())
    }

    fn fetch_from_holders(&self, b: usize, segment: SegmentId, entry: EntryId) -> Option<Entry> {
        let closed = self.metadata.state.segment(segment)?;
        let others = closed.holders.iter().filter(|holder| holder.instance != self.bookies[b].instance);
        others
            .filter_map(|holder| self.bookies.iter().position(|bookie| bookie.member() == *holder))
            .find_map(|other| self.read_own(other, segment, entry))
    }

    /// Frees the emptiest file by copying what still counts in it, now and then.
    fn free_files(&mut self, b: usize) {
        let Some(state) = &self.bookies[b].state else { return };
        let uses = state.file_uses();
        if uses.len() < 2 || !self.rng.chance(400) {
            return;
        }
        let FileUse { id, .. } = *self.rng.pick(&uses);
        let mut complete = true;
        let mut copied = false;
        for (segment, _) in self.segments_in(b, id.seq) {
            let ranges = self.bookies[b].state.as_ref().map(|s| s.entries_in(segment, id.seq)).unwrap_or_default();
            for entry in ranges.into_iter().flat_map(|(from, to)| from..to) {
                let Some(found) = self.read_own(b, segment, entry) else {
                    complete = false;
                    continue;
                };
                let Some(state) = &mut self.bookies[b].state else { return };
                complete &= state.copy_forward(segment, entry, found.crc(), found.bytes.clone()).is_ok();
                copied = true;
            }
            if complete && let Some(state) = &mut self.bookies[b].state {
                state.retire_when_durable(segment, id.seq);
            }
        }
        if copied {
            self.cases.hit(Case::GcCopiedForward);
        }
        self.bookies[b].state.as_mut().into_iter().for_each(BookieState::roll);
    }

    fn segments_in(&self, b: usize, file: u64) -> Vec<(SegmentId, u64)> {
        self.bookies[b].state.as_ref().map(|state| state.segments_in(file)).unwrap_or_default()
    }
}

fn fact(verdict: gc::Verdict) -> SegmentFact {
    match verdict {
        gc::Verdict::Keep => SegmentFact::Needed,
        gc::Verdict::Drop => SegmentFact::NotNamed,
        gc::Verdict::Quarantine => SegmentFact::Absent,
    }
}
