//! The contract of a metadata store.

use std::sync::Arc;
use std::time::Duration;

use esker_metadata_core::{Answer, Command, CommandResult, Delta, Query, State};
use esker_types::{BootId, ErrorCode, SessionId};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::admin::Member;

/// Linearizable commands and reads on the one metadata state machine.
///
/// All futures may be dropped at any time; a dropped `propose` may still be applied.
pub trait MetadataStore: Send + Sync + 'static {
    /// Proposes commands as one raft entry: applied together, in order, each with a result of its own. At return with
    /// `Ok` they are committed and applied. At most 1,000 at a time.
    ///
    /// `ProposeError::Unknown` means that they may be applied now, later or never: 2.2 says how the proposer must
    /// treat it. The store itself never repeats a proposal whose outcome is unknown.
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>>;

    /// A linearizable read: sees every command whose `propose` returned before this call began.
    fn read(&self, query: Query) -> BoxFuture<'_, Result<Answer, ReadError>>;

    /// A snapshot, then every delta in order; a new snapshot whenever the watcher fell behind or the link broke. Needs a
    /// tokio runtime. The watch ends only when it is dropped or the store is shut down.
    fn watch(&self) -> Watch;

    /// Tells the leader that the process behind a session lives. Moves nothing in the state machine.
    fn renew(&self, session: SessionId, boot: BootId) -> BoxFuture<'_, Result<Renewed, RenewError>>;

    /// The members of the quorum as one of them sees it now; empty if none answers or there is no quorum to ask.
    /// For status pages.
    fn members(&self) -> BoxFuture<'_, Vec<Member>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// Commands that were applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The state's revision after them: a local copy at this revision shows them.
    pub revision: u64,
    /// One per command, in order.
    pub results: Vec<CommandResult>,
}

impl Proposed {
    /// The result of a proposal of one command.
    pub fn single(mut self) -> CommandResult {
        assert_eq!(self.results.len(), 1, "a store answers each command once");
        self.results.remove(0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certain: nothing was applied, nothing will be. Safe to propose again.
    #[error("metadata did not take the commands: {0}")]
    NotApplied(String),
    /// It may be applied now, later or never.
    #[error("metadata did not say whether the commands were applied: {0}")]
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader answered in time. Try again.
    #[error("metadata does not answer: {0}")]
    Unavailable(String),
    /// The question can't be answered; the same one will fail again.
    #[error("metadata refused the question: {1}")]
    Refused(ErrorCode, String),
}

/// A session that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The session ends if it is not renewed for so long, by the leader's clock.
    pub ttl: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// The session has ended and will not come back: step down, then register or open another.
    #[error("the session has ended")]
    Lost,
    /// No leader answered. The session may go on.
    #[error("metadata does not answer: {0}")]
    Unavailable(String),
}

#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// Replaces all that was known.
    Snapshot(Arc<State>),
    /// Follows the last event without a gap.
    Delta(Arc<Delta>),
}

/// A stream of news from the state machine. Bounded: a slow reader makes the store resync it by a snapshot.
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
}

impl Watch {
    pub fn new(events: mpsc::Receiver<WatchEvent>) -> Self {
        Self { events }
    }

    /// None: the store is shut down. Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        self.events.recv().await
    }
}
