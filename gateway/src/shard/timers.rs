use std::cmp::Reverse;
use std::collections::BinaryHeap;

use esker_types::{PartitionId, Time};

/// When partitions want to be looked at again. An idle partition has no entry.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Time, PartitionId)>>,
}

impl Timers {
    /// Asks for a look at `partition` at `at`. The caller remembers the earliest time it asked for and asks again only
    /// for an earlier one, so a partition has few entries; a stale one costs one look.
    pub fn arm(&mut self, at: Time, partition: PartitionId) {
        self.heap.push(Reverse((at, partition)));
    }

    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// A partition whose time has come.
    pub fn due(&mut self, now: Time) -> Option<PartitionId> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse((_, partition))| partition)
    }
}
