//! What clients were promised, kept apart from the code that promised it, and checked after every step.
//!
//! The oracle hears of acks, of served records, of fsyncs that disks completed and of closed segments. It knows
//! nothing of the protocol: it only compares what was said with what is said later.

use std::collections::{BTreeMap, BTreeSet};

use esker_types::{EntryId, Epoch, InstanceId, Offset, PartitionId, SegmentId};

/// A record is known by its value: producer in the upper half, its sequence number in the lower.
pub type Value = u64;

pub fn value(producer: u32, sequence: u32) -> Value {
    u64::from(producer) << 32 | u64::from(sequence)
}

/// Producers from this number on send plain batches, which a network may repeat: nothing is promised of their number.
pub const PLAIN_FROM: u32 = 1000;

fn is_idempotent(value: Value) -> bool {
    producer_of(value) < PLAIN_FROM
}

pub fn producer_of(value: Value) -> u32 {
    (value >> 32) as u32
}

pub fn sequence_of(value: Value) -> u32 {
    value as u32
}

/// A broken promise: the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Invariant of the design, "I3" and so on, or "live" for a cluster that did not come back.
    pub rule: &'static str,
    pub text: String,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    value: Value,
    acked: bool,
}

/// What a bookie's disk has completed of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Synced {
    entries: u64,
    end_offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub last: EntryId,
    pub end_offset: Offset,
    pub digest: u64,
}

#[derive(Default)]
pub struct Oracle {
    seen: BTreeMap<(PartitionId, Offset), Seen>,
    acked_values: BTreeMap<(PartitionId, Value), Offset>,
    synced: BTreeMap<(SegmentId, InstanceId), Synced>,
    promised: BTreeMap<(InstanceId, SegmentId), u64>,
    fences: BTreeMap<(InstanceId, PartitionId), Epoch>,
    closed: BTreeMap<SegmentId, Closed>,
    high_watermarks: BTreeMap<(PartitionId, Epoch), Offset>,
    log_starts: BTreeMap<PartitionId, Offset>,
    /// Nothing is promised about these any more.
    deleted: BTreeSet<PartitionId>,
    violation: Option<Violation>,
    /// More copies were destroyed than the cluster promises to survive: losses are no fault of it any more.
    pub beyond_model: bool,
    /// Too few sound bookies are left to give an open segment its ack quorum: the cluster may stand still, not lie.
    pub may_stall: bool,
    /// A disk lost acked entries of an open segment, and neither disk nor metadata shows it.
    pub silent_loss: bool,
    pub acks: u64,
    pub served: u64,
}

impl Oracle {
    pub fn fail(&mut self, rule: &'static str, text: String) {
        // Where a disk lost what nothing can know of, records may be lost and their offsets given away again.
        if self.silent_loss && matches!(rule, "I3" | "I4" | "I12" | "R17") {
            return;
        }
        self.violation.get_or_insert(Violation { rule, text });
    }

    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// A disk completed an fsync that covers `entries` entries of the segment, the last one ending at `end_offset`.
    pub fn synced(&mut self, segment: SegmentId, instance: InstanceId, entries: u64, end_offset: Offset) {
        let synced = self.synced.entry((segment, instance)).or_default();
        if entries > synced.entries {
            *synced = Synced { entries, end_offset };
        }
    }

    pub fn synced_entries(&self, segment: SegmentId, instance: InstanceId) -> u64 {
        self.synced.get(&(segment, instance)).map_or(0, |synced| synced.entries)
    }

    /// A bookie answered OK: it holds `durable` entries of the segment.
    pub fn promised(&mut self, instance: InstanceId, segment: SegmentId, durable: u64) {
        if !self.beyond_model && durable > self.synced_entries(segment, instance) {
            self.fail("I4", format!("{segment}: bookie answered OK up to {durable}, its disk has synced less"));
        }
        let promised = self.promised.entry((instance, segment)).or_default();
        *promised = durable.max(*promised);
    }

    /// A bookie answered "no such entry". It may not, if it ever acked it.
    pub fn denied(&mut self, instance: InstanceId, segment: SegmentId, entry: EntryId) {
        if self.promised.get(&(instance, segment)).is_some_and(|durable| *durable > entry) {
            self.fail("I7", format!("{segment}: NO_SUCH_ENTRY for {entry}, which the same instance has acked"));
        }
    }

    /// The bookie dropped the segment on metadata's word: from now on "no such entry" is the truth.
    pub fn dropped(&mut self, instance: InstanceId, segment: SegmentId) {
        self.promised.remove(&(instance, segment));
    }

