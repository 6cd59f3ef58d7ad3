//! The writer of one OPEN segment (R3, R6).
//!
//! ```text
//! 0 ............ lac ................ assigned
//!   on Qa members,    sent or waiting
//!   clients answered
//! ```
//! `lac` is a count: entries `0..lac` are acked. It never moves back, and not at all once the writer is frozen.
//! All members get the same entries in the same order; a member that lost some says so (GAP) and is sent them again.

mod answer;
mod draft;
mod kept;
mod replica;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::Duration;

use esker_types::entry::CHAIN_START;
use esker_types::{Entry, EntryId, EntryKind, Epoch, InstanceId, Member, Offset, Quorum, Rules, SegmentId, Time};

pub use self::answer::{Add, AddAnswer, AddAnswerKind, FenceAnswer, FenceAnswerKind};
pub use self::draft::Draft;
use self::kept::Kept;
use self::replica::Replica;
use crate::quorum;

/// Bounds of one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerLimits {
    /// Bytes sent to one member and not yet durable there; at least one entry is always let through.
    pub in_flight_bytes: u64,
    /// Bytes kept for members behind the ack quorum; the slowest is abandoned beyond this.
    pub kept_bytes: u64,
    /// A member silent for so long with entries in flight is abandoned, if the others can ack without it.
    pub member_timeout: Duration,
    /// A broken connection that is not back after this counts like the time-out when it costs the ack quorum.
    pub link_grace: Duration,
}

impl Default for OwnerLimits {
    fn default() -> Self {
        let (member_timeout, link_grace) = (Duration::from_secs(1), Duration::from_millis(100));
        Self { in_flight_bytes: 16 << 20, kept_bytes: 64 << 20, member_timeout, link_grace }
    }
}

/// What the writer wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerEffect {
    Send(Add),
    /// The next entry is acked.
    Acked(Entry),
    /// No more entries go to this member.
    Abandoned {
        member: Member,
        cause: Cause,
    },
    /// The ack quorum is out of reach with the members that are left.
    QuorumLost,
    /// Someone with a higher epoch fenced the partition: step down at once.
    Fenced {
        max_epoch: Epoch,
    },
    /// A member holds other bytes than ours: a bug.
    Conflict {
        member: Member,
        entry: EntryId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No progress for the member time-out, or too far behind.
    Lagging,
    ReadOnly,
    Limbo,
    WrongInstance,
}

/// Sums over a segment's entries, for its record in metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of all entries, headers included.
    pub bytes: u64,
    /// Timestamp of the first record, -1 without records.
    pub first_ts: i64,
    /// Largest timestamp, -1 without records.
    pub max_ts: i64,
    /// There is an entry with records.
    pub has_data: bool,
}

impl Default for Totals {
    fn default() -> Self {
        Self { bytes: 0, first_ts: -1, max_ts: -1, has_data: false }
    }
}

impl Totals {
    /// `first_ts`: that of the entry's first record; a recoverer, which does not parse records, passes `max_ts`.
    pub fn add(&mut self, entry: &Entry, first_ts: i64) {
        self.bytes += entry.bytes.len() as u64;
        if entry.header.kind == EntryKind::Data {
            if !self.has_data {
                self.first_ts = first_ts;
            }
            self.has_data = true;
            self.max_ts = self.max_ts.max(entry.header.max_ts);
        }
    }
}

/// How a segment ends: what Roll and Handover say of it. Fixed by the freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    pub segment: SegmentId,
    /// Entries `0..entries` stay; 0 = none.
    pub entries: u64,
    /// Offset behind the last record, exclusive.
    pub end_offset: Offset,
    /// Chain of the last entry.
    pub digest: u64,
    pub totals: Totals,
    /// Members that durably hold all of it.
    pub holders: Vec<Member>,
}

/// What a segment is, as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSpec {
    pub segment: SegmentId,
    /// Epoch under which it was opened; in every entry's header.
    pub seg_epoch: Epoch,
    pub quorum: Quorum,
    pub members: Vec<Member>,
    pub base_offset: Offset,
}

/// See the module.
pub struct Owner<R> {
    spec: SegmentSpec,
    req_epoch: Epoch,
    limits: OwnerLimits,
    replicas: Vec<Replica>,
    kept: Kept,
    assigned: u64,
    /// Chain of the last assigned entry.
    chain: u64,
    /// Offset behind the last assigned record.
    next_offset: Offset,
    lac: u64,
    /// Of entries `0..lac`.
    acked: Acked,
    frozen: bool,
    /// LAC at the freeze: what lies behind it is needed for the next segment.
    closed_at: Option<u64>,
    quorum_lost_at: Option<Time>,
    ticked_at: Time,
    effects: VecDeque<OwnerEffect>,
    rules: PhantomData<R>,
}

