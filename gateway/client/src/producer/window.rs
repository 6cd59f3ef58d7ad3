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
        let oldest = self.queue.pop_front_if(|oldest| oldest.request == Some(request)).ok_or(OutOfStep)?;
        oldest.outcome.set(Ok(base_offset));
        Ok(Freed(oldest.reserved))
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

#[cfg(test)]
mod tests {
    use esker_types::ErrorCode;
    use esker_types::error::ErrorInfo;
    use esker_wire::batch::{BatchBuilder, Compression};

    use super::*;
    use crate::producer::delivery::Delivery;

    const FIRST: Identity = Identity { id: 7, epoch: 0 };

    fn numbered(window: &mut Window, batches: usize) -> Vec<Delivery> {
        window.renumber(FIRST);
        (0..batches).map(|_| push(window)).collect()
    }

    /// A batch of two records.
    fn push(window: &mut Window) -> Delivery {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.push(1, None, Some(b"a"), &[]);
        builder.push(1, None, Some(b"b"), &[]);
        let outcome = Outcome::new();
        let stamp = window.stamp(2);
        window.push(builder.build(stamp), outcome.clone(), Instant::now(), 100);
        Delivery::new(outcome, 0, 1)
    }

    fn send_all(window: &mut Window) -> Vec<(u64, i16, i32)> {
        std::iter::from_fn(|| window.send_next())
            .map(|(request, batch)| (request, batch.header().producer_epoch, batch.header().base_sequence))
            .collect()
    }

    fn refusal() -> RemoteError {
        RemoteError::from(ErrorInfo::new(ErrorCode::InvalidTimestamp, "no"))
    }

    #[test]
    fn a_lost_stream_is_repeated_in_order_with_the_same_numbers() {
        let mut window = Window::new(5);
        let deliveries = numbered(&mut window, 3);
        assert_eq!(send_all(&mut window), [(1, 0, 0), (2, 0, 2), (3, 0, 4)]);
        assert_eq!(window.acknowledge(1, 40), Ok(Freed(100)));
        assert_eq!(deliveries[0].peek().map(|r| r.map(|d| d.offset)), Some(Ok(41)), "its second record");
        window.stream_lost();
        assert_eq!(send_all(&mut window), [(4, 0, 2), (5, 0, 4)]);
        assert_eq!(window.acknowledge(5, 44), Err(OutOfStep), "answers come in order");
        assert_eq!(window.acknowledge(4, 42), Ok(Freed(100)));
        assert!(deliveries[2].peek().is_none());
    }

    #[test]
    fn what_may_be_stored_fails_with_the_batch_before_it_and_the_rest_gets_new_numbers() {
        let mut window = Window::new(5);
        let deliveries = numbered(&mut window, 3);
        send_all(&mut window);
        window.stream_lost();
        let unsent = push(&mut window);
        assert_eq!(window.refuse_oldest(refusal()), Freed(300));
        let failed = |delivery: &Delivery| delivery.peek().expect("settled").expect_err("failed");
        // An earlier try may have stored it, whatever the last one says.
        for delivery in &deliveries {
            assert!(matches!(failed(delivery), SendError::EarlierFailed { may_be_stored: true, .. }));
        }
        assert!(unsent.peek().is_none());
        assert_eq!(send_all(&mut window), [(4, 1, 0)], "under a raised epoch, from sequence 0");
    }

    #[test]
    fn a_definite_refusal_takes_nothing_along() {
        let mut window = Window::new(5);
        let deliveries = numbered(&mut window, 3);
        send_all(&mut window);
        for request in 1..=3 {
            window.not_stored(request);
        }
        window.stream_lost();
        assert!(!window.any_uncertain());
        assert_eq!(window.refuse_oldest(refusal()), Freed(100));
        assert_eq!(deliveries[0].peek(), Some(Err(SendError::Refused(refusal()))));
        assert_eq!(send_all(&mut window), [(4, 1, 0), (5, 1, 2)]);
    }

    #[test]
    fn epochs_run_out_into_a_new_identity() {
        let mut window = Window::new(5);
        window.renumber(Identity { id: 7, epoch: i16::MAX });
        drop(push(&mut window));
        window.raise_epoch();
        assert_eq!((window.identity(), window.used_up().map(|used| used.id)), (None, Some(7)));
        window.renumber(Identity { id: 8, epoch: 0 });
        assert_eq!(send_all(&mut window), [(1, 0, 0)]);
    }

    #[test]
    fn only_the_old_expire() {
        let mut window = Window::new(5);
        let deliveries = numbered(&mut window, 1);
        let (born, timeout) = (window.oldest().expect("one"), Duration::from_secs(5));
        assert_eq!(window.expire(born + Duration::from_secs(4), timeout, "x"), None);
        assert_eq!(window.expire(born + timeout, timeout, "x"), Some(Freed(100)));
        assert!(matches!(deliveries[0].peek(), Some(Err(SendError::TimedOut { may_be_stored: false, .. }))));
        assert_eq!(window.expire(born + timeout, timeout, "x"), None);
    }
}
