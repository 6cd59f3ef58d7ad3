//! A producer as a client library behaves: batches on the way in order, what is not acked is sent again in order.

use std::collections::VecDeque;

use esker_types::PartitionId;
use esker_wire::batch::{Batch, BatchBuilder, Compression, ProducerStamp};

use crate::oracle::{self, PLAIN_FROM, Value};
use crate::rng::Rng;

/// One batch on the way.
#[derive(Clone, Debug)]
pub struct Pending {
    pub first: u32,
    pub count: u32,
    pub batch: Batch,
    pub acked: bool,
}

#[derive(Debug)]
pub struct Producer {
    pub number: u32,
    pub partition: PartitionId,
    pub pending: VecDeque<Pending>,
    next_sequence: u32,
    /// Batches still to be made.
    pub left: u64,
    in_flight_max: usize,
    batch_bytes: usize,
    attempt: u32,
    /// Index of the gateway that it believes to be the owner.
    pub gateway: usize,
    /// Life of the partition that acked its last batch.
    pub acked_by: u64,
    /// A wake-up is already in the queue.
    pub waking: bool,
}

impl Producer {
    pub fn new(number: u32, partition: PartitionId, batches: u64, in_flight_max: usize, batch_bytes: usize) -> Self {
        Self {
            number,
            partition,
            pending: VecDeque::new(),
            next_sequence: 0,
            left: batches,
            in_flight_max,
            batch_bytes,
            attempt: 0,
            gateway: 0,
            acked_by: 0,
            waking: false,
        }
    }

    pub fn is_idempotent(&self) -> bool {
        self.number < PLAIN_FROM
    }

    /// All that it wanted to write is acked, or given up by a producer that never repeats.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.pending.is_empty()
    }

    /// Makes new batches up to the window. Returns the ones to send now, in order.
    pub fn fill(&mut self, rng: &mut Rng) -> Vec<Pending> {
        let mut fresh = Vec::new();
        while self.left > 0 && self.pending.len() < self.in_flight_max {
            self.left -= 1;
            let count = rng.range(1, 3) as u32;
            let bytes = rng.range(1, self.batch_bytes as u64) as usize;
            let batch = make_batch(self.number, self.next_sequence, count, bytes, self.is_idempotent());
            let pending = Pending { first: self.next_sequence, count, batch, acked: false };
            self.next_sequence += count;
            self.pending.push_back(pending.clone());
            fresh.push(pending);
        }
        fresh
    }

    /// What must be sent again after a failure, in order, under a new attempt.
    pub fn again(&mut self) -> Vec<Pending> {
        self.attempt += 1;
        if !self.is_idempotent() {
            // The outcome is unknown and a repetition could write it twice: such a producer gives up.
            self.pending.clear();
        }
        self.pending.iter().filter(|pending| !pending.acked).cloned().collect()
    }

    /// Answers to all tries so far are old news from now on.
    pub fn bump_attempt(&mut self) {
        self.attempt += 1;
    }

    pub fn give_up(&mut self) {
        self.left = 0;
        self.pending.clear();
    }

    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    pub fn on_acked(&mut self, first: u32) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.first == first) {
            pending.acked = true;
        }
        while self.pending.front().is_some_and(|pending| pending.acked) {
            self.pending.pop_front();
        }
    }
}

pub fn values(number: u32, first: u32, count: u32) -> Vec<Value> {
    (first..first + count).map(|sequence| oracle::value(number, sequence)).collect()
}

/// A real record batch whose records name themselves.
fn make_batch(number: u32, first: u32, count: u32, bytes: usize, idempotent: bool) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, bytes + 100);
    let padding = vec![number as u8; (bytes / count as usize).max(8)];
    for value in values(number, first, count) {
        builder.push(1_000, Some(&value.to_le_bytes()), Some(&padding), &[]);
    }
    let stamp = ProducerStamp { id: i64::from(number), epoch: 0, base_sequence: first as i32 };
    builder.build(idempotent.then_some(stamp))
}
