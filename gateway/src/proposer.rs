//! Commands of partitions on their way to metadata. Those that come while others are under way travel together: a
//! take-over of hundreds of partitions is a handful of raft entries.

use std::sync::Arc;

use esker_gateway_core::partition::{Event, ProposeOutcome, Tag};
use esker_metadata_client::{MetadataStore, ProposeError};
use esker_metadata_core::{COMMANDS_MAX, Command};
use esker_types::PartitionId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::shard::{Control, Shards};

/// A partition's command, and where its outcome goes.
pub struct Proposal {
    pub partition: PartitionId,
    pub life: u64,
    pub tag: Tag,
    pub command: Command,
}

/// A partition has at most one command under way; beyond this the core is told "not applied" and tries again.
const WAITING_MAX: usize = 1 << 16;
/// Raft entries of this gateway under way: one that hangs must not hold up all the others.
const PARALLEL: usize = 4;

/// The way to metadata for shards. Clones share it.
#[derive(Clone)]
pub struct Proposer {
    proposals: mpsc::Sender<Proposal>,
}

pub struct ProposerInbox(mpsc::Receiver<Proposal>);

impl Proposer {
    pub fn new() -> (Self, ProposerInbox) {
        let (proposals, inbox) = mpsc::channel(WAITING_MAX);
        (Self { proposals }, ProposerInbox(inbox))
    }

    /// False: too many wait, and the command was certainly not applied.
    pub fn submit(&self, proposal: Proposal) -> bool {
        self.proposals.try_send(proposal).is_ok()
    }
}

/// Runs until `cancel`.
pub async fn run(
    inbox: ProposerInbox,
    store: Arc<dyn MetadataStore>,
    shards: Shards,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let (mut inbox, parallel) = (inbox.0, Arc::new(Semaphore::new(PARALLEL)));
    loop {
        let mut batch = Vec::new();
        // Cancel-safe: a batch that was taken is proposed below before the next wait that can be cancelled.
        let slot = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            slot = parallel.clone().acquire_owned() => slot,
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            count = inbox.recv_many(&mut batch, COMMANDS_MAX) => if count == 0 { return },
        }
        let (store, shards) = (store.clone(), shards.clone());
        tasks.spawn(async move {
            propose(&*store, &shards, batch).await;
            drop(slot);
        });
    }
}

async fn propose(store: &dyn MetadataStore, shards: &Shards, batch: Vec<Proposal>) {
    let commands = batch.iter().map(|proposal| proposal.command.clone()).collect();
    let proposed = store.propose(commands).await;
    let mut results = match &proposed {
        Ok(proposed) => proposed.results.clone().into_iter(),
        Err(_) => Vec::new().into_iter(),
    };
    for Proposal { partition, life, tag, command } in batch {
        let outcome = match (&proposed, results.next()) {
            (Ok(proposed), Some(Ok(_))) => ProposeOutcome::Applied { revision: proposed.revision },
            (Ok(_), Some(Err(reject))) => {
                tracing::debug!(%partition, command = command.name(), reason = reject.reason, "metadata rejected a command");
                ProposeOutcome::Rejected { code: reject.code, reason: reject.reason }
            }
            // An answer without a result for us says nothing about us.
            (Ok(_), None) => ProposeOutcome::Unknown,
            (Err(ProposeError::NotApplied(reason)), _) => {
                tracing::debug!(%partition, command = command.name(), reason, "metadata did not take a command");
                ProposeOutcome::NotApplied
            }
            (Err(ProposeError::Unknown(reason)), _) => {
                tracing::warn!(%partition, command = command.name(), reason, "unknown outcome of a metadata command");
                ProposeOutcome::Unknown
            }
        };
        shards.tell(partition, Control::Answer { partition, life, event: Event::Proposed { tag, outcome } }).await;
    }
}
