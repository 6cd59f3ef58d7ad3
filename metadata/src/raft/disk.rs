//! The disk side of the log: one redb file, written by one thread.
//!
//! Requests are carried out in the order in which they were made (raft depends on it), as many as are waiting with one
//! fsync. The first error ends the thread's work for good: what is on disk is unknown then, and only a restart finds
//! out.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::LogFlushed;
use parking_lot::Mutex;
use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::codec::{self, EntryRecord, LogIdRecord, VoteRecord};
use super::{Entry, LogId, TypeConfig, Vote};
use crate::cookie::CookieRecord;
use crate::error::StartError;
use crate::metrics::Metrics;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const COOKIE: &str = "cookie";

/// The log mirror is in memory, so the file is read once: a small page cache is enough.
const CACHE_BYTES: usize = 8 << 20;
/// Requests that wait for the thread. Raft has only a few under way at a time.
const QUEUE: usize = 4096;
/// Requests that share one fsync.
const GROUP: usize = 256;

/// What the file held when it was opened.
#[derive(Debug, Default)]
pub struct Stored {
    pub entries: Vec<Entry>,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// None: a new file.
    pub cookie: Option<CookieRecord>,
}

/// Who is told when a request is durable.
pub enum Done {
    Flushed(LogFlushed<TypeConfig>),
    Reply(oneshot::Sender<io::Result<()>>),
    Nobody,
}

pub enum Write {
    Append(Vec<(u64, Vec<u8>)>),
    Vote(Vote),
    /// Written with the next request that needs an fsync; alone it is not worth one.
    Committed(Option<LogId>),
    /// Removes entries from this index on, inclusive.
    Truncate(u64),
    /// Removes entries up to this one, inclusive, and remembers it.
    Purge(LogId),
    /// Who this data directory belongs to.
    Cookie(CookieRecord),
    /// Writes nothing: told when everything before it is.
    Barrier,
    /// Ends the thread and frees the file, behind all that was asked for before.
    Close,
}

/// Handle to the thread. It ends, with all that was asked for written, by [`Disk::close`] or with the last handle.
#[derive(Clone)]
pub struct Disk {
    requests: SyncSender<(Write, Done)>,
    raft_ends: Arc<AtomicBool>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Disk {
    /// Opens or makes the file and reads all of it.
    pub fn open(path: &Path, metrics: Arc<Metrics>) -> Result<(Self, Stored), StartError> {
        let fail = |reason: String| StartError::Log { path: path.to_owned(), reason };
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                StartError::InUse { path: path.parent().unwrap_or(path).to_owned() }
            }
            other => fail(other.to_string()),
        })?;
        let stored = read(&database).map_err(&fail)?;
        let (requests, queue) = sync_channel(QUEUE);
        let raft_ends = Arc::new(AtomicBool::new(false));
        let writer = Writer { database, metrics, raft_ends: raft_ends.clone(), committed: None, broken: None };
        let thread = std::thread::Builder::new()
            .name("esker-raft-log".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| fail(error.to_string()))?;
        Ok((Self { requests, raft_ends, thread: Arc::new(Mutex::new(Some(thread))) }, stored))
    }

    /// Queues a request; `done` is told when it is durable.
    pub fn submit(&self, write: Write, done: Done) {
        let refused = match self.requests.try_send((write, done)) {
            Ok(()) => return,
            // Waiting here would stop the runtime; so many open requests mean a disk that hangs.
            Err(TrySendError::Full((_, done))) => (done, "too many writes wait for the disk"),
            Err(TrySendError::Disconnected((_, done))) => (done, "the log's thread has ended"),
        };
        refused.0.tell(Err(io::Error::other(refused.1)));
    }

    /// Queues a request and waits until it is durable.
    pub async fn write(&self, write: Write) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        self.submit(write, Done::Reply(reply));
        done.await.unwrap_or_else(|_| Err(io::Error::other("the log's thread has ended")))
    }

    /// To be called before raft is stopped: from now on raft is not told of flushes any more. Its channel would be
    /// closed at some moment of the stop, and raft logs each flush told to a closed channel as an error.
    pub async fn raft_ends(&self) {
        self.raft_ends.store(true, Ordering::Release);
        // A flush that was about to be told when the flag went up has been told when this returns.
        let _ = self.write(Write::Barrier).await;
    }

    /// Writes what was asked for, then frees the file for the next process. Later requests fail.
    pub async fn close(&self) {
        // An error has been logged by the thread.
        let _ = self.write(Write::Close).await;
        let thread = self.thread.lock().take();
        let joined = tokio::task::spawn_blocking(move || thread.map_or(Ok(()), JoinHandle::join)).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the log's thread panicked");
        }
    }
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Flushed(flushed) => flushed.log_io_completed(result),
            Self::Reply(reply) => drop(reply.send(result)),
            Self::Nobody => {}
        }
    }
}

