use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use esker_types::Offset;
use parking_lot::Mutex;

use crate::error::SendError;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub partition: u32,
    /// -1 if no acknowledgement was asked for.
    pub offset: Offset,
}

/// Comes true when the record is on an ack quorum of disks, or has failed. May be dropped: the record is sent all
/// the same.
#[must_use = "a record may fail: await its delivery, or flush the producer and look at it then"]
#[derive(Debug)]
pub struct Delivery {
    outcome: Arc<Outcome>,
    partition: u32,
    /// Of the record in its batch.
    index: u32,
    /// Place of this future's waker in the outcome's list.
    slot: Option<usize>,
}

impl Delivery {
    pub(super) fn new(outcome: Arc<Outcome>, partition: u32, index: u32) -> Self {
        Self { outcome, partition, index, slot: None }
    }

    /// The result, if it is there already.
    pub fn peek(&self) -> Option<Result<Delivered, SendError>> {
        match &*self.outcome.state.lock() {
            State::Pending(_) => None,
            State::Done(result) => Some(self.of(result)),
        }
    }

    fn of(&self, result: &Result<Offset, SendError>) -> Result<Delivered, SendError> {
        let offset = |base: Offset| if base < 0 { base } else { base + Offset::from(self.index) };
        result.clone().map(|base| Delivered { partition: self.partition, offset: offset(base) })
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.outcome.state.lock();
        match &mut *state {
            State::Done(result) => Poll::Ready(this.of(result)),
            State::Pending(wakers) => {
                register(wakers, &mut this.slot, cx.waker());
                Poll::Pending
            }
        }
    }
}

fn register(wakers: &mut Vec<Waker>, slot: &mut Option<usize>, waker: &Waker) {
    match slot.and_then(|at| wakers.get_mut(at)) {
        Some(mine) => mine.clone_from(waker),
        None => {
            *slot = Some(wakers.len());
            wakers.push(waker.clone());
        }
    }
}

/// Shared by all records of a batch, so that a record costs no allocation of its own.
#[derive(Debug)]
pub(super) struct Outcome {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Each waiting future has one place, which it keeps.
    Pending(Vec<Waker>),
    /// Base offset of the batch.
    Done(Result<Offset, SendError>),
}

impl Outcome {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Pending(Vec::new())) })
    }

    /// The first result stands.
    pub(super) fn set(&self, result: Result<Offset, SendError>) {
        let wakers = {
            let mut state = self.state.lock();
            match &mut *state {
                State::Done(_) => return,
                State::Pending(wakers) => {
                    let wakers = std::mem::take(wakers);
                    *state = State::Done(result);
                    wakers
                }
            }
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
