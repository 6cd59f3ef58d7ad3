//! The queue in front of the journal's thread.
//!
//! Entries are bounded in bytes: whoever brings one waits for room first and, while it waits, reads nothing more from
//! its connection. Fences and upkeep need no room, so a full queue can't hold up a failover; their number is bounded
//! by the connections that bring them. The order of [`Queue::push`] is the order of all decisions.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// The journal has stopped; nothing is taken any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal has stopped")]
pub struct Stopped;

/// Bytes of the queue that an operation takes up, until [`Queue::release`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Room(pub u32);

pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    wake: Condvar,
    room: Semaphore,
    room_max: u32,
    metrics: Metrics,
}

struct Inner<T> {
    ops: Vec<T>,
    /// The thread sleeps: wake it. Otherwise it will look by itself, and no system call is spent.
    sleeping: bool,
    closed: bool,
}

/// What [`Queue::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Work,
    /// Nothing came within the time given.
    Idle,
    /// Closed, and everything pushed before has been taken.
    Closed,
}

impl<T> Queue<T> {
    pub fn new(bytes_max: u64, metrics: Metrics) -> Self {
        let room_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        Self {
            inner: Mutex::new(Inner { ops: Vec::new(), sleeping: false, closed: false }),
            wake: Condvar::new(),
            room: Semaphore::new(room_max as usize),
            room_max,
            metrics,
        }
    }

    /// Waits for room, first come first served. An operation larger than the whole queue gets all of it. Cancel-safe:
    /// dropped early, nothing is taken.
    pub async fn room(&self, bytes: usize) -> Result<Room, Stopped> {
        let weight = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_max);
        self.room.acquire_many(weight).await.map_err(|_| Stopped)?.forget();
        self.metrics.queue_moved(weight.into());
        Ok(Room(weight))
    }

    /// Gives room back once the operations that had it are decided and durable.
    pub fn release(&self, room: Room) {
        if room.0 > 0 {
            self.room.add_permits(room.0 as usize);
            self.metrics.queue_moved(-i64::from(room.0));
        }
    }

    /// Bytes waiting or being written.
    pub fn used_bytes(&self) -> u64 {
        u64::from(self.room_max).saturating_sub(self.room.available_permits() as u64)
    }

    /// Puts operations at the end of the queue, together.
    pub fn push_all(&self, ops: impl IntoIterator<Item = T>) -> Result<(), Stopped> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Stopped);
        }
        inner.ops.extend(ops);
        let wake = inner.sleeping && !inner.ops.is_empty();
        inner.sleeping &= !wake;
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub fn push(&self, op: T) -> Result<(), Stopped> {
        self.push_all([op])
    }

    /// Moves all that is queued into `into`, which must be empty; waits up to `patience` (none: for ever) when
    /// nothing is. Called by the journal's thread alone.
    pub fn take(&self, into: &mut Vec<T>, patience: Option<Duration>) -> Taken {
        let mut inner = self.inner.lock();
        if inner.ops.is_empty() && !inner.closed {
            inner.sleeping = true;
            match patience {
                Some(patience) => {
                    self.wake.wait_while_for(&mut inner, |inner| inner.sleeping && !inner.closed, patience);
                }
                None => self.wake.wait_while(&mut inner, |inner| inner.sleeping && !inner.closed),
            }
            inner.sleeping = false;
        }
        std::mem::swap(&mut inner.ops, into);
        match (into.is_empty(), inner.closed) {
            (false, _) => Taken::Work,
            (true, true) => Taken::Closed,
            (true, false) => Taken::Idle,
        }
    }

    /// Takes nothing more. What is queued is still taken out by the thread.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.room.close();
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::registry::Registry;

    use super::*;

    fn queue(bytes: u64) -> Arc<Queue<u32>> {
        Arc::new(Queue::new(bytes, Metrics::new(&mut Registry::default())))
    }

    #[tokio::test]
    async fn order_is_kept_and_room_is_bounded() {
        let queue = queue(100);
        let first = queue.room(60).await.unwrap();
        queue.push(1).unwrap();
        assert_eq!(queue.used_bytes(), 60);
        // The second does not fit beside the first; a fence needs no room.
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.room(1000).await.map(|room| (queue.push(3).is_ok(), room)) }
        });
        tokio::task::yield_now().await;
        queue.push(2).unwrap();
        let mut ops = Vec::new();
        assert_eq!(queue.take(&mut ops, None), Taken::Work);
        assert_eq!(ops, [1, 2]);
        queue.release(first);
        assert_eq!(waiting.await.unwrap(), Ok((true, Room(100))));
        ops.clear();
        assert_eq!(queue.take(&mut ops, None), Taken::Work);
        assert_eq!(ops, [3]);
        ops.clear();
        assert_eq!(queue.take(&mut ops, Some(Duration::ZERO)), Taken::Idle);
    }

    #[tokio::test]
    async fn closing_lets_go_of_everybody() {
        let queue = queue(10);
        queue.push(1).unwrap();
        let taken = queue.room(10).await.unwrap();
        queue.close();
        assert_eq!(queue.room(1).await, Err(Stopped));
        assert_eq!(queue.push(2), Err(Stopped));
        queue.release(taken);
        let mut ops = Vec::new();
        assert_eq!(queue.take(&mut ops, None), Taken::Work);
        ops.clear();
        assert_eq!(queue.take(&mut ops, None), Taken::Closed);
    }
}
