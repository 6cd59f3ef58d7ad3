//! The leader's copy of the state in the bucket, from which a lost cluster is rebuilt (2.9).
//!
//! Written at an interval, and soon after topics were made, changed or deleted: those can't be told from the objects.
//! Nothing waits for it. A bucket in trouble costs backups, never commands.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use esker_cache::{Error, Kind, Store};
use esker_cache_core::backup::BackupName;
use esker_cache_core::claim::{Claim, Standing};
use esker_metadata_core::{Change, ClusterRecord, State, encode_snapshot};
use esker_types::{BootId, ClusterId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::ObjectsConfig;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::raft::NodeId;
use crate::raft::machine::Applied;

const RETRY_MIN: Duration = Duration::from_secs(1);

pub struct Backups {
    pub store: Store,
    pub config: ObjectsConfig,
    pub node: NodeId,
    pub boot: BootId,
    pub applied: Arc<Applied>,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    /// The newest one that this node wrote.
    pub newest: Arc<watch::Sender<Option<BackupName>>>,
    /// Tries that failed since the last one that did not.
    pub failures: Arc<watch::Sender<u32>>,
}

/// What the next backup waits for.
struct Plan {
    /// As last looked at: its counters move all the time, and are no reason for a backup.
    cluster: Option<Arc<ClusterRecord>>,
    /// Revision of the newest backup of this leadership.
    covered: Option<u64>,
    /// Revision up to which changes were looked at.
    looked: u64,
    at: Instant,
    /// After a failure: not before this.
    not_before: Instant,
    failures: u32,
    /// Backups after which old ones could not be deleted, one after the other.
    unpruned: u32,
}

impl Backups {
    /// Runs until `cancel`; works while this node leads.
    pub async fn run(self, cancel: CancellationToken) {
        let mut established = self.leadership.established();
        loop {
            let term = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                term = established.wait_for(Option::is_some) => term.map(|term| *term),
            };
            let Ok(Some(term)) = term else { return };
            let mut watch = established.clone();
            // Dropped in the middle of a write, it may or may not be there: either is fine.
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = watch.wait_for(|now| *now != Some(term)) => {}
                () = self.lead() => return,
            }
        }
    }

    /// Returns when there is no news any more: the node stops.
    async fn lead(&self) {
        let mut revisions = self.applied.news.revision();
        let now = Instant::now();
        let looked = *revisions.borrow_and_update();
        // Nobody knows how much of the past the bucket holds: the first one is written at once.
        let cluster = self.applied.read(|state| state.cluster().cloned());
        let mut plan = Plan { cluster, covered: None, looked, at: now, not_before: now, failures: 0, unpruned: 0 };
        loop {
            let due = plan.at.max(plan.not_before);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => self.write_due(&mut plan).await,
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let newest = *revisions.borrow_and_update();
                    if self.matters(&mut plan) {
                        plan.at = plan.at.min(Instant::now() + self.config.snapshot_settle.0);
                    }
                    plan.looked = newest;
                }
            }
        }
    }

    async fn write_due(&self, plan: &mut Plan) {
        let state = self.applied.read(State::clone);
        let interval = self.config.snapshot_interval.0;
        if plan.covered == Some(state.revision()) || state.cluster().is_none() {
            plan.at = Instant::now() + interval;
            return;
        }
        match self.write(state).await {
            Ok(name) => {
                plan.covered = Some(name.revision);
                plan.failures = 0;
                self.failures.send_replace(0);
                self.prune(&name, plan).await;
                self.newest.send_replace(Some(name));
                plan.at = Instant::now() + interval;
            }
            Err(error) => {
                self.metrics.backup_failed();
                plan.failures = plan.failures.saturating_add(1);
                self.failures.send_replace(plan.failures);
                match plan.failures {
                    1 => tracing::info!(%error, "the metadata was not written to the bucket; it is tried again"),
                    // Told once, and again at long intervals: what is refused today is refused every few minutes.
                    n if n == 2 || (n >= 64 && n.is_power_of_two()) => {
                        tracing::warn!(%error, failures = n, "the metadata is not in the bucket: see what it refuses");
                    }
                    _ => tracing::debug!(%error, "the metadata is still not in the bucket"),
                }
                let wait = RETRY_MIN.saturating_mul(1 << (plan.failures - 1).min(16)).min(interval);
                plan.not_before = Instant::now() + wait;
            }
        }
    }

    async fn write(&self, state: State) -> Result<BackupName, Error> {
        let (cluster, incarnation) =
            state.cluster().map_or((ClusterId::NIL, 0), |cluster| (cluster.id, cluster.incarnation));
        self.claim(Claim { cluster, incarnation, by: self.boot }).await?;
        let name = BackupName { incarnation, revision: state.revision(), node: self.node };
        let encoded = tokio::task::spawn_blocking(move || encode_snapshot(&state)).await;
        let bytes = encoded.map_err(|_| Error::new(Kind::Shutdown, "write", name.to_string(), ""))?;
        let length = bytes.len();
        self.store.put_backup(&name, bytes.into()).await?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.backup_written(length, name.revision, wall);
        tracing::debug!(%name, bytes = length, "the metadata is in the bucket");
        Ok(name)
    }

    /// Deletes what is older than `written`, which was read back. Where that is not allowed, the bucket fills, slowly.
    async fn prune(&self, written: &BackupName, plan: &mut Plan) {
        match self.store.prune_backups(written.incarnation, self.config.snapshots_kept as usize).await {
            Ok(_) => plan.unpruned = 0,
            Err(error) => {
                plan.unpruned = plan.unpruned.saturating_add(1);
                match plan.unpruned {
                    n if n == 2 || (n >= 64 && n.is_power_of_two()) => tracing::warn!(
                        %error, failures = n, "old copies of the metadata can't be deleted: see what the bucket refuses"
                    ),
                    _ => tracing::debug!(%error, "old copies of the metadata stay until the next one is written"),
                }
            }
        }
    }

    /// Two clusters in one bucket would overwrite each other, and what is left of a cluster that was rebuilt from it must
    /// let go of it.
    async fn claim(&self, claim: Claim) -> Result<(), Error> {
        let why = match self.store.claim(&claim).await? {
            Standing::Ours => return Ok(()),
            Standing::Unclaimed => "nobody's claim to it holds".to_owned(),
            Standing::Foreign(other) => format!("it belongs to cluster {other}: give each cluster a place of its own"),
            Standing::Superseded(life) => {
                format!("this cluster was recovered from it, as its life {life}: stop this one")
            }
        };
        Err(Error::new(Kind::Invalid, "write to", self.store.location().describe(), why))
    }

    /// Whether something after revision `looked` can't be found out from the objects alone.
    fn matters(&self, plan: &mut Plan) -> bool {
        let Some(deltas) = self.applied.news.after(plan.looked, usize::MAX) else {
            plan.cluster = self.applied.read(|state| state.cluster().cloned());
            return true;
        };
        let mut any = false;
        for change in deltas.iter().flat_map(|delta| &delta.changes) {
            any |= tells(change, &mut plan.cluster);
        }
        any
    }
}