fn read(database: &Database) -> Result<Stored, String> {
    let text = |error: redb::Error| error.to_string();
    let transaction = database.begin_write().map_err(|e| text(e.into()))?;
    let mut stored = Stored::default();
    {
        let log = transaction.open_table(LOG).map_err(|e| text(e.into()))?;
        for row in log.iter().map_err(|e| text(e.into()))? {
            let (index, bytes) = row.map_err(|e| text(e.into()))?;
            let entry = codec::open::<EntryRecord>(bytes.value()).and_then(Entry::try_from);
            let entry = entry.map_err(|error| format!("entry {}: {error}", index.value()))?;
            let expected = stored.entries.last().map(|last| last.log_id.index + 1);
            if entry.log_id.index != index.value() || expected.is_some_and(|expected| expected != index.value()) {
                return Err(format!("hole in the log before entry {}", index.value()));
            }
            stored.entries.push(entry);
        }
        let meta = transaction.open_table(META).map_err(|e| text(e.into()))?;
        let row = |key: &str| -> Result<Option<Vec<u8>>, String> {
            Ok(meta.get(key).map_err(|e| text(e.into()))?.map(|row| row.value().to_vec()))
        };
        let bad = |error: codec::CodecError| error.to_string();
        let log_id = |row: Vec<u8>| codec::open::<LogIdRecord>(&row).map(LogId::from).map_err(bad);
        stored.vote = row(VOTE)?.map(|row| codec::open::<VoteRecord>(&row).map_err(bad)).transpose()?.map(Vote::from);
        stored.committed = row(COMMITTED)?.map(log_id).transpose()?;
        stored.purged = row(PURGED)?.map(log_id).transpose()?;
        stored.cookie = row(COOKIE)?.map(|row| codec::open::<CookieRecord>(&row).map_err(bad)).transpose()?;
    }
    // Makes the tables if they are not there yet.
    transaction.commit().map_err(|e| text(e.into()))?;
    Ok(stored)
}

struct Writer {
    database: Database,
    metrics: Arc<Metrics>,
    raft_ends: Arc<AtomicBool>,
    /// Not on disk yet.
    committed: Option<LogId>,
    broken: Option<String>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<(Write, Done)>) {
        let (mut writes, mut done) = (Vec::new(), Vec::new());
        let mut closing = false;
        while !closing && let Ok(first) = queue.recv() {
            for (write, tell) in std::iter::once(first).chain(queue.try_iter().take(GROUP - 1)) {
                done.push(tell);
                match write {
                    Write::Committed(committed) => self.committed = committed,
                    Write::Barrier => {}
                    Write::Close => closing = true,
                    write => writes.push(write),
                }
            }
            let due = !writes.is_empty() || closing && self.committed.is_some();
            let result = if !due { Ok(()) } else { self.commit(&mut writes) };
            for tell in done.drain(..) {
                if !(matches!(tell, Done::Flushed(_)) && self.raft_ends.load(Ordering::Acquire)) {
                    tell.tell(result.clone().map_err(io::Error::other));
                }
            }
        }
    }

    fn commit(&mut self, writes: &mut Vec<Write>) -> Result<(), String> {
        if let Some(reason) = &self.broken {
            writes.clear();
            return Err(reason.clone());
        }
        let began = Instant::now();
        let result = self.try_commit(writes).map_err(|error| format!("raft log: {error}"));
        self.metrics.log_commit(began.elapsed());
        if let Err(reason) = &result {
            tracing::error!(reason, "the raft log can't be written: this node stops");
            self.broken = Some(reason.clone());
        }
        result
    }

    fn try_commit(&mut self, writes: &mut Vec<Write>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            for write in writes.drain(..) {
                match write {
                    Write::Append(rows) => {
                        for (index, row) in rows {
                            log.insert(index, row.as_slice())?;
                        }
                    }
                    Write::Vote(vote) => {
                        meta.insert(VOTE, codec::seal(&VoteRecord::from(vote)).as_slice())?;
                    }
                    Write::Truncate(from) => log.retain_in(from.., |_, _| false)?,
                    Write::Purge(upto) => {
                        log.retain_in(..=upto.index, |_, _| false)?;
                        meta.insert(PURGED, codec::seal(&LogIdRecord::from(upto)).as_slice())?;
                    }
                    Write::Cookie(cookie) => {
                        meta.insert(COOKIE, codec::seal(&cookie).as_slice())?;
                    }
                    Write::Committed(_) | Write::Barrier | Write::Close => unreachable!("kept aside by the caller"),
                }
            }
            if let Some(committed) = self.committed.take() {
                meta.insert(COMMITTED, codec::seal(&LogIdRecord::from(committed)).as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
