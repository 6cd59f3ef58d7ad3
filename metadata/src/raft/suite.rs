//! openraft's own checks of a store, and what they leave out: that it is all there after a restart.

use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::disk::{Disk, Write};
use super::log_store::LogStore;
use super::machine::Machine;
use super::snapshot::SnapshotDir;
use super::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::cookie::CookieRecord;
use crate::metrics::Metrics;

struct Builder;

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&mut Registry::default()))
}

fn open_log(temp: &TempDir) -> (Disk, LogStore, Option<CookieRecord>) {
    let (disk, mut stored) = Disk::open(&temp.path().join("raft.redb"), metrics()).expect("open");
    let cookie = stored.cookie.take();
    (disk.clone(), LogStore::new(disk, stored), cookie)
}

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let temp = tempfile::tempdir().expect("temp");
        let dir = SnapshotDir::open(temp.path().join("snapshots")).expect("dir");
        let machine = Machine::open(dir, metrics()).expect("machine");
        let (_, log, _) = open_log(&temp);
        Ok((temp, log, machine))
    }
}

#[test]
fn the_store_passes_openrafts_suite() {
    Suite::test_all(Builder).expect("all of it");
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { log_id: LogId::new(CommittedLeaderId::new(term, 1), index), payload: EntryPayload::Blank }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let temp = tempfile::tempdir().expect("temp");
    let (disk, mut log, cookie) = open_log(&temp);
    assert_eq!(cookie, None);
    let cookie = CookieRecord::born("m1").expect("random");
    disk.write(Write::Cookie(cookie.clone())).await.expect("written");
    log.blocking_append((1..=10).map(|index| entry(1, index))).await.expect("appended");
    log.save_vote(&Vote::new_committed(3, 1)).await.expect("saved");
    log.truncate(entry(1, 9).log_id).await.expect("truncated");
    log.blocking_append([entry(2, 9)]).await.expect("appended");
    log.purge(entry(1, 4).log_id).await.expect("purged");
    log.save_committed(Some(entry(1, 8).log_id)).await.expect("noted");
    disk.close().await;

    let (disk, mut log, again) = open_log(&temp);
    assert_eq!(again, Some(cookie));
    let state = log.get_log_state().await.expect("state");
    assert_eq!(state.last_purged_log_id, Some(entry(1, 4).log_id));
    assert_eq!(state.last_log_id, Some(entry(2, 9).log_id));
    let entries = log.try_get_log_entries(0..100).await.expect("entries");
    let expected: Vec<Entry> = (5..=8).map(|index| entry(1, index)).chain([entry(2, 9)]).collect();
    assert_eq!(entries, expected);
    assert_eq!(log.read_vote().await.expect("vote"), Some(Vote::new_committed(3, 1)));
    assert_eq!(log.read_committed().await.expect("committed"), Some(entry(1, 8).log_id));
    disk.close().await;
    // After the close every write fails, and nothing hangs.
    assert!(disk.write(Write::Truncate(1)).await.is_err());
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let temp = tempfile::tempdir().expect("temp");
    let (disk, _log, _) = open_log(&temp);
    let error = Disk::open(&temp.path().join("raft.redb"), metrics()).err().expect("refused");
    assert!(error.to_string().contains("in use"), "{error}");
    disk.close().await;
}
