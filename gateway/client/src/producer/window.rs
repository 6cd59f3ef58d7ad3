//! Batches between the first try and the acknowledgement: in order, with their sequences, and what is known about
//! each. Pure: no IO, time comes in as an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_types::Offset;
use esker_wire::batch::{Batch, ProducerStamp, next_sequence};

use super::delivery::Outcome;
use crate::error::{RemoteError, SendError};

/// Under which name batches of one partition are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// A batch that is not settled.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) batch: Batch,
    pub(super) outcome: Arc<Outcome>,
    pub(super) born: Instant,
    pub(super) reserved: usize,
    /// On the present stream, under this request id.
    request: Option<u64>,
    /// An earlier try ended without an answer: it may be in the log.
    uncertain: bool,
}

/// What a time-out or a refusal has settled: bytes of buffer that became free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the bytes must go back to the buffer"]
pub(super) struct Freed(pub(super) usize);

/// The answer does not belong to the oldest batch: the peer breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfStep;

#[derive(Debug)]
pub(super) struct Window {
    queue: VecDeque<Unacked>,
    size: usize,
    /// None while not idempotent, or not asked for yet.
    identity: Option<Identity>,
    /// Whose epochs were used up.
    used_up: Option<Identity>,
    next_sequence: i32,
    next_request: u64,
}

impl Window {
    pub(super) fn new(size: usize) -> Self {
        Self { queue: VecDeque::new(), size, identity: None, used_up: None, next_sequence: 0, next_request: 1 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < self.size
    }

    /// When the oldest batch was born.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|oldest| oldest.born)
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// An identity that is of no more use for this partition.
    pub(super) fn used_up(&self) -> Option<Identity> {
        self.used_up
    }

    /// Numbers batches under `identity` from now on, beginning with those that are here.
    pub(super) fn renumber(&mut self, identity: Identity) {
        (self.identity, self.next_sequence) = (Some(identity), 0);
        let mut queue = std::mem::take(&mut self.queue);
        for unacked in &mut queue {
            if let Some(stamp) = self.stamp(unacked.batch.count()) {
                unacked.batch.set_producer(stamp);
            }
            (unacked.request, unacked.uncertain) = (None, false);
        }
        self.queue = queue;
    }

    /// The stamp of the next batch, which holds `count` records.
    pub(super) fn stamp(&mut self, count: u32) -> Option<ProducerStamp> {
        let Identity { id, epoch } = self.identity?;
        let base_sequence = self.next_sequence;
        self.next_sequence = next_sequence(base_sequence, count as i32);
        Some(ProducerStamp { id, epoch, base_sequence })
    }

    pub(super) fn push(&mut self, batch: Batch, outcome: Arc<Outcome>, born: Instant, reserved: usize) {
        self.queue.push_back(Unacked { batch, outcome, born, reserved, request: None, uncertain: false });
    }

    /// The next batch that is not on the present stream yet; it is now.
    pub(super) fn send_next(&mut self) -> Option<(u64, Batch)> {
        let unsent = self.queue.iter_mut().find(|unacked| unacked.request.is_none())?;
        let request = self.next_request;
        self.next_request += 1;
        unsent.request = Some(request);
        Some((request, unsent.batch.clone()))
    }

    /// The oldest batch is acknowledged.
    pub(super) fn acknowledge(&mut self, request: u64, base_offset: Offset) -> Result<Freed, OutOfStep> {
        match self.queue.pop_front() {
            Some(oldest) if oldest.request == Some(request) => {
                oldest.outcome.set(Ok(base_offset));
                Ok(Freed(oldest.reserved))
            }
            other => {
                self.queue.extend(other);
                Err(OutOfStep)
            }
        }
    }

    /// True if this is the request of the oldest batch.
    pub(super) fn is_oldest(&self, request: u64) -> bool {
        self.queue.front().is_some_and(|oldest| oldest.request == Some(request))
    }

    /// The present stream gave a definite answer that this batch was not stored by this try.
    pub(super) fn not_stored(&mut self, request: u64) {
        if let Some(unacked) = self.queue.iter_mut().find(|unacked| unacked.request == Some(request)) {
            unacked.request = None;
        }
    }

    /// The present stream is over: what was sent on it may be in the log, and will be sent again, in order.
    pub(super) fn stream_lost(&mut self) {
        for unacked in &mut self.queue {
            unacked.uncertain |= unacked.request.take().is_some();
        }
    }

    /// True if any batch here may be in the log already.
    pub(super) fn any_uncertain(&self) -> bool {
        self.queue.iter().any(|unacked| unacked.uncertain || unacked.request.is_some())
    }

    /// Fails the oldest batch for good. Those behind it fail with it up to the last one that may be in the log:
    /// storing that again under a new number could double it, storing others behind it could reorder them. Those that
    /// certainly are not in the log stay, and get new numbers under a raised epoch, which also keeps late copies of
    /// the failed ones out.
    ///
    /// The stream must be over ([`Window::stream_lost`]) before.
    pub(super) fn fail_oldest(&mut self, error: impl FnOnce(bool) -> SendError) -> Freed {
        let Some(oldest) = self.queue.pop_front() else { return Freed::default() };
        let mut freed = Freed(oldest.reserved);
        let error = error(oldest.uncertain);
        let reason = error.to_string();
        oldest.outcome.set(Err(error));
        let failing = self.queue.iter().rposition(|unacked| unacked.uncertain).map_or(0, |last| last + 1);
        for next in self.queue.drain(..failing) {
            freed.0 += next.reserved;
            let may_be_stored = next.uncertain;
            next.outcome.set(Err(SendError::EarlierFailed { reason: reason.clone(), may_be_stored }));
        }
        self.raise_epoch();
        freed
    }

    /// Begins anew under the next epoch, or, when epochs are used up, under an identity that is still to come.
    pub(super) fn raise_epoch(&mut self) {
        match self.identity {
            Some(Identity { id, epoch }) if epoch < i16::MAX => self.renumber(Identity { id, epoch: epoch + 1 }),
            used_up => (self.identity, self.used_up) = (None, used_up),
        }
    }

    /// Fails the oldest batch if it is older than `timeout`.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration, last: &str) -> Option<Freed> {
        let oldest = self.oldest()?;
        if now.duration_since(oldest) < timeout {
            return None;
        }
        self.stream_lost();
        let last = last.to_owned();
        Some(self.fail_oldest(|may_be_stored| SendError::TimedOut { after: timeout, may_be_stored, last }))
    }

    pub(super) fn refuse_oldest(&mut self, error: RemoteError) -> Freed {
        self.fail_oldest(|uncertain| match uncertain {
            // This try was refused, an earlier one may have been stored all the same.
            true => SendError::EarlierFailed { reason: error.message, may_be_stored: true },
            false => SendError::Refused(error),
        })
    }

    /// Fails everything: there will be no further try.
    pub(super) fn fail_all(&mut self, error: impl Fn(bool) -> SendError) -> Freed {
        self.stream_lost();
        let mut freed = Freed::default();
        for unacked in self.queue.drain(..) {
            unacked.outcome.set(Err(error(unacked.uncertain)));
            freed.0 += unacked.reserved;
        }
        freed
    }

    /// Without acknowledgements: what was handed to the stream is done.
    pub(super) fn forget_sent(&mut self) -> Freed {
        let mut freed = Freed::default();
        while let Some(sent) = self.queue.pop_front_if(|unacked| unacked.request.is_some()) {
            sent.outcome.set(Ok(-1));
            freed.0 += sent.reserved;
        }
        freed
    }
}