/// Whether a change can't be found out from the objects alone. `cluster` follows the changes.
fn tells(change: &Change, cluster: &mut Option<Arc<ClusterRecord>>) -> bool {
    match change {
        Change::Cluster(new) => {
            let old = cluster.replace(new.clone());
            old.is_none_or(|old| old.differs(new))
        }
        Change::Topic(_) | Change::TopicGone(_) | Change::Deleted(_) | Change::Group(_) | Change::GroupGone(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use esker_metadata_core::{GroupKey, TopicKey};
    use esker_types::{Quorum, TopicId};

    use super::*;

    #[test]
    fn sessions_and_producers_are_no_reason_for_a_backup() {
        let born = ClusterRecord::born(ClusterId([1; 16]), 1, Quorum { write: 1, ack: 1 }, false, 1);
        let change = |record: &ClusterRecord| Change::Cluster(Arc::new(record.clone()));
        let mut seen = None;
        assert!(tells(&change(&born), &mut seen), "a cluster is born");
        let busy = ClusterRecord { next_session: 7, next_producer: 9_000, ..born };
        assert!(!tells(&change(&busy), &mut seen));
        let finalized = ClusterRecord { version: 2, next_session: 8, ..busy };
        assert!(tells(&change(&finalized), &mut seen) && !tells(&change(&finalized), &mut seen));
        assert!(tells(&Change::TopicGone(TopicKey { id: TopicId([3; 16]) }), &mut seen));
        assert!(tells(&Change::GroupGone(GroupKey { name: "readers".to_owned() }), &mut seen));
    }
}