    pub fn fence_promised(&mut self, instance: InstanceId, partition: PartitionId, epoch: Epoch) {
        if !self.deleted.contains(&partition) {
            let fence = self.fences.entry((instance, partition)).or_default();
            *fence = epoch.max(*fence);
        }
    }

    /// What a bookie holds as its fence now, for a partition that it once promised to fence.
    pub fn fence_held(&mut self, instance: InstanceId, partition: PartitionId, epoch: Epoch) {
        if let Some(promised) = self.fences.get(&(instance, partition)).filter(|promised| **promised > epoch) {
            let text = format!("partition {partition}: a fence at {promised} fell back to {epoch}");
            self.fail("I8", text);
        }
    }

    /// The disk lost data: what it promised before binds it no more, only what it says from now on.
    pub fn data_lost(&mut self, instance: InstanceId) {
        self.fences.retain(|(of, _), _| *of != instance);
    }

    /// Segments of which the instance once acked more than it holds now. From here on it is bound by what it holds.
    pub fn fallen_short(&mut self, instance: InstanceId, held: impl Fn(SegmentId) -> u64) -> Vec<SegmentId> {
        let mut short = Vec::new();
        for ((of, segment), promised) in &mut self.promised {
            if *of == instance && *promised > held(*segment) {
                *promised = held(*segment);
                short.push(*segment);
            }
        }
        short
    }

    /// A disk fault took fences with it: promises above what can be held are void.
    pub fn fences_fallen(&mut self, instance: InstanceId, held: impl Fn(PartitionId) -> Epoch) {
        self.fences.retain(|(of, partition), epoch| *of != instance || *epoch <= held(*partition));
    }

