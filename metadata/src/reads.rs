//! Linearizable reads: one round to a quorum confirms all reads that wait for it.

use std::sync::Arc;

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::raft::Raft;

/// Reads that wait. Beyond it callers are told to come back later.
const QUEUE: usize = 4096;

/// Why a read can't be answered. Reads change nothing, so each may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFault {
    #[error("this node does not lead the metadata quorum")]
    NotLeader,
    #[error("no quorum of metadata nodes answers")]
    NoQuorum,
    #[error("too many reads wait for the metadata quorum")]
    Overloaded,
}

type Waiting = oneshot::Sender<Result<(), ReadFault>>;

/// Clones share the queue.
#[derive(Clone)]
pub struct Reads {
    queue: mpsc::Sender<Waiting>,
}

impl Reads {
    /// At return, the state on this node shows everything that was committed before the call.
    pub async fn fresh(&self) -> Result<(), ReadFault> {
        let (reply, outcome) = oneshot::channel();
        self.queue.try_send(reply).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadFault::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ReadFault::NotLeader,
        })?;
        outcome.await.unwrap_or(Err(ReadFault::NotLeader))
    }
}

/// The task behind it.
pub struct ReadsTask {
    queue: mpsc::Receiver<Waiting>,
    raft: Raft,
    metrics: Arc<Metrics>,
}

pub fn reads(raft: Raft, metrics: Arc<Metrics>) -> (Reads, ReadsTask) {
    let (tx, queue) = mpsc::channel(QUEUE);
    (Reads { queue: tx }, ReadsTask { queue, raft, metrics })
}

impl ReadsTask {
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut waiting = Vec::new();
        loop {
            // Whoever comes while a round is under way waits for the next: that one was begun too early for it.
            let n = cancel.run_until_cancelled(self.queue.recv_many(&mut waiting, QUEUE)).await;
            if n.is_none_or(|n| n == 0) {
                return;
            }
            let Some(round) = cancel.run_until_cancelled(self.raft.ensure_linearizable()).await else { return };
            let verdict = match round {
                Ok(_) => Ok(()),
                Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(ReadFault::NoQuorum),
                Err(_) => Err(ReadFault::NotLeader),
            };
            self.metrics.read_round(waiting.len());
            for reply in waiting.drain(..) {
                let _ = reply.send(verdict);
            }
        }
    }
}
