//! What every stage of a partition's life shares.

use std::collections::VecDeque;
use std::sync::Arc;

use esker_bookie_core::owner::{Closing, SegmentSpec};
use esker_metadata_core::{Close, ClosedSegment, LastClosed, NextSegment, OpenSegment, PartitionInfo, PartitionRecord};
use esker_types::{GatewayId, PartitionId, SegmentId, SessionId, WallMs};

use super::config::Config;
use super::event::{Effect, MemberChoice, Settings, Tag};

pub(super) struct Common {
    pub id: PartitionId,
    pub gateway: GatewayId,
    pub session: SessionId,
    pub config: Config,
    pub settings: Settings,
    /// Highest segment that this process ever began to write: never to be started again (R6).
    pub started_upto: u64,
    pub revision: u64,
    pub info: Option<PartitionInfo>,
    pub out: VecDeque<Effect>,
    next_tag: Tag,
}

impl Common {
    pub fn new(
        id: PartitionId,
        (gateway, session): (GatewayId, SessionId),
        config: Config,
        settings: Settings,
        started_upto: u64,
    ) -> Self {
        let out = VecDeque::new();
        Self { id, gateway, session, config, settings, started_upto, revision: 0, info: None, out, next_tag: 1 }
    }

    pub fn emit(&mut self, effect: Effect) {
        self.out.push_back(effect);
    }

    pub fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        self.next_tag - 1
    }

    pub fn record(&self) -> Option<&Arc<PartitionRecord>> {
        self.info.as_ref().map(|info| &info.record)
    }

    pub fn last(&self) -> Option<LastClosed> {
        self.record()?.last.clone()
    }

    /// The newest closed segment, which still has its row: tails are never trimmed.
    pub fn closed_tail(&self) -> Option<&Arc<ClosedSegment>> {
        let info = self.info.as_ref()?;
        let last = info.record.last.as_ref()?;
        info.chain.last().filter(|closed| closed.segment.n == last.n)
    }

    pub fn spec(&self, open: &OpenSegment) -> SegmentSpec {
        SegmentSpec {
            segment: SegmentId { partition: self.id, n: open.n },
            seg_epoch: open.seg_epoch,
            quorum: open.quorum,
            members: open.members.clone(),
            base_offset: open.base_offset,
        }
    }
}

/// What metadata is told about the end of a segment.
pub(super) fn close_of(closing: &Closing) -> Close {
    Close {
        n: closing.segment.n,
        last: closing.entries.checked_sub(1),
        end_offset: closing.end_offset,
        digest: closing.digest,
        bytes: closing.totals.bytes,
        first_ts: closing.totals.first_ts,
        max_ts: closing.totals.max_ts,
        holders: closing.holders.clone(),
    }
}

pub(super) fn next_of(n: u64, choice: &MemberChoice) -> NextSegment {
    NextSegment { n, quorum: choice.quorum, members: choice.members.clone() }
}

/// Timestamps of clients may lie ahead; for retention a segment is never younger than its close, plus an hour.
pub(super) fn retention_time(closed: &ClosedSegment) -> WallMs {
    WallMs(closed.max_ts.min(closed.closed.0.saturating_add(3_600_000)))
}

/// How the record answers the question what became of segment `n`, asked under `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    StillOpen,
    /// Closed as proposed.
    Closed,
    /// Closed otherwise: only an operator's force-close does that.
    ClosedOtherwise,
}

pub(super) fn verdict(record: &PartitionRecord, closing: &Closing, base_offset: i64) -> Verdict {
    let n = closing.segment.n;
    if record.open.as_ref().is_some_and(|open| open.n == n) || record.next_n <= n {
        return Verdict::StillOpen;
    }
    let dropped = closing.end_offset == base_offset;
    let as_proposed = match &record.last {
        Some(last) if last.n == n => last.digest == closing.digest && Some(last.last) == closing.entries.checked_sub(1),
        _ => dropped && record.next_offset == closing.end_offset,
    };
    // A record that is several segments further can only be met by an owner that wrote those itself.
    match as_proposed && record.next_n <= n + 2 {
        true => Verdict::Closed,
        false => Verdict::ClosedOtherwise,
    }
}
