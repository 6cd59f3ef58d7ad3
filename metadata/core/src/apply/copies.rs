//! Copies of closed segments: intents, replacement (R13), and letting go (R14, R16).

use std::sync::Arc;

use esker_types::{ErrorCode, SegmentId, WallMs};

use super::Tx;
use crate::change::{Change, IntentKey, SegmentKey};
use crate::command::{DeleteBegin, DeleteDone, DropBookieCopies, PutIntent, ReplaceMember};
use crate::records::{BookieState, ClosedSegment, IntentRecord};
use crate::reply::{CommandResult, Reject, Reply};

const INTENT_TTL_MS_MAX: u32 = 86_400_000;
/// Copies in the making, in the whole cluster. Repair waits beyond it.
const INTENTS_MAX: usize = 10_000;

impl Tx<'_> {
    pub(super) fn put_intent(&mut self, c: &PutIntent) -> CommandResult {
        if !(1..=INTENT_TTL_MS_MAX).contains(&c.ttl_ms) {
            let reason = format!("an intent of {} ms; 1 to {INTENT_TTL_MS_MAX} work", c.ttl_ms);
            return Err(Reject::new(ErrorCode::InvalidRequest, reason));
        }
        let partition = self.partition(c.segment.partition)?;
        match partition.open_id() {
            // Recovery copies the open tail to a substitute.
            Some(open) if open == c.segment => drop(self.partition_at(partition.id, c.epoch)?),
            _ => drop(self.closed_at(c.segment, c.ver)?),
        }
        self.check_usable(c.member)?;
        let until = WallMs(self.state.wall().0.saturating_add(i64::from(c.ttl_ms)));
        let old = self.state.live_intent(c.segment, c.member.instance).map(|intent| intent.expires);
        self.drop_expired_intents();
        if old.is_none() && self.state.intents().len() >= INTENTS_MAX {
            let reason = format!("{INTENTS_MAX} copies are in the making already: wait until some are done");
            return Err(Reject::new(ErrorCode::Overloaded, reason));
        }
        let expires = old.map_or(until, |old| old.max(until));
        self.put(Arc::new(IntentRecord { segment: c.segment, member: c.member, expires }));
        Ok(Reply::DONE)
    }

    pub(super) fn replace_member(&mut self, c: &ReplaceMember) -> CommandResult {
        let mut segment = self.closed_at(c.segment, c.ver)?;
        if !segment.names(c.old.instance) {
            let reason = format!("bookie {} does not hold segment {}", c.old.bookie, c.segment);
            return Err(Reject::precondition(reason));
        }
        if segment.names(c.new.instance) || segment.members.iter().any(|m| m.bookie == c.new.bookie && *m != c.old) {
            let reason = format!("bookie {} holds segment {} already", c.new.bookie, c.segment);
            return Err(Reject::precondition(reason));
        }
        self.check_usable(c.new)?;
        if self.state.live_intent(c.segment, c.new.instance).is_none() {
            // Its garbage collector may have thrown the copy away since.
            let reason = format!("no live intent for segment {} on bookie {}", c.segment, c.new.bookie);
            return Err(Reject::precondition(reason));
        }
        for member in segment.members.iter_mut().filter(|m| **m == c.old) {
            *member = c.new;
        }
        segment.holders.retain(|holder| *holder != c.old);
        segment.holders.push(c.new);
        segment.ver += 1;
        self.put(Change::IntentGone(IntentKey { segment: c.segment, instance: c.new.instance }));
        self.put(Arc::new(segment));
        Ok(Reply::DONE)
    }

    pub(super) fn drop_bookie_copies(&mut self, c: &DropBookieCopies) -> CommandResult {
        let mut partition = self.partition_at(c.partition, c.epoch)?;
        if c.upto_n <= partition.copies_from {
            return Ok(Reply::DONE);
        }
        if partition.tail_n().is_none_or(|tail| c.upto_n > tail) {
            let reason = format!(
                "copies below {} include the tail {:?} of partition {}",
                c.upto_n,
                partition.tail_n(),
                c.partition
            );
            return Err(Reject::precondition(reason));
        }
        // I10: the copies are the only place of records that readers may still ask for, unless they are in the bucket.
        let gone = |s: &&Arc<ClosedSegment>| s.object.is_none() && s.end_offset > partition.log_start;
        let needed = |s: &&Arc<ClosedSegment>| s.segment.n < c.upto_n && gone(s);
        if let Some(segment) = self.state.chain(c.partition).find(needed) {
            let reason = format!("segment {} holds records above the log start and no other copy", segment.segment);
            return Err(Reject::precondition(reason));
        }
        partition.copies_from = c.upto_n;
        partition.dropped.retain(|n| *n >= c.upto_n);
        self.put(Arc::new(partition));
        self.forget_folded(c.partition);
        Ok(Reply::DONE)
    }

    pub(super) fn delete_begin(&mut self, c: &DeleteBegin) -> CommandResult {
        let mut partition = self.partition_at(c.partition, c.epoch)?;
        if c.log_start <= partition.log_start {
            return Ok(Reply::DONE);
        }
        // Only the owner knows how far an open segment reaches.
        if partition.open.is_none() && c.log_start > partition.next_offset {
            let reason = format!("partition {} ends at {}, before {}", c.partition, partition.next_offset, c.log_start);
            return Err(Reject::new(ErrorCode::OffsetOutOfRange, reason));
        }
        partition.log_start = c.log_start;
        partition.lost.retain(|range| range.to > c.log_start);
        self.put(Arc::new(partition));
        Ok(Reply::DONE)
    }

    pub(super) fn delete_done(&mut self, c: &DeleteDone) -> CommandResult {
        let partition = self.partition_at(c.partition, c.epoch)?;
        if c.upto_n > partition.copies_from {
            let reason =
                format!("copies of partition {} from segment {} on are kept", c.partition, partition.copies_from);
            return Err(Reject::precondition(reason));
        }
        // A segment that is in the bucket waits to be folded: its object's name must not be lost.
        let below = self.state.chain(c.partition).take_while(|s| s.segment.n < c.upto_n);
        let keys: Vec<SegmentKey> =
            below.filter(|s| s.object.is_none()).map(|s| SegmentKey { id: s.segment }).collect();
        keys.into_iter().for_each(|key| self.put(Change::SegmentGone(key)));
        Ok(Reply::DONE)
    }

    fn closed_at(&self, id: SegmentId, ver: u32) -> Result<ClosedSegment, Reject> {
        match self.state.segment(id) {
            Some(segment) if segment.ver == ver => Ok(ClosedSegment::clone(segment)),
            Some(segment) => {
                Err(Reject::precondition(format!("segment {id} is at version {}, not {ver}", segment.ver)))
            }
            None => Err(Reject::precondition(format!("segment {id} is not a closed one"))),
        }
    }

    fn check_usable(&self, member: esker_types::Member) -> Result<(), Reject> {
        match self.state.member(member).filter(|bookie| bookie.state != BookieState::Draining) {
            Some(_) => Ok(()),
            None => Err(Reject::precondition(format!(
                "bookie {} (instance {}) is unknown, lost or draining",
                member.bookie, member.instance
            ))),
        }
    }

    fn drop_expired_intents(&mut self) {
        let now = self.state.wall();
        let expired = self.state.intents().filter(|intent| intent.expires <= now);
        let keys: Vec<IntentKey> =
            expired.map(|i| IntentKey { segment: i.segment, instance: i.member.instance }).collect();
        keys.into_iter().for_each(|key| self.put(Change::IntentGone(key)));
    }
}
