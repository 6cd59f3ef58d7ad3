use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;

use bytes::Bytes;
use esker_types::{AllRules, ErrorCode, Offset, ProducerId, Rules};
use esker_wire::batch::{Batch, BatchError, split};

use super::producer::{BatchSpan, Producer};
use crate::partition::Sequence;

/// Memory that one remembered producer takes, map overhead included.
const PRODUCER_BYTES: usize = 320;

/// Bounds of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Producers remembered at once. The default stands for 64 MiB.
    pub producers_max: usize,
    /// Milliseconds of log time after which a producer may be forgotten when room is needed.
    pub idle_ms: i64,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { producers_max: (64 << 20) / PRODUCER_BYTES, idle_ms: 15 * 60 * 1000 }
    }
}

/// What to do with a batch that may be in the log or on its way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// New: give it the next offset, then tell the table with [`ProducerTable::pend`].
    Append,
    /// The same batch is under way at `base_offset`: wait for its outcome and answer with the same.
    DuplicatePending { base_offset: Offset },
    /// The same batch is in the log: answer success with the offset that it got then.
    DuplicateCommitted { base_offset: Offset },
}

/// Why a batch is not taken. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("producer {id} is fenced: its epoch {epoch} is older than {current}")]
    Fenced { id: ProducerId, epoch: i16, current: i16 },
    #[error("producer {id} sent sequence {sequence}, but {expected} is next: a batch before it is missing")]
    OutOfOrder { id: ProducerId, sequence: i32, expected: i32 },
    #[error("producer {id} is not known here any more: its first batch must carry sequence 0, not {sequence}")]
    UnknownProducer { id: ProducerId, sequence: i32 },
    #[error("the partition already knows {producers} producers, none of them idle for 15 minutes: try again later")]
    TooManyProducers { producers: usize },
}

impl Refusal {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Fenced { .. } => ErrorCode::ProducerFenced,
            Self::OutOfOrder { .. } => ErrorCode::OutOfOrderSequence,
            Self::UnknownProducer { .. } => ErrorCode::UnknownProducer,
            Self::TooManyProducers { .. } => ErrorCode::TooManyProducers,
        }
    }
}

/// A batch that was assigned an offset and is not committed yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Exclusive.
    end_offset: Offset,
    max_ts: i64,
    /// None: not idempotent.
    producer: Option<ProducerId>,
}

/// The producers of one partition. See the module's documentation.
#[derive(Clone, Debug)]
pub struct ProducerTable<R: Rules = AllRules> {
    limits: TableLimits,
    pub(super) committed: Committed,
    /// By producer, each queue in offset order. No empty queues.
    pending: BTreeMap<ProducerId, VecDeque<BatchSpan>>,
    /// Everything pending in offset order, not idempotent batches too: their timestamps move log time.
    order: VecDeque<Pending>,
    rules: PhantomData<R>,
}

/// The part that is a pure function of the log below `end_offset`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    producers: BTreeMap<ProducerId, Producer>,
    /// The same producers by `seen_at`, the longest silent first.
    by_age: BTreeSet<(i64, ProducerId)>,
    /// Largest timestamp of any batch in the log, -1 = none yet.
    pub(super) log_time: i64,
    /// Exclusive.
    pub(super) end_offset: Offset,
}

impl<R: Rules> Default for ProducerTable<R> {
    fn default() -> Self {
        Self::new(TableLimits::default())
    }
}

/// Two tables are equal if the log below their end made them so; what is pending does not count.
impl<R: Rules> PartialEq for ProducerTable<R> {
    fn eq(&self, other: &Self) -> bool {
        self.committed == other.committed
    }
}

impl<R: Rules> ProducerTable<R> {
    pub fn new(limits: TableLimits) -> Self {
        Self::starting_at(limits, 0)
    }

    /// For a log of which nothing below `end_offset` is left.
    pub fn starting_at(limits: TableLimits, end_offset: Offset) -> Self {
        Self::with_committed(limits, Committed::empty(end_offset, -1))
    }

    pub(super) fn with_committed(limits: TableLimits, committed: Committed) -> Self {
        Self { limits, committed, pending: BTreeMap::new(), order: VecDeque::new(), rules: PhantomData }
    }

    /// Producers in the committed view.
    pub fn len(&self) -> usize {
        self.committed.producers.len()
    }

