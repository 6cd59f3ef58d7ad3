//! Records on their way into batches. Senders push under a short lock; the partition's driver takes whole batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_wire::batch::{BatchBuilder, Compression};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::delivery::Outcome;
use super::record::Record;
use crate::error::SendError;

/// A batch that takes no more records, with what has to be settled when it is done.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) builder: BatchBuilder,
    pub(super) outcome: Arc<Outcome>,
    /// When its first record was sent: the delivery time-out counts from here.
    pub(super) born: Instant,
    /// Bytes of the producer's buffer that it occupies.
    pub(super) reserved: usize,
}

#[derive(Debug)]
pub(super) struct Accumulator {
    inner: Mutex<Inner>,
    /// Rung when a batch was begun or became full, on flush and on close.
    pub(super) bell: Notify,
    compression: Compression,
    batch_bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    open: Option<Collected>,
    full: VecDeque<Collected>,
    /// Of the newest batch. Batches are settled in order, so this one is the last.
    newest: Option<Arc<Outcome>>,
    /// Send what there is without waiting for more.
    hurry: bool,
    closed: bool,
}

impl Accumulator {
    pub(super) fn new(compression: Compression, batch_bytes: usize) -> Self {
        Self { inner: Mutex::default(), bell: Notify::new(), compression, batch_bytes }
    }

    /// Adds a record whose `reserved` bytes were taken from the buffer. Returns its batch and place in it.
    pub(super) fn push(
        &self,
        record: &Record,
        timestamp_ms: i64,
        reserved: usize,
    ) -> Result<(Arc<Outcome>, u32), SendError> {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(SendError::Closed { may_be_stored: false });
        }
        let too_long = |open: &Collected| open.builder.len() + reserved > self.batch_bytes;
        let mut ring = false;
        if inner.open.as_ref().is_some_and(too_long) {
            inner.close_open();
            ring = true;
        }
        let newest = match &mut inner.open {
            Some(open) => {
                open.reserved += reserved;
                open.builder.push(timestamp_ms, key, value, &record.headers);
                return Ok((open.outcome.clone(), open.builder.count() - 1));
            }
            empty => {
                let mut builder = BatchBuilder::new(self.compression, reserved.max(4 << 10));
                builder.push(timestamp_ms, key, value, &record.headers);
                let outcome = Outcome::new();
                *empty = Some(Collected { builder, outcome: outcome.clone(), born: Instant::now(), reserved });
                outcome
            }
        };
        ring |= inner.full.is_empty();
        inner.newest = Some(newest.clone());
        drop(inner);
        if ring {
            self.bell.notify_one();
        }
        Ok((newest, 0))
    }

    /// The oldest batch, if it is full, due, or wanted now.
    pub(super) fn take(&self, now: Instant, linger: Duration, idle: bool) -> Option<Collected> {
        let mut inner = self.inner.lock();
        if let Some(full) = inner.full.pop_front() {
            return Some(full);
        }
        let Some(open) = &inner.open else {
            inner.hurry = false;
            return None;
        };
        let wanted = idle || inner.hurry || inner.closed || now >= open.born + linger;
        if wanted { inner.open.take() } else { None }
    }

    /// Takes the oldest batch if it was born before `limit`, full or not.
    pub(super) fn take_older(&self, limit: Instant) -> Option<Collected> {
        let mut inner = self.inner.lock();
        if inner.full.is_empty() && inner.open.as_ref().is_some_and(|open| open.born < limit) {
            inner.close_open();
        }
        match inner.full.front() {
            Some(oldest) if oldest.born < limit => inner.full.pop_front(),
            _ => None,
        }
    }

    /// When the oldest record came, if there is any.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        inner.full.front().or(inner.open.as_ref()).map(|batch| batch.born)
    }

    /// No lingering until all that is here now is sent. Returns the outcome of the newest batch so far.
    pub(super) fn hurry(&self) -> Option<Arc<Outcome>> {
        let newest = {
            let mut inner = self.inner.lock();
            inner.hurry = inner.open.is_some();
            inner.newest.clone()
        };
        self.bell.notify_one();
        newest
    }

    /// Takes no more records; what is here is still sent.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.bell.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// Closes, and takes out everything that was not sent.
    pub(super) fn abandon(&self) -> Vec<Collected> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.close_open();
        inner.full.drain(..).collect()
    }
}

impl Inner {
    fn close_open(&mut self) {
        self.full.extend(self.open.take());
    }
}