    pub fn promised_partitions(&self, instance: InstanceId) -> impl Iterator<Item = PartitionId> + '_ {
        self.fences.range((instance, PartitionId(0))..=(instance, PartitionId(u64::MAX))).map(|((_, p), _)| *p)
    }

    pub fn partition_deleted(&mut self, partition: PartitionId) {
        self.deleted.insert(partition);
        self.fences.retain(|(_, of), _| *of != partition);
        self.seen.retain(|(of, _), _| *of != partition);
        self.acked_values.retain(|(of, _), _| *of != partition);
        self.closed.retain(|segment, _| segment.partition != partition);
    }

    /// A client was told that its records stand from `base` on.
    pub fn acked(&mut self, partition: PartitionId, base: Offset, values: &[Value]) {
        self.acks += 1;
        if self.deleted.contains(&partition) {
            return;
        }
        for (i, value) in values.iter().enumerate() {
            let offset = base + i as Offset;
            self.observe(partition, offset, *value, true);
            let before = self.acked_values.insert((partition, *value), offset);
            if let Some(first) = before.filter(|first| *first != offset && is_idempotent(*value)) {
                let text = format!("partition {partition}: record {value:#x} acked at {first} and again at {offset}");
                self.fail("I12", text);
            }
        }
    }

    /// At the moment of an ack: some segment holds the offset on an ack quorum of its own members.
    pub fn ack_has_quorum(&self, segment: SegmentId, members: &[InstanceId], ack: usize, offset: Offset) -> bool {
        let holds = |m: &&InstanceId| self.synced.get(&(segment, **m)).is_some_and(|s| s.end_offset > offset);
        members.iter().filter(holds).count() >= ack
    }

    /// A reader was given a record.
    pub fn served(&mut self, partition: PartitionId, offset: Offset, value: Value) {
        self.served += 1;
        self.observe(partition, offset, value, false);
    }

    fn observe(&mut self, partition: PartitionId, offset: Offset, value: Value, acked: bool) {
        let seen = self.seen.entry((partition, offset)).or_insert(Seen { value, acked });
        seen.acked |= acked;
        if seen.value != value {
            let text = format!("partition {partition} offset {offset}: {:#x} and {value:#x}", seen.value);
            self.fail("I3", format!("two values for one offset: {text}"));
        }
    }

    /// A reader or producer learned the high watermark from the partition's owner of that epoch.
    pub fn high_watermark(&mut self, partition: PartitionId, epoch: Epoch, offset: Offset) {
        let high = self.high_watermarks.entry((partition, epoch)).or_default();
        if offset < *high {
            let text = format!("partition {partition} epoch {epoch}: high watermark fell from {high} to {offset}");
            self.fail("I11", text);
        } else {
            *high = offset;
        }
    }

    pub fn log_start(&mut self, partition: PartitionId, offset: Offset) {
        let start = self.log_starts.entry(partition).or_default();
        if offset < *start {
            let text = format!("partition {partition}: log start fell from {start} to {offset}");
            self.fail("I11", text);
        } else {
            *start = offset;
        }
    }

    /// Metadata shows the segment closed.
    pub fn closed(&mut self, segment: SegmentId, now: Closed) {
        let before = *self.closed.entry(segment).or_insert(now);
        if before != now {
            self.fail("I2", format!("{segment}: closed as {before:?}, now {now:?}"));
        }
    }

    /// An owner told a reader that `offset` is out of range. It may not be, if the record was acked.
    pub fn out_of_range(&mut self, partition: PartitionId, offset: Offset) {
        let start = self.log_starts.get(&partition).copied().unwrap_or(0);
        // Also right behind the last acked record a reader may wait.
        let acked_at = |offset| self.seen.get(&(partition, offset)).is_some_and(|seen| seen.acked);
        let acked = acked_at(offset) || acked_at(offset - 1);
        if acked && offset >= start && !self.beyond_model {
            self.fail("R17", format!("partition {partition}: OFFSET_OUT_OF_RANGE for {offset}, which was acked"));
        }
    }

    /// The whole log as read back at the end, from `start` on, `end` exclusive.
    pub fn check_log(&mut self, partition: PartitionId, start: Offset, log: &BTreeMap<Offset, Value>) {
        for (offset, value) in log {
            self.observe(partition, *offset, *value, false);
        }
        let missing =
            |(key, seen): &(&(PartitionId, Offset), &Seen)| key.1 >= start && log.get(&key.1) != Some(&seen.value);
        let of_partition = (partition, Offset::MIN)..=(partition, Offset::MAX);
        if let Some((key, seen)) = self.seen.range(of_partition).find(missing) {
            let what = if seen.acked { "acked" } else { "served" };
            let (value, offset) = (seen.value, key.1);
            if !self.beyond_model {
                let text = format!("partition {partition} offset {offset}: record {value:#x} was {what} and is lost");
                self.fail("I3", text);
            }
        }
        self.check_sequences(partition, log);
    }

    /// I12: per producer neither gap nor duplicate, in order.
    fn check_sequences(&mut self, partition: PartitionId, log: &BTreeMap<Offset, Value>) {
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        for (offset, value) in log.iter().filter(|(_, value)| is_idempotent(**value)) {
            let (producer, sequence) = (producer_of(*value), sequence_of(*value));
            let before = last.insert(producer, sequence);
            let expected = before.map_or(sequence, |before| before + 1);
            let gap_in_model = sequence > expected && self.beyond_model;
            if sequence != expected && !gap_in_model {
                let text = format!(
                    "partition {partition} offset {offset}: producer {producer} has {sequence} after {before:?}"
                );
                self.fail("I12", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(1);

    #[test]
    fn loss_duplicate_and_second_value_are_seen() {
        let log = |records: &[(Offset, Value)]| records.iter().copied().collect::<BTreeMap<_, _>>();
        let rule = |act: &dyn Fn(&mut Oracle)| {
            let mut oracle = Oracle::default();
            oracle.acked(P, 0, &[value(1, 0), value(1, 1)]);
            act(&mut oracle);
            oracle.violation().map(|v| v.rule)
        };
        assert_eq!(rule(&|o| o.check_log(P, 0, &log(&[(0, value(1, 0)), (1, value(1, 1))]))), None);
        assert_eq!(rule(&|o| o.check_log(P, 0, &log(&[(0, value(1, 0))]))), Some("I3"));
        assert_eq!(rule(&|o| o.check_log(P, 1, &log(&[(1, value(1, 1)), (2, value(1, 1))]))), Some("I12"));
        assert_eq!(rule(&|o| o.served(P, 0, value(2, 0))), Some("I3"));
        assert_eq!(rule(&|o| o.acked(P, 7, &[value(1, 1)])), Some("I12"));
        assert_eq!(rule(&|o| o.out_of_range(P, 1)), Some("R17"));
    }

    #[test]
    fn bookies_are_held_to_their_word() {
        let (segment, instance) = (SegmentId::new(1, 1), InstanceId([1; 16]));
        let mut oracle = Oracle::default();
        oracle.synced(segment, instance, 3, 10);
        oracle.promised(instance, segment, 3);
        oracle.fence_promised(instance, P, Epoch(4));
        oracle.fence_held(instance, P, Epoch(4));
        assert_eq!(oracle.violation(), None);
        oracle.denied(instance, segment, 2);
        assert_eq!(oracle.violation().map(|v| v.rule), Some("I7"));
    }
}
