use std::collections::VecDeque;

use esker_types::{Offset, ProducerId};
use esker_wire::batch::{Batch, next_sequence};

use crate::partition::Sequence;

/// Batches remembered per producer: Kafka clients have at most five in flight, so a repetition is always of one of
/// the last five.
pub const REMEMBERED: usize = 5;

/// Where one batch of a producer lies, by sequence and by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSpan {
    pub epoch: i16,
    pub first_sequence: i32,
    /// Inclusive; may be below `first_sequence`, as sequences wrap at 2^31.
    pub last_sequence: i32,
    pub base_offset: Offset,
    /// Largest record timestamp in milliseconds, -1 = none.
    pub max_ts: i64,
}

impl BatchSpan {
    pub(super) fn new(sequence: &Sequence, base_offset: Offset, max_ts: i64) -> Self {
        let Sequence { epoch, first, last, .. } = *sequence;
        Self { epoch, first_sequence: first, last_sequence: last, base_offset, max_ts }
    }

    /// Same producer epoch and same records: what a retry looks like.
    pub(super) fn is_same_batch(&self, other: &Sequence) -> bool {
        (self.epoch, self.first_sequence, self.last_sequence) == (other.epoch, other.first, other.last)
    }

    /// The only sequence that may follow in this epoch.
    pub(super) fn next_sequence(&self) -> i32 {
        next_sequence(self.last_sequence, 1)
    }
}

/// One producer in the committed view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Producer {
    /// Oldest first, at least one, at most [`REMEMBERED`], all of one epoch.
    pub(super) batches: VecDeque<BatchSpan>,
    /// Log time at its last batch: the partition's largest timestamp so far. Decides who is idle.
    pub(super) seen_at: i64,
}

impl Producer {
    pub(super) fn last(&self) -> Option<&BatchSpan> {
        self.batches.back()
    }

    pub(super) fn fold(&mut self, batch: BatchSpan, log_time: i64) {
        if self.last().is_some_and(|last| last.epoch != batch.epoch) {
            self.batches.clear();
        }
        if self.batches.len() == REMEMBERED {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
        self.seen_at = log_time;
    }
}

impl Sequence {
    /// None: the batch is not idempotent.
    pub fn of(batch: &Batch) -> Option<Self> {
        let stamp = batch.producer()?;
        let producer = ProducerId(u64::try_from(stamp.id).ok()?);
        let last = batch.header().last_sequence();
        Some(Self { producer, epoch: stamp.epoch, first: stamp.base_sequence, last })
    }
}
