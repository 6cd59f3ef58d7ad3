//! Virtual time: what happens next, in an order that only the seed decides.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use esker_types::Time;

struct Item<E> {
    at: Time,
    /// Ties are broken by insertion, so that the order never depends on the heap's inner layout.
    seq: u64,
    event: E,
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}
impl<E> Eq for Item<E> {}
impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// Events by time. Taking one moves the clock.
pub struct Queue<E> {
    heap: BinaryHeap<Item<E>>,
    now: Time,
    seq: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::with_capacity(256), now: Time::ZERO, seq: 0 }
    }
}

impl<E> Queue<E> {
    pub fn now(&self) -> Time {
        self.now
    }

    /// Puts `event` at `at`, or now if `at` has passed.
    pub fn at(&mut self, at: Time, event: E) {
        self.seq += 1;
        self.heap.push(Item { at: at.max(self.now), seq: self.seq, event });
    }

    pub fn after_ns(&mut self, ns: u64, event: E) {
        self.at(self.now + Duration::from_nanos(ns), event);
    }

    /// The next event; the clock now stands at its time.
    pub fn pop(&mut self) -> Option<E> {
        let item = self.heap.pop()?;
        self.now = item.at;
        Some(item.event)
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
