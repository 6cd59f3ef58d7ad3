//! How everybody else reaches the journal.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use esker_bookie_core::bookie::{BookieState, Compare, Compared, ConnId, Damage, ReadPlan};
use esker_bookie_core::journal::{FileId, Lsn};
use esker_bookie_core::wire::{Add, AddStatus, AddStatusKind, FenceRequest, FenceResponse, Read, ReadResponse};
use esker_types::{AllRules, BookieId};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};

use super::output::Output;
use super::queue::{Queue, Room, Stopped};
use super::superblock::SuperblockFile;
use super::thread::Worker;
use crate::disk::{DiskFile, DiskHooks, JournalFiles, Space, SpaceConfig};
use crate::metrics::Metrics;

/// Takes the answers for one connection. Called by the journal's thread: must not block.
pub type StatusSink = Arc<dyn Fn(AddStatus) + Send + Sync>;

/// Counted for each ADD beside its bytes: what a queued operation itself takes up.
const OP_BYTES: usize = 256;
/// Plans for one read: each further one means that garbage collection freed the file in between.
const READ_TRIES: u32 = 4;

/// What the journal needs to know.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    pub dir: PathBuf,
    pub bookie: BookieId,
    pub file_bytes: u64,
    pub prepare_bytes: u64,
    pub group_bytes: usize,
    pub queue_bytes: u64,
    pub direct: bool,
    pub idle_epilogue: Duration,
    /// Reads from disk under way at once.
    pub reads_max: usize,
    /// Bytes of footers kept in memory.
    pub index_cache: usize,
}

/// The disk failed; the process must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal failed: {0}")]
pub struct JournalFailed(pub String);

/// What the thread is asked to do.
pub(super) enum Op {
    Add {
        conn: ConnId,
        add: Add,
        room: Room,
    },
    Fence {
        request: FenceRequest,
        reply: oneshot::Sender<FenceResponse>,
    },
    Compared(Compared),
    File(FileId, DiskFile),
    /// The state was changed from outside: look again.
    Wake,
}

/// Where the journal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Open,
    Failed(JournalFailed),
}

pub(super) struct Shared {
    pub queue: Queue<Op>,
    pub state: Mutex<BookieState<AllRules>>,
    pub files: JournalFiles,
    pub metrics: Metrics,
    pub killed: AtomicBool,
    superblock: SuperblockFile,
    bookie: BookieId,
    hooks: Arc<dyn DiskHooks>,
    sinks: RwLock<BTreeMap<ConnId, StatusSink>>,
    reads: Semaphore,
    phase: watch::Sender<Phase>,
    durable: watch::Sender<Lsn>,
    /// Where the current file began.
    file_began: AtomicU64,
    runtime: Handle,
}

