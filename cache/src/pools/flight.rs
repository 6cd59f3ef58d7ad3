//! Single flight: of all that want a block at once, one fetches it and the others wait for the result.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::block::BlockKey;
use crate::store::{Error, Kind};

type Outcome = Option<Result<Bytes, Error>>;

/// Fetches under way. As many as there are blocks between a request and its answer, which the pool's fetch budget and
/// its callers' windows bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<BlockKey, watch::Receiver<Outcome>>>>);

/// A block that was asked for.
#[derive(Debug)]
pub struct Pending(State);

#[derive(Debug)]
enum State {
    Ready(Bytes),
    Waiting(watch::Receiver<Outcome>),
}

/// The duty to fetch a block for all that wait. Dropping it tells them that nothing came.
#[derive(Debug)]
pub(super) struct Lead {
    key: BlockKey,
    result: watch::Sender<Outcome>,
    flights: Flights,
    landed: bool,
}

impl Flights {
    /// Joins the fetch under way, or begins one.
    pub(super) fn join(&self, key: BlockKey) -> (Pending, Option<Lead>) {
        match self.0.lock().entry(key) {
            Entry::Occupied(under_way) => (Pending(State::Waiting(under_way.get().clone())), None),
            Entry::Vacant(free) => {
                let (result, receiver) = watch::channel(None);
                free.insert(receiver.clone());
                (Pending(State::Waiting(receiver)), Some(Lead { key, result, flights: self.clone(), landed: false }))
            }
        }
    }
}

impl Lead {
    /// Nobody joins from here on: who asks again after the result came wants another fetch.
    pub(super) fn finish(mut self, result: Result<Bytes, Error>) {
        self.leave();
        self.result.send_replace(Some(result));
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.landed, true) {
            self.flights.0.lock().remove(&self.key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Pending {
    pub(super) fn ready(bytes: Bytes) -> Self {
        Self(State::Ready(bytes))
    }

    /// Whether [`Pending::wait`] returns at once.
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            State::Ready(_) => true,
            State::Waiting(result) => result.borrow().is_some(),
        }
    }

    /// The block. Cancel-safe; the fetch goes on for others when this is dropped.
    ///
    /// # Errors
    /// Those of the store, or `Damaged` if the stored bytes fail their check.
    pub async fn wait(&mut self) -> Result<Bytes, Error> {
        match &mut self.0 {
            State::Ready(bytes) => Ok(bytes.clone()),
            State::Waiting(result) => match result.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(stopped())),
                Err(_) => Err(stopped()),
            },
        }
    }
}

/// The fetching task ended without a word: the runtime stops.
fn stopped() -> Error {
    Error::new(Kind::Shutdown, "read", "a block", "")
}