    /// Memory of the producers remembered, in bytes.
    pub fn state_bytes(&self) -> usize {
        self.len() * PRODUCER_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.committed.producers.is_empty()
    }

    /// Offset behind the last committed batch, exclusive.
    pub fn committed_end(&self) -> Offset {
        self.committed.end_offset
    }

    /// Offset behind the last pending batch, exclusive.
    pub fn pending_end(&self) -> Offset {
        self.order.back().map_or(self.committed.end_offset, |last| last.end_offset)
    }

    /// Decides what to do with a batch from a client; `None` stands for one that is not idempotent.
    pub fn admit(&self, batch: Option<&Sequence>) -> Result<Admission, Refusal> {
        let Some(batch) = batch else { return Ok(Admission::Append) };
        let id = batch.producer;
        let known = self.committed.producers.get(&id);
        let pending = self.pending.get(&id);
        let newest = pending.and_then(VecDeque::back).or_else(|| known.and_then(Producer::last));
        let Some(newest) = newest else { return self.admit_unknown(batch) };

        if batch.epoch < newest.epoch {
            return Err(Refusal::Fenced { id, epoch: batch.epoch, current: newest.epoch });
        }
        if let Some(same) = pending.and_then(|p| p.iter().find(|p| p.is_same_batch(batch)))
            && R::DEDUPE_PENDING
        {
            return Ok(Admission::DuplicatePending { base_offset: same.base_offset });
        }
        if let Some(same) = known.and_then(|k| k.batches.iter().find(|k| k.is_same_batch(batch))) {
            let base_offset = if R::DUPLICATE_KEEPS_OFFSET { same.base_offset } else { self.pending_end() };
            return Ok(Admission::DuplicateCommitted { base_offset });
        }
        // A raised epoch starts its sequences anew.
        let expected = if batch.epoch > newest.epoch { 0 } else { newest.next_sequence() };
        let after_committed = known.and_then(Producer::last).map_or(0, BatchSpan::next_sequence);
        let broken_rule_admits = !R::DEDUPE_PENDING && batch.first == after_committed;
        if batch.first != expected && !broken_rule_admits {
            return Err(Refusal::OutOfOrder { id, sequence: batch.first, expected });
        }
        Ok(Admission::Append)
    }

    fn admit_unknown(&self, batch: &Sequence) -> Result<Admission, Refusal> {
        if batch.first != 0 {
            return Err(Refusal::UnknownProducer { id: batch.producer, sequence: batch.first });
        }
        let fresh = self.pending.keys().filter(|id| !self.committed.producers.contains_key(id)).count();
        let producers = self.committed.producers.len() + fresh;
        if producers >= self.limits.producers_max && self.committed.idle(self.limits, fresh + 1) <= fresh {
            return Err(Refusal::TooManyProducers { producers });
        }
        Ok(Admission::Append)
    }

    /// Notes a batch that was admitted and now has its offsets. Batches come in offset order without holes.
    /// `max_ts` is its largest record timestamp in milliseconds, -1 = none.
    ///
    /// # Panics
    /// If the batch lies before one that is already pending or committed: two batches at one offset is a bug.
    pub fn pend(&mut self, batch: Option<&Sequence>, base_offset: Offset, count: u32, max_ts: i64) {
        assert!(base_offset >= self.pending_end(), "batches are assigned in offset order");
        let end_offset = base_offset + Offset::from(count);
        self.order.push_back(Pending { end_offset, max_ts, producer: batch.map(|b| b.producer) });
        if let Some(batch) = batch {
            self.pending.entry(batch.producer).or_default().push_back(BatchSpan::new(batch, base_offset, max_ts));
        }
    }

    /// The log is committed up to `end`, exclusive: what was pending below it is committed.
    pub fn commit_up_to(&mut self, end: Offset) {
        while self.order.front().is_some_and(|first| first.end_offset <= end) {
            let Some(first) = self.order.pop_front() else { break };
            let batch = first.producer.and_then(|id| Some((id, self.take_oldest_pending(id)?)));
            self.committed.fold(first.max_ts, first.end_offset, batch, self.limits);
        }
    }

