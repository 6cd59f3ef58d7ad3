//! Whether this node leads, and whether it has made sure of it.

use std::sync::Arc;
use std::time::Duration;

use esker_net::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::raft::{NodeId, Raft};

/// Wait between two attempts to confirm a leadership.
const RETRY: Duration = Duration::from_millis(20);

/// Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    me: NodeId,
    raft: Raft,
    lease: Duration,
    established: Arc<watch::Sender<Option<u64>>>,
}

impl Leadership {
    pub fn new(me: NodeId, raft: Raft, lease: Duration) -> Self {
        Self { me, raft, lease, established: Arc::new(watch::Sender::new(None)) }
    }

    /// True if raft takes this node for the leader. A restarted or cut-off leader may be wrong about it.
    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow().current_leader == Some(self.me)
    }

    /// False while no majority of voters has answered for two leases: whatever is proposed now may hang for long.
    pub fn has_quorum(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let alone = metrics.membership_config.voter_ids().take(2).count() == 1;
        let silent = metrics.millis_since_quorum_ack.map(Duration::from_millis);
        alone || silent.is_none_or(|silent| silent < self.lease * 2)
    }

    /// The term in which a quorum has confirmed this leader and everything committed before is applied; none
    /// otherwise.
    pub fn established(&self) -> watch::Receiver<Option<u64>> {
        self.established.subscribe()
    }

    pub fn is_established(&self) -> bool {
        self.established.borrow().is_some()
    }

    /// Where the leader is reached, if this node knows one that is not itself.
    pub fn leader_address(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader.filter(|leader| *leader != self.me)?;
        metrics.membership_config.membership().get_node(&leader).map(|node| node.address.clone())
    }

    /// Keeps `established` true to its word.
    pub async fn run(self, cancel: CancellationToken) {
        let mut metrics = self.raft.metrics();
        // The confirmation that is under way, and its term. It outlives all news but a change of the term.
        let mut confirming: Option<(u64, BoxFuture<'_, ()>)> = None;
        loop {
            let leading = {
                let now = metrics.borrow_and_update();
                (now.current_leader == Some(self.me)).then_some(now.current_term)
            };
            if *self.established.borrow() != leading {
                // A new term, or none: what was established is over.
                self.established.send_if_modified(|now| now.take().is_some());
            }
            match leading {
                Some(term) if !self.is_established() => {
                    if confirming.as_ref().is_none_or(|(under_way, _)| *under_way != term) {
                        confirming = Some((term, Box::pin(self.confirm())));
                    }
                }
                _ => confirming = None,
            }
            let confirmed = async {
                match &mut confirming {
                    Some((term, confirm)) => {
                        confirm.await;
                        *term
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                changed = metrics.changed() => if changed.is_err() { break },
                term = confirmed => {
                    tracing::info!(term, "this node leads the metadata quorum");
                    self.established.send_replace(Some(term));
                }
            }
        }
        self.established.send_replace(None);
    }

    /// Completes when a quorum has confirmed this leader and all that was committed before is applied.
    async fn confirm(&self) {
        while self.raft.ensure_linearizable().await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    }
}
