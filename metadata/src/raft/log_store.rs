//! The log as openraft sees it: all of it in memory, every change also on the way to the disk.
//!
//! ```text
//! purged < first .. committed .. last      purged: in a snapshot, gone here
//! ```
//! The log is short: a snapshot is taken every `snapshot-entries`, and what it covers is purged.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use parking_lot::RwLock;

use super::codec::{self, EntryRecord};
use super::disk::{Disk, Done, Stored, Write};
use super::{Entry, LogId, StorageError, StorageIOError, TypeConfig, Vote};

/// Bytes of entries that one message to a follower carries, about. Frames may have 17 MiB.
const MESSAGE_BYTES: usize = 2 << 20;

#[derive(Clone)]
pub struct LogStore {
    disk: Disk,
    log: Arc<RwLock<Log>>,
}

#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    bytes: usize,
}

impl LogStore {
    pub fn new(disk: Disk, stored: Stored) -> Self {
        let bytes = stored.entries.iter().map(weight).sum();
        let entries = stored.entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect();
        let log = Log { entries, purged: stored.purged, vote: stored.vote, committed: stored.committed, bytes };
        Self { disk, log: Arc::new(RwLock::new(log)) }
    }

    /// Bytes of the entries in memory, about.
    pub fn bytes(&self) -> usize {
        self.log.read().bytes
    }

    /// The last entry, committed or not.
    pub fn last(&self) -> Option<LogId> {
        let log = self.log.read();
        log.entries.last_key_value().map(|(_, entry)| entry.log_id).or(log.purged)
    }
}

fn weight(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    payload + size_of::<Entry>()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.log.read().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let log = self.log.read();
        let mut room = MESSAGE_BYTES;
        let mut out = Vec::new();
        for (_, entry) in log.entries.range(start..end) {
            // At least one, however large.
            if room == 0 {
                break;
            }
            room = room.saturating_sub(weight(entry));
            out.push(entry.clone());
        }
        Ok(out)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        Ok(LogState { last_purged_log_id: self.log.read().purged, last_log_id: self.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.log.write().vote = Some(*vote);
        let written = self.disk.write(Write::Vote(*vote)).await;
        written.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.log.read().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.log.write().committed = committed;
        self.disk.submit(Write::Committed(committed), Done::Nobody);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.log.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        {
            let mut log = self.log.write();
            for entry in entries {
                let index = entry.log_id.index;
                rows.push((index, codec::seal(&EntryRecord::from(&entry))));
                log.bytes += weight(&entry);
                if let Some(old) = log.entries.insert(index, entry) {
                    log.bytes -= weight(&old);
                }
            }
        }
        self.disk.submit(Write::Append(rows), Done::Flushed(callback));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        {
            let mut log = self.log.write();
            let removed = log.entries.split_off(&log_id.index);
            log.bytes -= removed.values().map(weight).sum::<usize>();
        }
        let written = self.disk.write(Write::Truncate(log_id.index)).await;
        written.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        {
            let mut log = self.log.write();
            let kept = log.entries.split_off(&(log_id.index + 1));
            let removed = std::mem::replace(&mut log.entries, kept);
            log.bytes -= removed.values().map(weight).sum::<usize>();
            log.purged = log.purged.max(Some(log_id));
        }
        let written = self.disk.write(Write::Purge(log_id)).await;
        written.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
