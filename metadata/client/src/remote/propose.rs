//! Proposals of many tasks share requests: what waits while one is under way goes out together with the next.

use std::sync::Arc;

use esker_metadata_core::{COMMANDS_MAX, Command, CommandResult};
use esker_types::opcode;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Failure, Inner};
use crate::messages::{ProposeAnswer, ProposeRequest};
use crate::store::{ProposeError, Proposed};

/// Proposals that wait; beyond it callers wait to hand theirs in.
const WAITING_MAX: usize = 1_024;
/// Requests under way at a time. Two keep the leader busy; more would only make batches smaller.
const REQUESTS_MAX: usize = 2;

type Outcome = Result<Proposed, ProposeError>;

struct Proposal {
    commands: Vec<Command>,
    done: oneshot::Sender<Outcome>,
}

#[derive(Clone)]
pub(super) struct Batcher {
    proposals: mpsc::Sender<Proposal>,
}

impl Batcher {
    pub fn start(inner: Arc<Inner>, cancel: CancellationToken) -> Self {
        let (proposals, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            // Proposals that were taken and not answered drop their sender: their outcome is unknown.
            let _ = cancel.run_until_cancelled(run(inner, waiting)).await;
        });
        Self { proposals }
    }

    pub async fn propose(&self, commands: Vec<Command>) -> Outcome {
        if commands.is_empty() || commands.len() > COMMANDS_MAX {
            return Err(ProposeError::NotApplied(format!("{} commands; 1 to {COMMANDS_MAX} fit", commands.len())));
        }
        let (done, outcome) = oneshot::channel();
        let closed = || ProposeError::NotApplied("the store is shut down".to_owned());
        self.proposals.send(Proposal { commands, done }).await.map_err(|_| closed())?;
        outcome.await.unwrap_or_else(|_| Err(ProposeError::Unknown("the store was shut down meanwhile".to_owned())))
    }
}

async fn run(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Proposal>) {
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut kept: Option<Proposal> = None;
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let first = match kept.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut total = first.commands.len();
        let mut batch = vec![first];
        while let Ok(next) = waiting.try_recv() {
            if total + next.commands.len() > COMMANDS_MAX {
                kept = Some(next);
                break;
            }
            total += next.commands.len();
            batch.push(next);
        }
        let inner = inner.clone();
        tokio::spawn(async move {
            send(&inner, batch).await;
            drop(slot);
        });
    }
}

async fn send(inner: &Inner, batch: Vec<Proposal>) {
    let mut commands = Vec::new();
    let mut askers = Vec::new();
    for proposal in batch {
        askers.push((proposal.commands.len(), proposal.done));
        commands.extend(proposal.commands);
    }
    let expected = commands.len();
    let request = ProposeRequest { commands };
    let outcome = match inner.request::<_, ProposeAnswer>(opcode::metadata::PROPOSE, &request, false).await {
        Ok(answer) if answer.results.len() == expected => Ok(answer),
        Ok(answer) => Err(ProposeError::Unknown(format!("{} results for {expected} commands", answer.results.len()))),
        Err(Failure::NotDone(reason)) => Err(ProposeError::NotApplied(reason)),
        Err(Failure::Refused(info)) => Err(ProposeError::NotApplied(info.message)),
        Err(Failure::Unknown(reason)) => Err(ProposeError::Unknown(reason)),
    };
    // An asker that went away does not need its answer.
    match outcome {
        Ok(answer) => {
            let mut results = answer.results.into_iter();
            for (count, done) in askers {
                let results: Vec<CommandResult> = results.by_ref().take(count).collect();
                let _ = done.send(Ok(Proposed { revision: answer.revision, results }));
            }
        }
        Err(error) => askers.into_iter().for_each(|(_, done)| drop(done.send(Err(error.clone())))),
    }
}