#[derive(Clone, Copy)]
struct Acked {
    chain: u64,
    end_offset: Offset,
    totals: Totals,
}

impl<R: Rules> Owner<R> {
    /// Begins to write a segment in which nothing has been written. The caller has checked that its own session may
    /// (`start`, R6): the record names it, and this process never started the segment before.
    pub fn start(spec: SegmentSpec, req_epoch: Epoch, limits: OwnerLimits) -> Self {
        assert!(quorum::is_member_set(spec.quorum, &spec.members), "segment with an impossible member set: {spec:?}");
        let replicas = spec.members.iter().copied().map(Replica::new).collect();
        let acked = Acked { chain: CHAIN_START, end_offset: spec.base_offset, totals: Totals::default() };
        Self {
            req_epoch,
            limits,
            replicas,
            kept: Kept::default(),
            assigned: 0,
            chain: CHAIN_START,
            next_offset: spec.base_offset,
            lac: 0,
            acked,
            frozen: false,
            closed_at: None,
            quorum_lost_at: None,
            ticked_at: Time::ZERO,
            effects: VecDeque::new(),
            rules: PhantomData,
            spec,
        }
    }

    pub fn spec(&self) -> &SegmentSpec {
        &self.spec
    }

    pub fn segment(&self) -> SegmentId {
        self.spec.segment
    }

    /// Entries acked: `0..lac`.
    pub fn lac(&self) -> u64 {
        self.lac
    }

    /// Entries that have their place: `0..assigned`.
    pub fn assigned(&self) -> u64 {
        self.assigned
    }

    /// Offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Offset behind the last acked record.
    pub fn acked_end(&self) -> Offset {
        self.acked.end_offset
    }

    /// Entries and bytes sent or waiting, not acked.
    pub fn unacked(&self) -> (u64, u64) {
        let bytes = self.kept.bytes_through(self.assigned) - self.kept.bytes_through(self.lac);
        (self.assigned - self.lac, bytes)
    }

    /// Bytes of all assigned entries.
    pub fn bytes(&self) -> u64 {
        self.kept.bytes_through(self.assigned)
    }

    /// Bytes of all acked entries.
    pub fn acked_bytes(&self) -> u64 {
        self.acked.totals.bytes
    }

    /// Sums over all assigned entries, acked or not.
    pub fn assigned_totals(&self) -> Totals {
        let mut totals = self.acked.totals;
        for (entry, first_ts) in (self.lac..self.assigned).filter_map(|e| self.kept.entry(e)) {
            totals.add(entry, first_ts);
        }
        totals
    }

    /// Members that get nothing more of this segment.
    pub fn abandoned(&self) -> usize {
        self.replicas.iter().filter(|r| r.abandoned).count()
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Members that the next segment should do without: abandoned and not heard of since, out of reach, or silent for
    /// too long.
    pub fn suspects(&self, now: Time) -> impl Iterator<Item = Member> + '_ {
        let OwnerLimits { member_timeout, link_grace, .. } = self.limits;
        let suspect =
            move |r: &&Replica| r.abandoned && !r.back || !r.is_up() || r.is_late(now, member_timeout, link_grace);
        self.replicas.iter().filter(suspect).map(|r| r.member)
    }

    pub fn poll(&mut self) -> Option<OwnerEffect> {
        self.effects.pop_front()
    }

    /// Gives the entry its place and sends it.
    pub fn append(&mut self, now: Time, draft: Draft) -> EntryId {
        assert!(!self.frozen, "append to a frozen segment");
        assert_eq!(draft.base_offset, self.next_offset, "offsets of a segment are gapless (I1)");
        let first_ts = draft.first_ts;
        let entry = draft.seal(self.spec.segment, self.spec.seg_epoch, self.assigned, self.chain);
        self.chain = entry.header.chain;
        self.next_offset = entry.header.end_offset();
        self.kept.push(entry, first_ts);
        self.assigned += 1;
        self.pump(now);
        self.check_quorum(now);
        self.assigned - 1
    }

