//! The open segment: how an owner gets one, and how it begins to write it.

use esker_bookie_core::owner::{Draft, Owner};
use esker_metadata_core::{Command, Open, OpenSegment};
use esker_types::entry::NO_SNAPSHOT;
use esker_types::segment::MemberRecord;
use esker_types::{EntryId, EntryKind, Epoch, Offset, Rules, SegmentPrologue, Time};

use super::active::{Active, Fall, Tail};
use super::common::{Common, next_of};
use super::decision::Decision;
use super::event::{Effect, MemberChoice, ProposeOutcome, Tag};
use super::snapshot::SnapshotPayload;
use crate::producers::ProducerTable;

/// One index mark for so many entries of the open segment.
const INDEX_STEP: u64 = 64;

/// On the way to an open segment.
pub(super) enum Opening {
    Picking(Tag),
    Deciding(Decision),
    /// Too few bookies: look again then.
    Short(Time),
}

impl Opening {
    pub fn begin(common: &mut Common) -> Self {
        let tag = common.tag();
        common.emit(Effect::PickMembers { tag, wanted: common.settings.quorum, exclude: Vec::new() });
        Self::Picking(tag)
    }

    pub fn deadline(&self) -> Option<Time> {
        match self {
            Self::Picking(_) => None,
            Self::Deciding(decision) => decision.deadline(),
            Self::Short(until) => Some(*until),
        }
    }

    pub fn on_members(
        &mut self,
        now: Time,
        common: &mut Common,
        tag: Tag,
        epoch: Epoch,
        choice: Option<&MemberChoice>,
    ) {
        if !matches!(self, Self::Picking(asked) if *asked == tag) {
            return;
        }
        let Some(choice) = choice else {
            *self = Self::Short(now + common.config.metadata_retry);
            return;
        };
        let Some(record) = common.record().cloned() else { return };
        let (prev, next) = (record.tail_n(), next_of(record.next_n, choice));
        let command = Command::from(Open { partition: common.id, epoch, prev, next });
        *self = Self::Deciding(Decision::propose(common, command));
    }

    pub fn on_proposed(&mut self, common: &mut Common, tag: Tag, outcome: &ProposeOutcome) {
        if let Self::Deciding(decision) = self {
            decision.on_proposed(common, tag, outcome);
        }
    }

    /// A record was read and shows no open segment of ours yet.
    pub fn on_read(&mut self, now: Time, common: &mut Common, tag: Tag) {
        if let Self::Deciding(decision) = self
            && decision.on_read(now, tag)
            && decision.rejected.is_some()
        {
            // A member was lost or drained meanwhile. An earlier try may still apply: the record tells whose members.
            *self = Self::Short(now + common.config.metadata_retry);
        }
    }

    pub fn tick(&mut self, now: Time, common: &mut Common) {
        match self {
            Self::Short(until) if now >= *until => *self = Self::begin(common),
            Self::Deciding(decision) if decision.is_due(now) => decision.again(common),
            _ => {}
        }
    }
}

/// The open segment while it is written.
pub(super) struct Writing<R: Rules> {
    pub owner: Owner<R>,
    pub opened_at: Time,
    /// First entry of the last complete snapshot.
    snap: EntryId,
    /// Segment size at which the next snapshot is due.
    snapshot_at: u64,
    /// Narrower than the topic wants: to be replaced when a bookie returns.
    pub degraded: bool,
    /// Some (base offset, entry) pairs, ascending: where to begin to look for an offset.
    pub index: Vec<(Offset, EntryId)>,
}

impl<R: Rules> Writing<R> {
    pub fn append(&mut self, now: Time, mut draft: Draft) -> EntryId {
        draft.snap = self.snap;
        let base_offset = draft.base_offset;
        let entry = self.owner.append(now, draft);
        if entry.is_multiple_of(INDEX_STEP) || self.index.is_empty() {
            self.index.push((base_offset, entry));
        }
        entry
    }

    /// Writes producer state as of here, so that whoever comes next has little to read.
    pub fn snapshot_if_due(&mut self, now: Time, table: &ProducerTable<R>, common: &Common) {
        if self.owner.bytes() >= self.snapshot_at {
            self.snapshot(now, table, common, None);
        }
    }

    fn snapshot(
        &mut self,
        now: Time,
        table: &ProducerTable<R>,
        common: &Common,
        mut prologue: Option<SegmentPrologue>,
    ) {
        let upto = self.owner.next_offset();
        let first = self.owner.assigned();
        let chunks = table.snapshot_at(upto);
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.into_iter().enumerate() {
            let before = self.owner.assigned_totals();
            let draft = SnapshotPayload::draft(prologue.take(), chunk, before, upto);
            if i == last {
                self.snap = first; // complete as of this entry
            }
            self.append(now, draft);
        }
        self.snapshot_at = self.owner.bytes() + common.config.snapshot_bytes;
    }
}

impl<R: Rules> Active<R> {
    /// Starts the segment that the committed record opened for us: entry 0, then what the closed one left out.
    pub fn start_segment(&mut self, now: Time, common: &mut Common, open: &OpenSegment) {
        let allowed = open.session == common.session && open.seg_epoch == self.epoch && open.n > common.started_upto;
        if !allowed && R::OWN_START_ONLY {
            self.fall = Some(Fall::NeedAssign);
            return;
        }
        let first = self.carried.first().map(|d| d.base_offset);
        let expected = first.or(self.waiting.front().map(|w| w.base_offset)).unwrap_or(self.next_offset);
        if open.base_offset != expected {
            self.fall = Some(Fall::Restart); // the chain got a hole: an operator closed it otherwise
            return;
        }
        common.started_upto = common.started_upto.max(open.n);
        let spec = common.spec(open);
        let prologue = prologue(common, open);
        let degraded = open.quorum.write < common.settings.quorum.write;
        let mut limits = common.config.owner;
        limits.member_timeout *= self.patience(3);
        let owner = Owner::start(spec, self.epoch, limits);
        let mut writing =
            Writing { owner, opened_at: now, snap: NO_SNAPSHOT, snapshot_at: 0, degraded, index: Vec::new() };
        writing.snapshot(now, &self.table, common, Some(prologue));
        for draft in std::mem::take(&mut self.carried) {
            debug_assert_eq!(draft.kind, EntryKind::Data);
            writing.append(now, draft);
        }
        self.quorum_lost = false;
        self.tail = Tail::Writing(Box::new(writing));
        self.pump(now, common);
    }
}

fn prologue(common: &Common, open: &OpenSegment) -> SegmentPrologue {
    let last = common.last();
    SegmentPrologue {
        write_quorum: open.quorum.write.into(),
        ack_quorum: open.quorum.ack.into(),
        members: open.members.iter().map(|m| MemberRecord::from(*m)).collect(),
        epoch: open.seg_epoch.0,
        prev_n: last.as_ref().map_or(0, |last| last.n),
        prev_last: last.as_ref().map_or(0, |last| last.last),
        prev_end_offset: last.as_ref().map_or(0, |last| last.end_offset),
        prev_digest: last.as_ref().map_or(0, |last| last.digest),
    }
}
