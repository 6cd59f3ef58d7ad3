//! A journal in a temporary directory, for the tests of this crate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_bookie_core::bookie::{BookieState, BootFacts, ConnId, Limits};
use esker_bookie_core::journal::restart::{Evidence, Restored, restart};
use esker_bookie_core::journal::storage::{ReadAt, ReadFault};
use esker_bookie_core::journal::{FileId, JournalIds, Lsn};
use esker_bookie_core::wire::{Add, AddStatus, Read, ReadResponse};
use esker_types::entry::{CHAIN_START, NO_SNAPSHOT};
use esker_types::{
    AllRules, BookieId, ClusterId, Entry, EntryHeader, EntryId, EntryKind, Epoch, InstanceId, SegmentId, checksum,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use crate::cookie::Cookie;
use crate::disk::{DiskHooks, JournalFiles};
use crate::journal::{Journal, JournalConfig, SuperblockFile};
use crate::metrics::Metrics;

pub const INSTANCE: InstanceId = InstanceId([2; 16]);
pub const CONN: ConnId = ConnId(1);

/// A disk that fails from some moment on.
#[derive(Default)]
pub struct FailingDisk {
    fails: AtomicBool,
    pub poisoned: Mutex<Option<String>>,
}

impl FailingDisk {
    /// None that does yet.
    pub fn sound() -> Arc<Self> {
        Arc::default()
    }

    pub fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }
}

impl DiskHooks for FailingDisk {
    fn before_sync(&self, _: &Path) -> io::Result<()> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(io::Error::other("injected")),
            false => Ok(()),
        }
    }

    fn poisoned(&self, reason: &str) {
        self.poisoned.lock().get_or_insert_with(|| reason.to_owned());
    }
}

/// Counts what a restart reads.
pub struct Counting<'a> {
    pub files: &'a JournalFiles,
    pub bytes: AtomicU64,
}

impl ReadAt for Counting<'_> {
    fn files(&self) -> Vec<(FileId, u64)> {
        self.files.files()
    }

    fn read_at(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, ReadFault> {
        let bytes = self.files.read_at(file, offset, len)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(bytes)
    }
}

pub fn ids() -> JournalIds {
    JournalIds { cluster: ClusterId([1; 16]), instance: INSTANCE }
}

pub fn superblock(dir: &Path) -> SuperblockFile {
    let cookie = Cookie { instance: INSTANCE, ..Cookie::fresh(ids().cluster, [3; 32]) };
    SuperblockFile::new(dir, cookie)
}

pub fn config(dir: &Path) -> JournalConfig {
    JournalConfig {
        dir: dir.to_owned(),
        bookie: BookieId(1),
        file_bytes: 1 << 20,
        prepare_bytes: 1 << 20,
        group_bytes: 256 << 10,
        queue_bytes: 1 << 20,
        direct: true,
        idle_epilogue: Duration::from_millis(1),
        reads_max: 4,
        index_cache: 1 << 20,
    }
}

/// What the directory holds, and the bytes that were read to know it.
pub fn restored(dir: &Path) -> (Restored, u64) {
    let files = JournalFiles::for_verifying(dir, true);
    let counting = Counting { files: &files, bytes: AtomicU64::new(0) };
    let evidence = Evidence { metadata_lsn: Lsn(0), superblock: superblock(dir).read().unwrap() };
    let restored = restart::<AllRules, _>(ids(), &counting, &evidence);
    (restored, counting.bytes.load(Ordering::SeqCst))
}

/// A journal and the answers to ADDs of one connection.
pub struct Bench {
    pub journal: Journal,
    pub answers: mpsc::UnboundedReceiver<AddStatus>,
}

impl Bench {
    pub async fn open(dir: &Path) -> Self {
        Self::open_on(dir, FailingDisk::sound()).await
    }

    pub async fn open_on(dir: &Path, hooks: Arc<dyn DiskHooks>) -> Self {
        let bench = Self::start(dir, hooks);
        bench.journal.open().await.unwrap();
        bench
    }

    pub fn start(dir: &Path, hooks: Arc<dyn DiskHooks>) -> Self {
        let (restored, _) = restored(dir);
        let spares: Vec<PathBuf> = JournalFiles::list(dir).unwrap().spares;
        let config = config(dir);
        let limits = Limits { group_bytes: config.group_bytes, file_bytes: config.file_bytes, recent_crcs: 4 };
        let state = BookieState::boot(ids(), limits, restored, BootFacts::default());
        let metrics = Metrics::new(&mut Registry::default());
        let journal = Journal::start(config, state, superblock(dir), spares, hooks, metrics).unwrap();
        let (tx, answers) = mpsc::unbounded_channel();
        journal.connect(
            CONN,
            Arc::new(move |status| {
                let _ = tx.send(status);
            }),
        );
        Self { journal, answers }
    }

    pub async fn add(&self, add: Add) {
        self.journal.add(CONN, add).await.unwrap();
    }

    /// Waits for an OK that speaks for all entries of `segment` below `count`.
    pub async fn acked(&mut self, segment: SegmentId, count: u64) {
        loop {
            let status = self.answers.recv().await.unwrap();
            if status.segment == segment && status.next >= count {
                assert_eq!(status.kind, esker_bookie_core::wire::AddStatusKind::Ok, "{status:?}");
                return;
            }
        }
    }

    pub async fn read(&self, segment: SegmentId, from: EntryId) -> ReadResponse {
        let read = Read { instance: INSTANCE, segment, from, to: u64::MAX, max_bytes: 1 << 20 };
        self.journal.read(read).await.unwrap()
    }

    /// All entries of a segment, front to back.
    pub async fn read_all(&self, segment: SegmentId) -> Vec<Bytes> {
        let mut all = Vec::new();
        loop {
            let response = self.read(segment, all.len() as u64).await;
            if response.entries.is_empty() {
                return all;
            }
            all.extend(response.entries);
        }
    }
}

/// Entry `number` of a segment; the same every time it is asked for.
pub fn entry(segment: SegmentId, number: EntryId, payload_len: usize) -> Entry {
    let payload: Vec<u8> = (0..payload_len).map(|i| (i as u64 * 31 + number * 7 + segment.n) as u8).collect();
    let header = EntryHeader {
        kind: EntryKind::Data,
        segment,
        seg_epoch: Epoch(1),
        entry: number,
        base_offset: number as i64 * 10,
        count: 10,
        max_ts: 0,
        snap: NO_SNAPSHOT,
        len: payload_len as u32,
        payload_crc: checksum::crc32c(&payload),
        chain: 0,
    };
    Entry::assemble(header, &payload)
}

pub fn add(segment: SegmentId, number: EntryId, payload_len: usize, epoch: u32) -> Add {
    add_of(INSTANCE, &entry(segment, number, payload_len), epoch)
}

pub fn add_of(instance: InstanceId, entry: &Entry, epoch: u32) -> Add {
    let header = &entry.header;
    Add {
        instance,
        segment: header.segment,
        entry: header.entry,
        req_epoch: Epoch(epoch),
        lac: header.entry.saturating_sub(1),
        crc: entry.crc(),
        recovery: false,
        bytes: entry.bytes.clone(),
    }
}

/// The first `count` entries of a segment, each chained to the one before it.
pub fn chained(segment: SegmentId, count: u64, payload_len: usize) -> Vec<Entry> {
    let mut chain = CHAIN_START;
    let link = |number| {
        let plain = entry(segment, number, payload_len);
        let header = plain.header.sealed(chain);
        chain = header.chain;
        Entry::assemble(header, &plain.payload())
    };
    (0..count).map(link).collect()
}
