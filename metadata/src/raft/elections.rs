//! Who tries to become leader, and when.
//!
//! openraft 0.9 draws one election time-out per process and keeps it, so that two survivors with like numbers can split
//! the votes for ever. Here each voter has a slot of its own: its rank among the voters times `election-slot`, counted
//! anew when the membership changes, with some jitter inside the slot for every campaign. And before a campaign, which
//! raises the term and so unseats a leader, a majority must say that it hears no leader either and that our log is
//! not behind theirs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::ServerState;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::contact::{Contact, Heard};
use super::log_store::LogStore;
use super::transport::Transport;
use super::{NodeId, Raft, Voter};
use crate::metrics::Metrics;

#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub lease: Duration,
    pub slot: Duration,
}

pub struct Elections {
    pub me: NodeId,
    pub raft: Raft,
    pub log: LogStore,
    pub contact: Arc<Contact>,
    pub transport: Transport,
    pub timing: Timing,
    pub metrics: Arc<Metrics>,
}

/// What the node knows of itself when it thinks about a campaign.
struct Standing {
    state: ServerState,
    voters: Vec<(NodeId, Voter)>,
    configs: Vec<BTreeSet<NodeId>>,
}

impl Elections {
    pub async fn run(self, cancel: CancellationToken) {
        let mut metrics = self.raft.metrics();
        let mut campaigns = 0u64;
        loop {
            metrics.borrow_and_update();
            let due = self.due(&self.standing(), campaigns);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = metrics.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = self.contact.changed() => continue,
                () = sleep_or_never(due) => {}
            }
            let standing = self.standing();
            // A sign of life may have come while we slept.
            if self.due(&standing, campaigns).is_none_or(|due| due > Instant::now()) {
                continue;
            }
            campaigns += 1;
            self.contact.heard(Heard::Candidate);
            if self.majority_agrees(&standing).await {
                self.metrics.campaign();
                tracing::info!(node = self.me, "no leader is heard: this node stands for election");
                // An error means that raft has stopped.
                if self.raft.trigger().elect().await.is_err() {
                    return;
                }
            }
        }
    }

    fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let ids: BTreeSet<NodeId> = membership.voter_ids().collect();
        let nodes = membership.nodes().filter(|(id, _)| ids.contains(id));
        Standing {
            state: metrics.state,
            voters: nodes.map(|(id, node)| (*id, node.clone())).collect(),
            configs: membership.get_joint_config().clone(),
        }
    }

    /// When to stand for election if nothing is heard until then. None: not at all.
    fn due(&self, standing: &Standing, campaigns: u64) -> Option<Instant> {
        let rank = standing.voters.iter().position(|(id, _)| *id == self.me)?;
        if matches!(standing.state, ServerState::Leader | ServerState::Shutdown) {
            return None;
        }
        let (at, heard) = self.contact.last();
        if standing.voters.len() == 1 {
            // Nobody to wait for. A campaign that is under way ends by itself.
            return (standing.state != ServerState::Candidate).then_some(at);
        }
        let Timing { lease, slot } = self.timing;
        let round = match heard {
            Heard::Leader => lease,
            Heard::Candidate => slot * u32::try_from(standing.voters.len()).unwrap_or(u32::MAX),
        };
        let offset = slot * u32::try_from(rank).unwrap_or(u32::MAX);
        Some(at + round + offset + slot / 2 * jitter(self.me, campaigns) / 256)
    }

    /// Asks the other voters whether they would vote for us. Nothing changes by asking.
    async fn majority_agrees(&self, standing: &Standing) -> bool {
        let last = self.log.last();
        let mut agreed = BTreeSet::from([self.me]);
        let mut asked: FuturesUnordered<_> = standing
            .voters
            .iter()
            .filter(|(id, _)| *id != self.me)
            .map(
                |(id, voter)| async move { (*id, self.transport.would_vote(*id, voter, last, self.timing.slot).await) },
            )
            .collect();
        loop {
            let enough = |config: &BTreeSet<NodeId>| config.intersection(&agreed).count() * 2 > config.len();
            if standing.configs.iter().all(enough) {
                return true;
            }
            match asked.next().await {
                Some((id, true)) => drop(agreed.insert(id)),
                Some((_, false)) => {}
                None => return false,
            }
        }
    }
}

/// 0..=255, another one for every campaign of every node.
fn jitter(node: NodeId, campaigns: u64) -> u32 {
    let mixed = (node ^ campaigns.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 56) as u32
}

async fn sleep_or_never(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
