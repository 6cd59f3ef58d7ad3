//! The leader's copy of the state in the bucket, from which a lost cluster is rebuilt (2.9).
//!
//! Written at an interval, and soon after topics were made, changed or deleted: those can't be told from the objects.
//! Nothing waits for it. A bucket in trouble costs backups, never commands.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use esker_cache::{Error, Kind, Store};
use esker_cache_core::backup::BackupName;
use esker_cache_core::claim::{Claim, Standing};
use esker_metadata_core::{Change, State, encode_snapshot};
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
    /// Revision of the newest backup of this leadership.
    covered: Option<u64>,
    /// Revision up to which changes were looked at.
    looked: u64,
    at: Instant,
    /// After a failure: not before this.
    not_before: Instant,
    failures: u32,
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
        let mut plan = Plan { covered: None, looked, at: now, not_before: now, failures: 0 };
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
                    if self.matters(plan.looked) {
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
                self.newest.send_replace(Some(name));
                plan.at = Instant::now() + interval;
            }
            Err(error) => {
                self.metrics.backup_failed();
                plan.failures = plan.failures.saturating_add(1);
                self.failures.send_replace(plan.failures);
                match plan.failures {
                    1 => tracing::info!(%error, "the metadata was not written to the bucket; it is tried again"),
                    n => tracing::warn!(%error, failures = n, "the metadata is not in the bucket: see what it refuses"),
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
        // Only now: what is deleted is older than one that was read back.
        self.store.prune_backups(incarnation, self.config.snapshots_kept as usize).await?;
        Ok(name)
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

    /// Whether something after revision `seen` can't be found out from the objects alone.
    fn matters(&self, seen: u64) -> bool {
        let Some(deltas) = self.applied.news.after(seen, usize::MAX) else { return true };
        deltas.iter().flat_map(|delta| &delta.changes).any(|change| {
            matches!(change, Change::Cluster(_) | Change::Topic(_) | Change::TopicGone(_) | Change::Deleted(_))
        })
    }
}