    /// Batches at `from` and behind it will not be in this owner's log: they are forgotten. If batch n fails, n+1
    /// in flight fails too, so there is no way to take out one alone. Returns how many there were.
    pub fn fail_from(&mut self, from: Offset) -> usize {
        let before = self.order.len();
        while let Some(last) = self.order.back()
            && last.end_offset > from
        {
            if let Some(id) = last.producer
                && let Some(queue) = self.pending.get_mut(&id)
            {
                queue.pop_back();
                if queue.is_empty() {
                    self.pending.remove(&id);
                }
            }
            self.order.pop_back();
        }
        before - self.order.len()
    }

    /// Replays one committed batch, as a new owner does. The log is the truth: nothing is refused.
    pub fn replay(&mut self, batch: &Batch) {
        debug_assert!(self.order.is_empty(), "replay comes before the first append");
        let header = batch.header();
        let max_ts = header.largest_ts();
        let span = Sequence::of(batch).map(|s| (s.producer, BatchSpan::new(&s, header.base_offset, max_ts)));
        self.committed.fold(max_ts, header.end_offset(), span, self.limits);
    }

    /// Replays the payload of a data entry whose checksum was verified.
    pub fn replay_entry(&mut self, payload: Bytes) -> Result<(), BatchError> {
        for batch in split(payload, false) {
            self.replay(&batch?);
        }
        Ok(())
    }

    /// The committed view as it will be when exactly the batches below `upto` are committed.
    pub(super) fn folded(&self, upto: Offset) -> Committed {
        let mut folded = self.committed.clone();
        let mut taken: BTreeMap<ProducerId, usize> = BTreeMap::new();
        // The live table holds batches that may still fail: a snapshot that remembers one of them would answer its
        // retry with an offset at which nothing, or something else, was written.
        for pending in self.order.iter().take_while(|p| p.end_offset <= upto || !R::SNAPSHOT_FOLDS_PREFIX) {
            let batch = pending.producer.and_then(|id| {
                let nth = taken.entry(id).or_default();
                let span = self.pending.get(&id)?.get(*nth)?;
                *nth += 1;
                Some((id, *span))
            });
            folded.fold(pending.max_ts, pending.end_offset, batch, self.limits);
        }
        folded
    }

    fn take_oldest_pending(&mut self, id: ProducerId) -> Option<BatchSpan> {
        let queue = self.pending.get_mut(&id)?;
        let oldest = queue.pop_front();
        if queue.is_empty() {
            self.pending.remove(&id);
        }
        oldest
    }
}

impl Committed {
    pub(super) fn empty(end_offset: Offset, log_time: i64) -> Self {
        Self { end_offset, log_time, ..Self::default() }
    }

    fn fold(&mut self, max_ts: i64, end_offset: Offset, batch: Option<(ProducerId, BatchSpan)>, limits: TableLimits) {
        self.log_time = self.log_time.max(max_ts);
        self.end_offset = end_offset;
        let Some((id, batch)) = batch else { return };
        if !self.producers.contains_key(&id) && self.producers.len() >= limits.producers_max {
            self.evict_idlest(limits);
        }
        let mut producer = self.producers.remove(&id).unwrap_or_default();
        self.by_age.remove(&(producer.seen_at, id));
        producer.fold(batch, self.log_time);
        self.insert(id, producer);
    }

    /// Adds a producer that is not there.
    pub(super) fn insert(&mut self, id: ProducerId, producer: Producer) {
        self.by_age.insert((producer.seen_at, id));
        self.producers.insert(id, producer);
    }

    /// In the order of their ids.
    pub(super) fn producers(&self) -> impl DoubleEndedIterator<Item = (ProducerId, &Producer)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    /// Forgets the producer that was silent longest, if it was silent long enough. Ties go to the lowest id, so
    /// that every owner forgets the same one.
    fn evict_idlest(&mut self, limits: TableLimits) {
        if let Some((seen_at, id)) = self.by_age.first().copied()
            && self.is_idle(seen_at, limits)
        {
            self.by_age.pop_first();
            self.producers.remove(&id);
        }
    }

    /// Counts idle producers, up to `enough`.
    fn idle(&self, limits: TableLimits, enough: usize) -> usize {
        self.by_age.iter().take(enough).take_while(|(seen_at, _)| self.is_idle(*seen_at, limits)).count()
    }

    fn is_idle(&self, seen_at: i64, limits: TableLimits) -> bool {
        self.log_time.saturating_sub(seen_at) > limits.idle_ms
    }
}
