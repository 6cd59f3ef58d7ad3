//! Deleting old records: the log start is raised first, bookies may drop the copies after a grace, then the segments
//! are forgotten (R16). Each step is read off the record, so an unknown outcome only means: look again next time.

use std::sync::Arc;

use esker_metadata_core::{ClosedSegment, Command, DeleteBegin, DeleteDone, DropBookieCopies, PartitionInfo};
use esker_types::{ErrorCode, Offset, Rules, Time, WallMs};

use super::active::{Active, Tail, refuse};
use super::common::{Common, retention_time};
use super::event::{Completed, Effect, ProposeOutcome, Tag, Ticket};

/// A `DeleteRecords` on its way.
pub(super) struct Deleting {
    pub ticket: Ticket,
    tag: Tag,
    before: Offset,
}

/// What the owner remembers between looks at the chain.
#[derive(Default)]
pub(super) struct Retention {
    /// Log start at the last look, and since when.
    seen: Option<(Offset, WallMs)>,
    /// Raised by a command of ours; the record follows.
    pub log_start: Offset,
}

impl<R: Rules> Active<R> {
    pub fn log_start(&self, common: &Common) -> Offset {
        self.retention.log_start.max(common.record().map_or(0, |record| record.log_start))
    }

    pub fn delete_records(&mut self, common: &mut Common, ticket: Ticket, before: Offset) {
        if before > self.high_watermark || before < 0 {
            let reason = format!("offset {before} is not in [0, {}]", self.high_watermark);
            return refuse(common, ticket, ErrorCode::OffsetOutOfRange, reason);
        }
        let log_start = self.log_start(common);
        if before <= log_start {
            let result = Ok(Completed { base_offset: log_start, duplicate: true });
            return common.emit(Effect::Complete { ticket, result });
        }
        let tag = propose_log_start(common, self.epoch, before);
        self.deletes.push(Deleting { ticket, tag, before });
    }

    pub fn on_delete_proposed(&mut self, common: &mut Common, tag: Tag, outcome: &ProposeOutcome) {
        let Some(index) = self.deletes.iter().position(|d| d.tag == tag) else { return };
        let Deleting { ticket, before, .. } = self.deletes.swap_remove(index);
        match outcome {
            ProposeOutcome::Applied { .. } => {
                self.retention.log_start = self.retention.log_start.max(before);
                common.emit(Effect::LogStart(self.log_start(common)));
                let result = Ok(Completed { base_offset: self.log_start(common), duplicate: false });
                common.emit(Effect::Complete { ticket, result });
            }
            ProposeOutcome::Rejected { code, reason } => refuse(common, ticket, *code, reason.clone()),
            ProposeOutcome::NotApplied => {
                refuse(common, ticket, ErrorCode::MetadataUnavailable, "no metadata leader answers".to_owned());
            }
            ProposeOutcome::Unknown => {
                refuse(common, ticket, ErrorCode::TimedOutUnknown, "metadata did not answer in time".to_owned());
            }
        }
    }

    /// Looks at the chain with the wall clock and proposes the next step, at most one of each kind.
    pub fn retain(&mut self, _now: Time, common: &mut Common, wall: WallMs) {
        let Some(info) = common.info.clone() else { return };
        let log_start = info.record.log_start;
        let since = match self.retention.seen {
            Some((seen, since)) if seen == log_start => since,
            _ => wall,
        };
        self.retention.seen = Some((log_start, since));

        let open_bytes = match &self.tail {
            Tail::Writing(writing) => writing.owner.bytes(),
            _ => 0,
        };
        let start = wanted_log_start(common, &info.chain, open_bytes, wall).min(self.high_watermark);
        if start > log_start {
            propose_log_start(common, self.epoch, start);
        }
        let upto_n = self.unneeded_below(&info);
        if upto_n > info.record.copies_from && wall.0.saturating_sub(since.0) >= common.config.delete_grace_ms {
            let command = DropBookieCopies { partition: common.id, epoch: self.epoch, upto_n };
            propose(common, Command::from(command));
        }
        let upto_n = info.record.copies_from;
        // Those in the bucket leave with their fold.
        if info.chain.iter().any(|row| row.segment.n < upto_n && row.object.is_none()) {
            propose(common, Command::from(DeleteDone { partition: common.id, epoch: self.epoch, upto_n }));
        }
    }

    /// Segments below this hold nothing that readers or a later recovery may want. The newest closed one stays until
    /// the open one has an acked record: until then recovery may drop the open one and fall back to it.
    fn unneeded_below(&self, info: &PartitionInfo) -> u64 {
        let settled = match &self.tail {
            Tail::Writing(writing) => writing.owner.acked_end() > writing.owner.spec().base_offset,
            _ => false,
        };
        let keep = info.record.last.as_ref().map_or(0, |last| if settled { last.n + 1 } else { last.n });
        let needed = info.chain.iter().find(|closed| closed.end_offset > info.record.log_start);
        needed.map_or(keep, |closed| closed.segment.n).min(keep)
    }
}

/// Where the log should start by time and by size. Whole closed segments only.
fn wanted_log_start(common: &Common, chain: &[Arc<ClosedSegment>], open_bytes: u64, wall: WallMs) -> Offset {
    let mut start = 0;
    if let Some(keep_ms) = common.settings.retention_ms {
        let horizon = wall.0.saturating_sub(i64::try_from(keep_ms).unwrap_or(i64::MAX));
        let old = chain.iter().take_while(|closed| retention_time(closed).0 < horizon);
        start = old.last().map_or(start, |closed| closed.end_offset);
    }
    if let Some(keep_bytes) = common.settings.retention_bytes {
        let mut left = open_bytes + chain.iter().map(|closed| closed.bytes).sum::<u64>();
        for closed in chain {
            if left.saturating_sub(closed.bytes) < keep_bytes {
                break;
            }
            left -= closed.bytes;
            start = start.max(closed.end_offset);
        }
    }
    start
}

fn propose_log_start(common: &mut Common, epoch: esker_types::Epoch, log_start: Offset) -> Tag {
    let partition = common.id;
    propose(common, Command::from(DeleteBegin { partition, epoch, log_start }))
}

fn propose(common: &mut Common, command: Command) -> Tag {
    let tag = common.tag();
    common.emit(Effect::Propose { tag, command });
    tag
}
