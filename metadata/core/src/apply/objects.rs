//! The object tier: segments become safe in the bucket (R12), the manifest's root moves, versions of it are held.
//!
//! Every command may come twice: what is there already as asked for is accepted and changes nothing.

use std::sync::Arc;

use esker_types::{ErrorCode, PartitionId, SegmentId, WallMs};

use super::Tx;
use crate::change::{Change, SegmentKey};
use crate::command::{OffloadCommit, Pin, SetRoot, Unpin};
use crate::records::{ClosedSegment, PINS_MAX, PartitionRecord, PinRecord};
use crate::reply::{CommandResult, Reject, Reply};

const PIN_TTL_MS_MAX: u32 = 7 * 86_400_000;

impl Tx<'_> {
    pub(super) fn offload_commit(&mut self, c: &OffloadCommit) -> CommandResult {
        let partition = self.partition_at(c.partition, c.epoch)?;
        let id = SegmentId { partition: c.partition, n: c.n };
        let Some(segment) = self.state.segment(id) else {
            return Err(Reject::precondition(format!("segment {id} is not a closed one, or was folded already")));
        };
        if let Some(place) = &segment.object {
            return match *place == c.place {
                true => Ok(Reply::DONE),
                false => Err(Reject::precondition(format!("segment {id} is in object {} already", place.key))),
            };
        }
        if (segment.digest, segment.end_offset) != (c.digest, c.end_offset) {
            return Err(Reject::precondition(format!("object {} does not hold segment {id}", c.place.key)));
        }
        // The key's own partition is another one's when several segments share the object.
        let incarnation = self.cluster().incarnation;
        let own = c.place.key.shared || (c.place.key.partition, c.place.key.n) == (partition.id, c.n);
        if !own || c.place.key.incarnation != incarnation {
            let reason = format!("object {} can't hold segment {id} of incarnation {incarnation}", c.place.key);
            return Err(Reject::new(ErrorCode::InvalidRequest, reason));
        }
        let segment = ClosedSegment { object: Some(c.place.clone()), ..ClosedSegment::clone(segment) };
        self.put(Arc::new(segment));
        Ok(Reply::DONE)
    }

    pub(super) fn set_root(&mut self, c: &SetRoot) -> CommandResult {
        let mut partition = self.partition_at(c.partition, c.epoch)?;
        if partition.root.as_ref() == Some(&c.root) {
            return Ok(Reply::DONE);
        }
        let (key, incarnation) = (c.root.key, self.cluster().incarnation);
        if key.partition != c.partition || key.incarnation != incarnation {
            let reason = format!("page {key} can't be the root of {} in incarnation {incarnation}", c.partition);
            return Err(Reject::precondition(reason));
        }
        let old = partition.root_ver();
        if old != c.expect_ver || c.root.ver != old + 1 {
            let reason = format!("the manifest of partition {} is at version {old}, not {}", c.partition, c.expect_ver);
            return Err(Reject::precondition(reason));
        }
        let log_start = c.log_start.unwrap_or(partition.log_start);
        if log_start < partition.log_start || log_start > partition.next_offset {
            let reason = format!(
                "log start {log_start} of partition {} is outside of [{}, {}]",
                c.partition, partition.log_start, partition.next_offset
            );
            return Err(Reject::precondition(reason));
        }
        let folded = partition.folded_to();
        if c.root.folded_to < folded || partition.last.as_ref().map_or(0, |last| last.n) < c.root.folded_to {
            let reason = format!("partition {} is folded to {folded}; {} is not next", c.partition, c.root.folded_to);
            return Err(Reject::precondition(reason));
        }
        // I10: what leaves metadata must be found through the root.
        let unsafe_one = |s: &&Arc<ClosedSegment>| s.object.is_none() && s.end_offset > log_start;
        let rows = || self.state.chain(c.partition).take_while(|s| s.segment.n <= c.root.folded_to);
        if let Some(segment) = rows().filter(|s| s.segment.n > folded).find(unsafe_one) {
            return Err(Reject::precondition(format!("segment {} is in no object yet", segment.segment)));
        }
        partition.root = Some(c.root.clone());
        partition.log_start = log_start;
        partition.lost.retain(|range| range.to > log_start);
        self.put(Arc::new(partition));
        self.forget_folded(c.partition);
        Ok(Reply::DONE)
    }

    /// Rows that nobody needs: their records are found through the manifest, and their copies were given up.
    pub(super) fn forget_folded(&mut self, id: PartitionId) {
        let Some(partition) = self.state.partition(id) else { return };
        let upto = partition.copies_from.min(partition.folded_to().saturating_add(1));
        let below = self.state.chain(id).take_while(|s| s.segment.n < upto);
        let keys: Vec<SegmentKey> = below.map(|s| SegmentKey { id: s.segment }).collect();
        keys.into_iter().for_each(|key| self.put(Change::SegmentGone(key)));
    }

    pub(super) fn pin(&mut self, c: &Pin) -> CommandResult {
        if !(1..=PIN_TTL_MS_MAX).contains(&c.ttl_ms) {
            let reason = format!("a pin of {} ms; 1 to {PIN_TTL_MS_MAX} work", c.ttl_ms);
            return Err(Reject::new(ErrorCode::InvalidRequest, reason));
        }
        let mut partition = self.partition(c.partition)?;
        let wall = self.state.wall();
        partition.pins.retain(|pin| pin.expires > wall);
        let held = partition.pins.iter().position(|pin| pin.id == c.id);
        let root = match (&partition.root, held) {
            (Some(root), _) if root.ver == c.root_ver => root.clone(),
            (_, Some(at)) if partition.pins[at].root.ver == c.root_ver => partition.pins[at].root.clone(),
            _ => {
                let (asked, ver) = (c.root_ver, partition.root_ver());
                let reason = format!("the manifest of partition {} is at version {ver}, not {asked}", c.partition);
                return Err(Reject::precondition(reason));
            }
        };
        let pin = PinRecord { id: c.id, root, expires: WallMs(wall.0.saturating_add(i64::from(c.ttl_ms))) };
        match held {
            Some(at) => partition.pins[at] = pin,
            None if partition.pins.len() >= PINS_MAX => {
                let reason = format!("{PINS_MAX} versions of partition {} are held already", c.partition);
                return Err(Reject::new(ErrorCode::Overloaded, reason));
            }
            None => partition.pins.push(pin),
        }
        self.put(Arc::new(partition));
        Ok(Reply::DONE)
    }

    pub(super) fn unpin(&mut self, c: &Unpin) -> CommandResult {
        let mut partition = self.partition(c.partition)?;
        if partition.pins.iter().any(|pin| pin.id == c.id) {
            partition.pins.retain(|pin| pin.id != c.id);
            self.put(Arc::new(partition));
        }
        Ok(Reply::DONE)
    }
}

impl PartitionRecord {
    /// 0: nothing was folded yet.
    pub fn root_ver(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.ver)
    }

    /// Segments with n up to this are in the manifest. Inclusive; 0: none.
    pub fn folded_to(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.folded_to)
    }
}