/// Handle of the journal. Clones share it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    space: Arc<Space>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Journal {
    /// Starts the thread over a state fresh from [`BookieState::boot`]. Must be called inside a tokio runtime, on which
    /// reads will run. `spares` are files left over in the directory.
    pub fn start(
        config: JournalConfig,
        state: BookieState<AllRules>,
        superblock: SuperblockFile,
        spares: Vec<PathBuf>,
        hooks: Arc<dyn DiskHooks>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let durable = state.durable_lsn();
        let shared = Arc::new(Shared {
            queue: Queue::new(config.queue_bytes, metrics.clone()),
            state: Mutex::new(state),
            files: JournalFiles::for_serving(&config.dir, config.index_cache),
            metrics: metrics.clone(),
            killed: AtomicBool::new(false),
            superblock,
            bookie: config.bookie,
            hooks: hooks.clone(),
            sinks: RwLock::default(),
            reads: Semaphore::new(config.reads_max),
            phase: watch::Sender::new(Phase::Starting),
            durable: watch::Sender::new(durable),
            file_began: AtomicU64::new(durable.0),
            runtime: Handle::current(),
        });
        let space_config = SpaceConfig {
            dir: config.dir.clone(),
            file_bytes: config.file_bytes,
            prepare_bytes: config.prepare_bytes,
            direct: config.direct,
        };
        let told = shared.clone();
        let on_ready = Box::new(move |id, file: io::Result<DiskFile>| match file {
            Ok(file) => drop(told.queue.push(Op::File(id, file))),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            Err(error) => told.fail(&format!("making journal file {id}: {error}")),
        });
        let space = Arc::new(Space::start(space_config, spares, hooks.clone(), on_ready)?);
        let worker = Worker {
            shared: shared.clone(),
            space: space.clone(),
            output: Output::new(space.clone(), hooks, metrics, config.group_bytes),
            group_bytes: config.group_bytes,
            idle_epilogue: config.idle_epilogue,
            ops: Vec::new(),
            blocks: Vec::new(),
            carry: None,
            actions: Vec::new(),
            fences: BTreeMap::new(),
            next_ticket: 1,
            held: 0,
        };
        let thread = std::thread::Builder::new().name("esker-journal".to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, space, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Waits until what was decided at boot is durable. Nothing may be served before.
    pub async fn open(&self) -> Result<(), JournalFailed> {
        let mut phase = self.shared.phase.subscribe();
        let phase = phase.wait_for(|phase| *phase != Phase::Starting).await;
        match phase.as_deref() {
            Ok(Phase::Failed(failed)) => Err(failed.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(JournalFailed("the journal's thread is gone".to_owned())),
        }
    }

    /// Waits until the journal fails; for ever if it does not.
    pub async fn failed(&self) -> JournalFailed {
        let mut phase = self.shared.phase.subscribe();
        match phase.wait_for(|phase| matches!(phase, Phase::Failed(_))).await.as_deref() {
            Ok(Phase::Failed(failed)) => failed.clone(),
            _ => std::future::pending().await,
        }
    }

    /// Queues an entry; its outcome comes to the connection's sink. Waits while the queue is full: the caller must read
    /// nothing more from its connection meanwhile. `add` has been verified.
    pub async fn add(&self, conn: ConnId, add: Add) -> Result<(), Stopped> {
        let room = self.shared.queue.room(add.bytes.len() + OP_BYTES).await?;
        self.shared.queue.push(Op::Add { conn, add, room })
    }

    /// R4: decided in the order of the queue, answered when durable.
    pub async fn fence(&self, request: FenceRequest) -> Result<FenceResponse, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(Op::Fence { request, reply })?;
        answer.await.map_err(|_| Stopped)
    }

    /// R10. Waits its turn when too many reads are under way.
    pub async fn read(&self, read: Read) -> Result<ReadResponse, Stopped> {
        // Garbage collection may move entries between the plan and the read: then the plan is made anew.
        let mut tries = 0;
        let response = loop {
            let plan = self.shared.state.lock().plan_read(&read);
            let fetch = match plan {
                ReadPlan::Answer(response) => break response,
                ReadPlan::Fetch(fetch) => fetch,
            };
            let turn = self.shared.reads.acquire().await.map_err(|_| Stopped)?;
            let files = self.shared.files.clone();
            let fetched = tokio::task::spawn_blocking(move || fetch.run(&files)).await.map_err(|_| Stopped)?;
            drop(turn);
            let moved = fetched.damage.is_some_and(|damage| !self.damaged(damage));
            tries += 1;
            if !(moved && fetched.response.entries.is_empty() && tries < READ_TRIES) {
                break fetched.response;
            }
        };
        let bytes = response.entries.iter().map(|entry| entry.len() as u64).sum();
        self.shared.metrics.read_answered(bytes);
        Ok(response)
    }

    /// An entry could not be read back. False: it was moved or dropped meanwhile, nothing is wrong with it.
    pub fn damaged(&self, damage: Damage) -> bool {
        let real = self.change(|state| state.on_damage(damage));
        if real {
            self.shared.metrics.read_fault();
            tracing::error!(segment = %damage.segment, entry = damage.entry, file = %damage.file, "entry is damaged");
        }
        real
    }

    /// Answers to ADDs of this connection go to `sink` from now on.
    pub fn connect(&self, conn: ConnId, sink: StatusSink) {
        self.shared.sinks.write().insert(conn, sink);
    }

    pub fn disconnect(&self, conn: ConnId) {
        self.shared.sinks.write().remove(&conn);
    }

    /// Looks at the state. Never across an await or a system call.
    pub fn look<T>(&self, look: impl FnOnce(&BookieState<AllRules>) -> T) -> T {
        look(&self.shared.state.lock())
    }

    /// Changes the state, then lets the thread write what came of it.
    pub fn change<T>(&self, change: impl FnOnce(&mut BookieState<AllRules>) -> T) -> T {
        let result = change(&mut self.shared.state.lock());
        // A stopped journal writes nothing more, whatever was changed.
        let _ = self.shared.queue.push(Op::Wake);
        result
    }

    pub fn durable(&self) -> watch::Receiver<Lsn> {
        self.shared.durable.subscribe()
    }

    /// Bytes in the file that is being written, about.
    pub fn written_in_file(&self) -> u64 {
        let durable = self.shared.durable.borrow().0;
        durable.saturating_sub(self.shared.file_began.load(Ordering::Relaxed))
    }

    pub fn files(&self) -> &JournalFiles {
        &self.shared.files
    }

    pub fn space(&self) -> &Space {
        &self.space
    }

    pub fn queued_bytes(&self) -> u64 {
        self.shared.queue.used_bytes()
    }

    /// Takes nothing more; the thread writes what is queued and ends.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// Writes what is queued, then ends the thread.
    pub async fn stop(&self) {
        self.close();
        self.join().await;
    }

    /// Ends the thread as a crash would: whatever is queued is neither written nor answered. For tests.
    pub async fn kill(&self) {
        self.shared.killed.store(true, Ordering::Release);
        self.shared.queue.close();
        self.join().await;
    }

    async fn join(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        // A panic has been reported by the panic hook, and shows as a failed journal.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

impl Shared {
    pub fn superblock(&self, durable: Lsn, poisoned: bool) -> io::Result<()> {
        if self.killed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.superblock.write(self.bookie, durable, poisoned)
    }

    /// The header of a file is durable.
    pub fn opened(&self, durable: Lsn) {
        self.file_began.store(durable.0, Ordering::Relaxed);
        self.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Starting;
            if first {
                *phase = Phase::Open;
            }
            first
        });
    }

    pub fn fail(&self, reason: &str) {
        self.hooks.poisoned(reason);
        self.phase.send_replace(Phase::Failed(JournalFailed(reason.to_owned())));
    }

    pub fn report(&self, state: &MutexGuard<'_, BookieState<AllRules>>) {
        let durable = state.durable_lsn();
        self.durable.send_if_modified(|known| std::mem::replace(known, durable) != durable);
    }

    pub fn send_status(&self, conn: ConnId, status: AddStatus) {
        if status.kind != AddStatusKind::Ok {
            self.metrics.add_refused();
        }
        // A connection that is gone needs no answer: its sender asks again on the next one.
        if let Some(sink) = self.sinks.read().get(&conn) {
            sink(status);
        }
    }

    /// Compares an entry that came twice with the stored one, off this thread.
    pub fn compare(self: &Arc<Self>, compare: Compare) {
        let shared = self.clone();
        self.runtime.spawn_blocking(move || {
            let compared = compare.run(&shared.files);
            // A stopped journal answers nothing more.
            let _ = shared.queue.push(Op::Compared(compared));
        });
    }
}
