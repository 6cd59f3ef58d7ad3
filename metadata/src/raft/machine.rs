//! The state machine: the tables of `esker-metadata-core` in memory, rebuilt at start from a snapshot and the log.

use std::collections::VecDeque;
use std::sync::Arc;

use esker_metadata_core::{CommandBatch, State};
use esker_types::AllRules;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::RwLock;

use super::snapshot::{SnapshotDir, SnapshotFile};
use super::{Entry, LogId, Outcome, SnapshotMeta, StorageError, StorageIOError, StoredMembership, TypeConfig};
use crate::error::StartError;
use crate::metrics::Metrics;
use crate::news::News;

/// At every index that this divides, all members note a hash of their state; raft's messages compare them.
pub const HASH_EVERY: u64 = 256;
const HASHES_KEPT: usize = 64;

/// The hash of the state after the entry at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub index: u64,
    pub hash: u64,
}

/// Read by everybody, moved by raft alone.
pub struct Applied {
    tables: RwLock<Tables>,
    pub news: News,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Tables {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
    checkpoints: VecDeque<Checkpoint>,
}

impl Applied {
    /// Looks at the state. Keep `look` short: apply waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.tables.read().state)
    }

    pub fn last(&self) -> Option<LogId> {
        self.tables.read().last
    }

    /// The newest hash of this member.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.tables.read().checkpoints.back().copied()
    }

    /// Compares with another member's hash. A difference means that members disagree about the past: a bug, or memory
    /// that flipped. It is said loudly; the data of both is kept for whoever looks into it.
    pub fn compare(&self, theirs: Checkpoint, from: &str) {
        let ours = self.tables.read().checkpoints.iter().find(|ours| ours.index == theirs.index).copied();
        if let Some(ours) = ours
            && ours.hash != theirs.hash
        {
            self.metrics.hash_mismatch();
            tracing::error!(
                index = ours.index,
                ours = ours.hash,
                theirs = theirs.hash,
                member = from,
                "METADATA MEMBERS DISAGREE about the state: stop this cluster's changes and report it"
            );
        }
    }
}

/// What openraft drives.
#[derive(Clone)]
pub struct Machine {
    applied: Arc<Applied>,
    dir: SnapshotDir,
    current: Arc<RwLock<Option<(SnapshotMeta, SnapshotFile)>>>,
    /// Two snapshots are never written at the same time: they share a file name while they are written.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Machine {
    /// Loads the newest snapshot, if there is one.
    pub fn open(dir: SnapshotDir, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let (current, tables) = match dir.load()? {
            None => (None, Tables::default()),
            Some((meta, state, file)) => {
                let (last, membership) = (meta.last_log_id, meta.last_membership.clone());
                (Some((meta, file)), Tables { state, last, membership, ..Tables::default() })
            }
        };
        let news = News::new(tables.state.revision());
        let applied = Arc::new(Applied { tables: RwLock::new(tables), news, metrics });
        Ok(Self { applied, dir, current: Arc::new(RwLock::new(current)), writing: Arc::default() })
    }

    pub fn applied(&self) -> &Arc<Applied> {
        &self.applied
    }

    pub fn dir(&self) -> &SnapshotDir {
        &self.dir
    }

    fn apply_one(&self, entry: Entry) -> Result<Outcome, StorageError> {
        let log_id = entry.log_id;
        // Decoded outside the lock.
        let batch = match &entry.payload {
            EntryPayload::Normal(payload) => Some(CommandBatch::decode(&payload.0).map_err(|error| {
                tracing::error!(index = log_id.index, %error, "a committed entry can't be applied: this node stops");
                StorageIOError::apply(log_id, &error)
            })?),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        };
        let mut delta = None;
        let outcome;
        {
            let mut tables = self.applied.tables.write();
            outcome = match batch {
                None => Outcome::default(),
                Some(batch) => {
                    let done = tables.state.apply::<AllRules>(batch.wall_ms, &batch.commands);
                    delta = Some(done.delta);
                    Outcome { revision: done.revision, results: done.results }
                }
            };
            if let EntryPayload::Membership(membership) = entry.payload {
                tables.membership = StoredMembership::new(Some(log_id), membership);
            }
            tables.last = Some(log_id);
            if log_id.index.is_multiple_of(HASH_EVERY) {
                if tables.checkpoints.len() == HASHES_KEPT {
                    tables.checkpoints.pop_front();
                }
                let hash = tables.state.state_hash();
                tables.checkpoints.push_back(Checkpoint { index: log_id.index, hash });
            }
        }
        if let Some(delta) = delta {
            self.applied.news.push(delta);
        }
        Ok(outcome)
    }

    async fn save(&self, meta: SnapshotMeta, state: State) -> Result<SnapshotFile, StorageError> {
        let _writing = self.writing.lock().await;
        let dir = self.dir.clone();
        let (named, signature) = (meta.clone(), Some(meta.signature()));
        let saved = tokio::task::spawn_blocking(move || dir.save(&named, &state)).await;
        let saved = saved.map_err(std::io::Error::other).and_then(|saved| saved);
        let file = saved.map_err(|error| StorageIOError::write_snapshot(signature, &error))?;
        let mut current = self.current.write();
        // A snapshot from the leader may have overtaken one that was built here.
        if current.as_ref().is_none_or(|(held, _)| held.last_log_id <= meta.last_log_id) {
            *current = Some((meta, file.clone()));
        }
        Ok(file)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        // A clone shares all rows, so the lock is held for the tables' skeletons only.
        let (state, last, membership) = {
            let tables = self.applied.tables.read();
            (tables.state.clone(), tables.last, tables.membership.clone())
        };
        let snapshot_id = last.map_or_else(|| "empty".to_owned(), |id| id.to_string());
        let meta = SnapshotMeta { last_log_id: last, last_membership: membership, snapshot_id };
        let file = self.save(meta.clone(), state).await?;
        self.applied.metrics.snapshot_built();
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let tables = self.applied.tables.read();
        Ok((tables.last, tables.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        entries.into_iter().map(|entry| self.apply_one(entry)).collect()
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        Ok(Box::new(self.dir.incoming()))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<SnapshotFile>) -> Result<(), StorageError> {
        let fail = |error: std::io::Error| StorageIOError::read_snapshot(Some(meta.signature()), &error);
        let read = tokio::task::spawn_blocking(move || snapshot.read()).await;
        let read = read.map_err(std::io::Error::other).map_err(fail)?;
        let (_, state) = read.map_err(std::io::Error::other).map_err(fail)?;
        self.save(meta.clone(), state.clone()).await?;
        let revision = state.revision();
        {
            let mut tables = self.applied.tables.write();
            tables.state = state;
            tables.last = meta.last_log_id;
            tables.membership = meta.last_membership.clone();
            tables.checkpoints.clear();
        }
        self.applied.news.reset(revision);
        self.applied.metrics.snapshot_installed();
        tracing::info!(snapshot = meta.snapshot_id, revision, "metadata snapshot installed from the leader");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.current.read().clone();
        Ok(current.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}