    pub fn on_answer(&mut self, now: Time, answer: &AddAnswer) {
        if answer.segment != self.spec.segment || answer.req_epoch != self.req_epoch {
            return;
        }
        let Some(index) = self.replicas.iter().position(|r| r.member.instance == answer.instance) else { return };
        match answer.kind {
            AddAnswerKind::Ok { durable } => self.on_ok(now, index, durable),
            AddAnswerKind::Gap { accepted } => self.on_gap(now, index, accepted),
            AddAnswerKind::Fenced { max_epoch } => self.effects.push_back(OwnerEffect::Fenced { max_epoch }),
            AddAnswerKind::Conflict { entry } => self.conflict(index, entry),
            AddAnswerKind::ReadOnly => self.abandon(now, index, Cause::ReadOnly),
            AddAnswerKind::Limbo => self.abandon(now, index, Cause::Limbo),
            AddAnswerKind::WrongInstance => self.abandon(now, index, Cause::WrongInstance),
        }
    }

    /// The connection that carries ADDs to a member broke, or is there again.
    pub fn on_link(&mut self, now: Time, instance: InstanceId, up: bool) {
        let from = self.kept.from();
        let Some(index) = self.replicas.iter().position(|r| r.member.instance == instance) else { return };
        let replica = &mut self.replicas[index];
        if !up {
            replica.down_since.get_or_insert(now);
            return;
        }
        replica.down_since = None;
        replica.back = true;
        if replica.abandoned {
            return;
        }
        replica.rewound_to = None;
        match replica.durable >= from {
            true => replica.rewind(replica.durable),
            false => self.abandon(now, index, Cause::Lagging),
        }
        self.pump(now);
    }

