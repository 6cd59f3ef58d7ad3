//! How an open segment ends, and what is said to be lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use esker_types::{ErrorCode, Offset, Rules, SegmentId};

use super::Tx;
use crate::change::{Change, IntentKey};
use crate::command::{Close, DataLoss, ForceClose};
use crate::records::{ClosedSegment, DROPPED_MAX, LastClosed, LostRange, OpenSegment, PartitionRecord};
use crate::reply::{CommandResult, LostReply, Reject, Reply};

/// A force-close goes on at a multiple of this, so that no offset that a lost entry may have had is given out again.
const LOST_JUMP: Offset = 1 << 40;
/// No end may be above: leaves room for jumps.
const OFFSET_MAX: Offset = 1 << 62;

impl Tx<'_> {
    /// The partition without its open segment, and the row of that segment unless it held no record. Changes nothing.
    pub(super) fn closed<R: Rules>(
        &self,
        partition: PartitionRecord,
        close: &Close,
    ) -> Result<(PartitionRecord, Option<Arc<ClosedSegment>>), Reject> {
        let open = match &partition.open {
            Some(open) if open.n == close.n => open.clone(),
            // The mutant lets a late command open one more segment beside the tail.
            _ if !R::ONE_OPEN_SEGMENT => return Ok((partition, None)),
            _ => return Err(not_open(&partition, close.n)),
        };
        if close.end_offset > open.base_offset {
            self.check_holders(&partition, &open, close, usize::from(open.quorum.ack))?;
        }
        if close.end_offset < partition.log_start {
            let reason = format!(
                "segment {}/{} can't end at {}: records below {} were acknowledged",
                partition.id, close.n, close.end_offset, partition.log_start
            );
            return Err(Reject::precondition(reason));
        }
        self.without_open(partition, &open, close)
    }

    /// Writes what [`Tx::closed`] computed. Intents for copies that the record names now have done their work.
    pub(super) fn put_closed(
        &mut self,
        partition: PartitionRecord,
        segment: Option<Arc<ClosedSegment>>,
        close: &Close,
    ) {
        let id = SegmentId { partition: partition.id, n: close.n };
        let done = |instance| segment.as_ref().is_none_or(|segment| segment.names(instance));
        let intents = self.state.intents_of(id.partition).filter(|i| i.segment == id && done(i.member.instance));
        let keys: Vec<IntentKey> =
            intents.map(|i| IntentKey { segment: i.segment, instance: i.member.instance }).collect();
        keys.into_iter().for_each(|key| self.put(Change::IntentGone(key)));
        self.put(Arc::new(partition));
        if let Some(segment) = segment {
            self.put(segment);
        }
    }

    pub(super) fn force_close(&mut self, c: &ForceClose) -> CommandResult {
        let partition = self.partition_at(c.partition, c.epoch)?;
        let open = match &partition.open {
            Some(open) if open.n == c.close.n => open.clone(),
            _ => return Err(not_open(&partition, c.close.n)),
        };
        if c.close.end_offset > open.base_offset {
            self.check_holders(&partition, &open, &c.close, 1)?;
        }
        let (mut partition, segment) = self.without_open(partition, &open, &c.close)?;
        let from = c.close.end_offset;
        let to = (from / LOST_JUMP + 1) * LOST_JUMP;
        partition.next_offset = to;
        partition.lost = merged(&partition.lost, LostRange { from, to });
        self.put_closed(partition, segment, &c.close);
        Ok(Reply::Lost(LostReply { from, to }))
    }

    pub(super) fn data_loss(&mut self, c: &DataLoss) -> CommandResult {
        let mut partition = self.partition_at(c.partition, c.epoch)?;
        if c.from < partition.log_start || c.from >= c.to || c.to > partition.next_offset {
            let reason = format!(
                "[{}, {}) is not a range of the closed part [{}, {}) of partition {}",
                c.from, c.to, partition.log_start, partition.next_offset, c.partition
            );
            return Err(Reject::precondition(reason));
        }
        partition.lost = merged(&partition.lost, LostRange { from: c.from, to: c.to });
        self.put(Arc::new(partition));
        Ok(Reply::Lost(LostReply { from: c.from, to: c.to }))
    }

    fn without_open(
        &self,
        mut partition: PartitionRecord,
        open: &OpenSegment,
        close: &Close,
    ) -> Result<(PartitionRecord, Option<Arc<ClosedSegment>>), Reject> {
        let id = SegmentId { partition: partition.id, n: open.n };
        if close.end_offset < open.base_offset || close.end_offset > OFFSET_MAX {
            let reason = format!("segment {id} begins at {}; it can't end at {}", open.base_offset, close.end_offset);
            return Err(Reject::new(ErrorCode::InvalidRequest, reason));
        }
        partition.open = None;
        if close.end_offset == open.base_offset {
            // No record in it: dropped from the chain, its n stays used.
            partition.dropped.push(open.n);
            if partition.dropped.len() > DROPPED_MAX {
                partition.dropped.remove(0);
            }
            return Ok((partition, None));
        }
        let Some(last) = close.last else {
            let reason = format!("segment {id} holds records up to {} but no entry", close.end_offset);
            return Err(Reject::new(ErrorCode::InvalidRequest, reason));
        };
        partition.next_offset = close.end_offset;
        partition.last = Some(LastClosed { n: open.n, last, end_offset: close.end_offset, digest: close.digest });
        let segment = ClosedSegment {
            segment: id,
            seg_epoch: open.seg_epoch,
            quorum: open.quorum,
            members: open.members.clone(),
            holders: close.holders.clone(),
            base_offset: open.base_offset,
            end_offset: close.end_offset,
            last,
            digest: close.digest,
            bytes: close.bytes,
            first_ts: close.first_ts,
            max_ts: close.max_ts,
            opened: open.opened,
            closed: self.state.wall(),
            ver: 0,
            object: None,
        };
        Ok((partition, Some(Arc::new(segment))))
    }

    /// Holders are members, or substitutes that an intent protects, each once, `least` of them.
    fn check_holders(
        &self,
        partition: &PartitionRecord,
        open: &OpenSegment,
        close: &Close,
        least: usize,
    ) -> Result<(), Reject> {
        let id = SegmentId { partition: partition.id, n: open.n };
        let instances: BTreeSet<_> = close.holders.iter().map(|holder| holder.instance).collect();
        if instances.len() != close.holders.len() || instances.len() < least {
            let reason = format!("segment {id} needs {least} different holders, {:?} are named", close.holders);
            return Err(Reject::precondition(reason));
        }
        for holder in &close.holders {
            let substitute = || self.state.live_intent(id, holder.instance).is_some_and(|i| i.member == *holder);
            if !open.members.contains(holder) && !substitute() {
                let reason = format!("holder {} of segment {id} is no member and has no intent", holder.bookie);
                return Err(Reject::precondition(reason));
            }
        }
        Ok(())
    }
}

fn not_open(partition: &PartitionRecord, n: u64) -> Reject {
    let tail = partition.tail_n();
    Reject::precondition(format!("segment {}/{n} is not open; the tail is {tail:?}", partition.id))
}

/// The ranges with one more.
fn merged(ranges: &[LostRange], new: LostRange) -> Vec<LostRange> {
    merged_all(ranges.iter().cloned().chain([new]))
}

/// Ranges in order, disjoint and not touching.
pub(crate) fn merged_all(ranges: impl IntoIterator<Item = LostRange>) -> Vec<LostRange> {
    let mut all: Vec<LostRange> = ranges.into_iter().filter(|range| range.from < range.to).collect();
    all.sort_by_key(|range| range.from);
    let mut out: Vec<LostRange> = Vec::new();
    for range in all {
        match out.last_mut() {
            Some(last) if range.from <= last.to => last.to = last.to.max(range.to),
            _ => out.push(range),
        }
    }
    out
}
