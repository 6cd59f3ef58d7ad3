//! Virtual time: what happens next, in an order that only the seed decides.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use esker_types::Time;

/// Small, so that the heap moves little; the event itself waits in a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Item {
    at: Time,
    /// Ties are broken by insertion, so that the order never depends on the heap's inner layout.
    seq: u64,
    slot: u32,
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// Events by time. Taking one moves the clock.
pub struct Queue<E> {
    heap: BinaryHeap<Item>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    now: Time,
    seq: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        let (heap, slots, free) = (BinaryHeap::with_capacity(256), Vec::with_capacity(256), Vec::new());
        Self { heap, slots, free, now: Time::ZERO, seq: 0 }
    }
}

impl<E> Queue<E> {
    pub fn now(&self) -> Time {
        self.now
    }

    /// Puts `event` at `at`, or now if `at` has passed.
    pub fn at(&mut self, at: Time, event: E) {
        self.seq += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(event);
        self.heap.push(Item { at: at.max(self.now), seq: self.seq, slot });
    }

    pub fn after_ns(&mut self, ns: u64, event: E) {
        self.at(self.now + Duration::from_nanos(ns), event);
    }

    /// The next event; the clock now stands at its time.
    pub fn pop(&mut self) -> Option<E> {
        let item = self.heap.pop()?;
        self.now = item.at;
        self.free.push(item.slot);
        self.slots[item.slot as usize].take()
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_then_insertion() {
        let mut queue = Queue::default();
        queue.after_ns(5, "c");
        queue.after_ns(1, "a");
        queue.after_ns(1, "b");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!((order, queue.now()), (vec!["a", "b", "c"], Time(5)));
    }
}