    /// Time passes: finds members that make no progress.
    pub fn tick(&mut self, now: Time) {
        if self.frozen {
            return;
        }
        self.ticked_at = now;
        let timeout = self.limits.member_timeout;
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            let Some(since) = replica.waiting_since.filter(|_| !replica.abandoned) else { continue };
            if now.since(since) >= timeout && self.healthy_without(index, now) >= usize::from(self.spec.quorum.ack) {
                self.abandon(now, index, Cause::Lagging);
                continue;
            }
            let replica = &mut self.replicas[index];
            if now.since(replica.resent_at.unwrap_or(since)) >= timeout / 2 {
                (replica.resent_at, replica.rewound_to) = (Some(now), None);
                replica.rewind(replica.durable);
            }
        }
        self.check_quorum(now);
        self.pump(now);
    }

    /// When `tick` has something to do next.
    pub fn deadline(&self) -> Option<Time> {
        if self.frozen {
            return None;
        }
        let waiting = self.replicas.iter().filter(|r| !r.abandoned);
        let due = waiting.filter_map(|r| {
            let since = r.waiting_since?;
            let resend = r.resent_at.unwrap_or(since) + self.limits.member_timeout / 2;
            let grace = r.down_since.map(|t| t + self.limits.link_grace).filter(|at| *at > self.ticked_at);
            Some(grace.map_or(resend, |at| at.min(resend)))
        });
        due.min()
    }

    /// Stops acks for good and says how the segment ends (R6). With `enforce = false` (a mutant) acks go on.
    pub fn freeze(&mut self, enforce: bool) -> Closing {
        self.frozen = enforce;
        self.closed_at = Some(self.lac);
        let good = self.replicas.iter().filter(|r| r.durable >= self.lac);
        Closing {
            segment: self.spec.segment,
            entries: self.lac,
            end_offset: self.acked.end_offset,
            digest: self.acked.chain,
            totals: self.acked.totals,
            holders: good.map(|r| r.member).collect(),
        }
    }

    /// What a mutant does after a read that still shows the segment open. Never called in production.
    pub fn unfreeze(&mut self) {
        self.frozen = false;
        self.advance();
    }

    /// The entries behind the first `count`, as drafts for the next segment; snapshots are left out. Ends this writer's use.
    pub fn suffix(&self, count: u64) -> Vec<Draft> {
        (count.max(self.kept.from())..self.assigned)
            .filter_map(|e| self.kept.entry(e))
            .filter(|(entry, _)| entry.header.kind == EntryKind::Data)
            .map(|(entry, first_ts)| Draft::again(entry, first_ts))
            .collect()
    }

    fn on_ok(&mut self, now: Time, index: usize, durable: u64) {
        if durable > self.assigned {
            // Someone else has written this segment: only possible if two processes started it.
            return self.conflict(index, self.assigned);
        }
        let replica = &mut self.replicas[index];
        replica.progress(now, durable);
        replica.back |= replica.abandoned && replica.durable >= replica.next;
        if !self.frozen {
            self.advance();
        }
        self.trim(now);
        self.pump(now);
    }

    fn on_gap(&mut self, now: Time, index: usize, accepted: u64) {
        let from = self.kept.from();
        let replica = &mut self.replicas[index];
        if accepted > self.assigned {
            return self.conflict(index, self.assigned);
        }
        // Below `durable` it is an old answer overtaken by later ones. (Or a bookie that lost what it had fsynced:
        // then nothing sent here will ever be taken, and the time-out abandons it.)
        if replica.abandoned || replica.rewound_to == Some(accepted) || accepted < replica.durable {
            return;
        }
        if accepted < from {
            return self.abandon(now, index, Cause::Lagging);
        }
        replica.rewound_to = Some(accepted);
        replica.rewind(accepted.min(replica.next));
        self.pump(now);
    }

    fn conflict(&mut self, index: usize, entry: EntryId) {
        let member = self.replicas[index].member;
        self.frozen = true;
        self.effects.push_back(OwnerEffect::Conflict { member, entry });
    }

    /// Moves the LAC to what Qa members have fsynced (I4: in order, all below it too).
    fn advance(&mut self) {
        let upto = quorum::acked(self.replicas.iter().map(|r| r.durable), self.spec.quorum.ack);
        while self.lac < upto {
            let (entry, first_ts) = self.kept.entry(self.lac).expect("entries above the LAC are kept");
            let mut totals = self.acked.totals;
            totals.add(entry, first_ts);
            self.acked = Acked { chain: entry.header.chain, end_offset: entry.header.end_offset(), totals };
            self.effects.push_back(OwnerEffect::Acked(entry.clone()));
            self.lac += 1;
            self.quorum_lost_at = None;
        }
    }

    /// Sends what each member may get now.
    fn pump(&mut self, now: Time) {
        if self.frozen {
            return;
        }
        for replica in self.replicas.iter_mut().filter(|r| !r.abandoned) {
            if replica.durable < self.assigned {
                // Also while the link is down: a member that can't be reached is one that makes no progress.
                replica.waiting_since.get_or_insert(now);
            }
            while replica.is_up() && replica.next < self.assigned {
                let in_flight = self.kept.bytes_through(replica.next) - self.kept.bytes_through(replica.durable);
                let Some((entry, _)) = self.kept.entry(replica.next) else { break };
                if in_flight > 0 && in_flight + entry.bytes.len() as u64 > self.limits.in_flight_bytes {
                    break;
                }
                self.effects.push_back(OwnerEffect::Send(Add {
                    member: replica.member,
                    segment: self.spec.segment,
                    req_epoch: self.req_epoch,
                    lac: self.lac,
                    recovery: false,
                    entry: entry.clone(),
                }));
                replica.next += 1;
            }
        }
    }

    /// Forgets entries that no member needs; abandons the slowest when too much is kept.
    fn trim(&mut self, now: Time) {
        loop {
            let needed = self.replicas.iter().filter(|r| !r.abandoned).map(|r| r.durable).min();
            let floor = self.closed_at.unwrap_or(self.lac).min(self.lac);
            self.kept.drop_below(needed.unwrap_or(floor).min(floor));
            let behind = self.kept.bytes_through(self.lac) - self.kept.bytes_through(self.kept.from());
            if self.frozen || behind <= self.limits.kept_bytes {
                return;
            }
            let slowest = (0..self.replicas.len()).filter(|i| !self.replicas[*i].abandoned);
            let Some(index) = slowest.min_by_key(|i| self.replicas[*i].durable) else { return };
            self.abandon(now, index, Cause::Lagging);
        }
    }

    fn abandon(&mut self, now: Time, index: usize, cause: Cause) {
        let replica = &mut self.replicas[index];
        if replica.abandoned {
            return;
        }
        (replica.abandoned, replica.back) = (true, false);
        replica.waiting_since = None;
        self.effects.push_back(OwnerEffect::Abandoned { member: replica.member, cause });
        self.check_quorum(now);
    }

    /// Members but `index` that answer in time.
    fn healthy_without(&self, index: usize, now: Time) -> usize {
        let OwnerLimits { member_timeout, link_grace, .. } = self.limits;
        let in_time = |r: &Replica| !r.abandoned && !r.is_late(now, member_timeout, link_grace);
        self.replicas.iter().enumerate().filter(|(i, r)| *i != index && in_time(r)).count()
    }

    /// Says `QuorumLost` when too few members answer, again after each time-out while it stays so.
    fn check_quorum(&mut self, now: Time) {
        if self.frozen || self.healthy_without(usize::MAX, now) >= usize::from(self.spec.quorum.ack) {
            return;
        }
        if self.quorum_lost_at.is_none_or(|at| now.since(at) >= self.limits.member_timeout) {
            self.quorum_lost_at = Some(now);
            self.effects.push_back(OwnerEffect::QuorumLost);
        }
    }
}
