//! Commands on their way into the log.
//!
//! At most two entries are under way. While they are, what comes in is gathered for the next one: nothing waits when
//! the node is idle, and under load an entry carries up to 1,000 commands with one fsync.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{future::Future, sync::Arc};

use bytes::Bytes;
use esker_metadata_client::Proposed;
use esker_metadata_core::{COMMANDS_MAX, Command, CommandBatch};
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::raft::{Payload, Raft};

const ENTRIES_UNDER_WAY: usize = 2;
/// Proposals that wait. Beyond it callers are told to come back later.
const QUEUE: usize = 4096;
/// Bytes of one entry. A follower's frame must hold it.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;
/// A quorum that is lost keeps an entry under way for good; its proposers are told that the outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a proposal has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFault {
    /// Surely not applied: ask the leader, if one is known.
    #[error("this node does not lead the metadata quorum")]
    NotLeader,
    /// Surely not applied: this node leads, but no majority answers.
    #[error("no quorum of metadata nodes answers")]
    NoQuorum,
    /// Surely not applied.
    #[error("too many proposals wait for the metadata quorum")]
    Overloaded,
    /// Surely not applied.
    #[error("a proposal of {commands} commands and {bytes} bytes does not fit into one entry")]
    TooLarge { commands: usize, bytes: usize },
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

struct Proposal {
    commands: Vec<Command>,
    reply: oneshot::Sender<Result<Proposed, ProposeFault>>,
}

/// Hands proposals in. Clones share the queue.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
}

/// The task behind it.
pub struct ProposerTask {
    queue: mpsc::Receiver<Proposal>,
    raft: Raft,
    leadership: Leadership,
    metrics: Arc<Metrics>,
}

pub fn proposer(raft: Raft, leadership: Leadership, metrics: Arc<Metrics>) -> (Proposer, ProposerTask) {
    let (tx, queue) = mpsc::channel(QUEUE);
    (Proposer { queue: tx }, ProposerTask { queue, raft, leadership, metrics })
}

impl Proposer {
    /// Proposes commands as (a part of) one entry. A call that is dropped may still be applied.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Proposed, ProposeFault> {
        if commands.is_empty() || commands.len() > COMMANDS_MAX {
            return Err(ProposeFault::TooLarge { commands: commands.len(), bytes: 0 });
        }
        let (reply, outcome) = oneshot::channel();
        self.queue.try_send(Proposal { commands, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeFault::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeFault::NotLeader,
        })?;
        outcome.await.unwrap_or_else(|_| Err(ProposeFault::Unknown("this node is stopping".to_owned())))
    }
}

impl ProposerTask {
    /// What is under way when `cancel` comes gets the answer "unknown".
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        // Taken from the queue and too many for the last entry.
        let mut carry: Option<Proposal> = None;
        loop {
            let room = under_way.len() < ENTRIES_UNDER_WAY;
            let first = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(()) = under_way.next(), if !under_way.is_empty() => continue,
                first = next(&mut carry, &mut self.queue), if room => match first {
                    Some(first) => first,
                    None => return,
                },
            };
            let mut batch = vec![first];
            let mut commands = batch[0].commands.len();
            while let Ok(more) = self.queue.try_recv() {
                commands += more.commands.len();
                if commands > COMMANDS_MAX {
                    carry = Some(more);
                    break;
                }
                batch.push(more);
            }
            for entry in entries(batch) {
                under_way.push(write(self.raft.clone(), self.leadership.clone(), self.metrics.clone(), entry));
            }
        }
    }
}

async fn next(carry: &mut Option<Proposal>, queue: &mut mpsc::Receiver<Proposal>) -> Option<Proposal> {
    match carry.take() {
        Some(carried) => Some(carried),
        None => queue.recv().await,
    }
}

/// One encoded entry and those who wait for it, with the number of their commands.
struct Encoded {
    bytes: Bytes,
    waiting: Vec<(usize, oneshot::Sender<Result<Proposed, ProposeFault>>)>,
}

/// The batch as one entry, or as one per proposal if it is too large.
fn entries(batch: Vec<Proposal>) -> Vec<Encoded> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let wall_ms = i64::try_from(now).unwrap_or(i64::MAX);
    let encode = |commands: Vec<Command>| Bytes::from(CommandBatch::new(wall_ms, commands).encode());
    let bytes = encode(batch.iter().flat_map(|proposal| proposal.commands.iter().cloned()).collect());
    if bytes.len() <= ENTRY_BYTES_MAX {
        let waiting = batch.into_iter().map(|proposal| (proposal.commands.len(), proposal.reply)).collect();
        return vec![Encoded { bytes, waiting }];
    }
    let mut out = Vec::new();
    for Proposal { commands, reply } in batch {
        let n = commands.len();
        let bytes = encode(commands);
        if bytes.len() > ENTRY_BYTES_MAX {
            let _ = reply.send(Err(ProposeFault::TooLarge { commands: n, bytes: bytes.len() }));
        } else {
            out.push(Encoded { bytes, waiting: vec![(n, reply)] });
        }
    }
    out
}

#[allow(clippy::manual_async_fn)]
fn write(raft: Raft, leadership: Leadership, metrics: Arc<Metrics>, entry: Encoded) -> impl Future<Output = ()> {
    async move {
        let began = Instant::now();
        let commands = entry.waiting.iter().map(|(n, _)| n).sum();
        if !leadership.leads() {
            return tell_all(entry.waiting, &ProposeFault::NotLeader);
        }
        if !leadership.has_quorum() {
            return tell_all(entry.waiting, &ProposeFault::NoQuorum);
        }
        let outcome = tokio::time::timeout(PATIENCE, raft.client_write(Payload(entry.bytes))).await;
        let fault = match outcome {
            Ok(Ok(written)) => {
                metrics.proposed(commands, began.elapsed());
                let mut results = written.data.results.into_iter();
                for (n, reply) in entry.waiting {
                    let results = results.by_ref().take(n).collect();
                    // A proposer that has gone away reads the state when it comes back.
                    let _ = reply.send(Ok(Proposed { revision: written.data.revision, results }));
                }
                return;
            }
            // It led a moment ago: the entry may be in the log, and the next leader may commit it.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                "the leader changed meanwhile".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no quorum has confirmed it in time".to_owned(),
        };
        tell_all(entry.waiting, &ProposeFault::Unknown(fault));
    }
}

fn tell_all(waiting: Vec<(usize, oneshot::Sender<Result<Proposed, ProposeFault>>)>, fault: &ProposeFault) {
    for (_, reply) in waiting {
        let _ = reply.send(Err(fault.clone()));
    }
}
