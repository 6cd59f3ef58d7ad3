//! Room for the journal: pre-written files, one step ahead of the writer, on a thread of its own.
//!
//! A write into space that already holds bytes changes nothing but data blocks, so its fsync does not wait for the
//! file system's journal: nearly twice as many syncs per second (measured), and none of the long ones. It also can't
//! fail for want of space. So the writer only ever writes where this thread has written zeros before, or into a file
//! that was used and came back. A file that waits for use is named `spare-N`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use esker_bookie_core::journal::FileId;
use parking_lot::{Condvar, Mutex};

use super::{AlignedBuf, DiskFile, DiskHooks, OpenMode, PAGE, dir};

/// Bytes of zeros per write, and per fsync of the filling thread. Small enough that a sync of the journal beside it
/// waits a few milliseconds at most.
const STEP: u64 = 1 << 20;
/// Files kept for reuse. More would be space that nobody can use.
const SPARES_MAX: usize = 2;

/// What the directory allows.
#[derive(Clone, Debug)]
pub struct SpaceConfig {
    pub dir: PathBuf,
    /// Length of a whole file.
    pub file_bytes: u64,
    /// How far the zeros run ahead of the writer in a new file.
    pub prepare_bytes: u64,
    pub direct: bool,
}

/// Told about every file that was asked for, on the thread that prepares them.
pub type OnReady = Box<dyn Fn(FileId, io::Result<DiskFile>) + Send + Sync>;

/// Handle of the thread that prepares files.
pub struct Space {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    config: SpaceConfig,
    hooks: Arc<dyn DiskHooks>,
    on_ready: OnReady,
    state: Mutex<State>,
    /// For the thread: there is work.
    work: Condvar,
    /// For the writer: space is ready, or there is none.
    ready: Condvar,
}

#[derive(Default)]
struct State {
    /// The file asked for, until it is ready.
    wanted: Option<FileId>,
    /// Files in use or about to be: the writer's and the next.
    filling: Vec<Filling>,
    spares: VecDeque<PathBuf>,
    /// Files that nothing refers to any more, to be kept as spares or removed.
    retired: VecDeque<PathBuf>,
    next_spare: u64,
    /// Space is short: whatever is in use is filled to its end at once, so that it can't be taken away.
    hurry: bool,
    /// Filling failed; nothing more is tried before [`Space::retry`] or a file came back.
    failed: Option<io::ErrorKind>,
    closed: bool,
}

struct Filling {
    id: FileId,
    path: PathBuf,
    /// Bytes from the front that hold data or zeros. The writer stays below it.
    prepared: u64,
    /// Up to where the writer has asked for room.
    position: u64,
    /// The file stops here; nothing to prepare beyond.
    end: u64,
}

impl Space {
    /// Starts the thread. `spares` are files left from an earlier run; their contents are of no interest.
    pub fn start(
        config: SpaceConfig,
        spares: Vec<PathBuf>,
        hooks: Arc<dyn DiskHooks>,
        on_ready: OnReady,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            config,
            hooks,
            on_ready,
            state: Mutex::new(State { retired: spares.into(), ..State::default() }),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("esker-space".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for a file. When it exists durably under its name, `on_ready` is told; its room grows as the writer goes.
    pub fn create(&self, id: FileId) {
        let mut state = self.shared.state.lock();
        state.wanted = Some(id);
        state.failed = None;
        self.shared.work.notify_one();
    }

    /// Waits until file `id` may be written up to `end` (exclusive). Asking for room in one file means that the writer
    /// has left all older ones.
    ///
    /// # Errors
    /// `StorageFull`: there is no room now; the caller may try again later. Anything else: the disk failed.
    pub fn ensure(&self, id: FileId, end: u64) -> io::Result<()> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        state.filling.retain(|file| file.id.seq >= id.seq);
        loop {
            let Some(file) = state.filling.iter_mut().find(|file| file.id == id) else {
                return Err(io::Error::other("the journal file was never prepared"));
            };
            file.position = file.position.max(end);
            // A footer may be longer than what was left: the file grows by it.
            file.end = file.end.max(end.next_multiple_of(PAGE as u64));
            // Waking the thread costs a system call: once per half of what it prepares, not once per write.
            if file.prepared < file.end && file.prepared < end + shared.config.prepare_bytes / 2 {
                shared.work.notify_one();
            }
            if file.prepared >= end {
                return Ok(());
            }
            if state.closed {
                return Err(io::Error::other("the journal is closing"));
            }
            if let Some(kind) = state.failed.take() {
                return Err(kind.into());
            }
            shared.ready.wait(&mut state);
        }
    }

    /// Gives a file back. Only after a durable LiveSet that does not name it.
    pub fn retire(&self, path: PathBuf) {
        self.shared.state.lock().retired.push_back(path);
        self.shared.work.notify_one();
    }

    /// Space is short, or not any more. While it is, files in use take all their room at once.
    pub fn hurry(&self, hurry: bool) {
        let mut state = self.shared.state.lock();
        if state.hurry != hurry {
            state.hurry = hurry;
            self.shared.work.notify_one();
        }
    }

    /// Tries again what failed for want of space.
    pub fn retry(&self) {
        let mut state = self.shared.state.lock();
        if state.failed.take().is_some() {
            self.shared.work.notify_one();
        }
    }

    /// Files that wait for reuse.
    pub fn spares(&self) -> usize {
        self.shared.state.lock().spares.len()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
        self.shared.ready.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// One thing for the thread to do.
enum Job {
    Create { id: FileId, spare: Option<PathBuf> },
    Fill { id: FileId, path: PathBuf, from: u64, to: u64 },
    Retire { path: PathBuf, keep_as: Option<PathBuf> },
}

impl Shared {
    fn run(&self) {
        let zeros = AlignedBuf::new(STEP as usize);
        loop {
            let job = {
                let mut state = self.state.lock();
                loop {
                    if state.closed {
                        return;
                    }
                    match self.next_job(&mut state) {
                        Some(job) => break job,
                        None => self.work.wait(&mut state),
                    }
                }
            };
            match job {
                Job::Create { id, spare } => self.create(id, spare, &zeros),
                Job::Fill { id, path, from, to } => {
                    let result = self.fill(&path, from, to, &zeros);
                    self.on_filled(id, to, result);
                }
                Job::Retire { path, keep_as } => self.retire(&path, keep_as),
            }
        }
    }

    /// The writer's own needs come first, then the next file, then tidying up.
    fn next_job(&self, state: &mut State) -> Option<Job> {
        if state.failed.is_none() {
            if let Some(job) = state.filling.iter().find_map(|file| self.fill_job(file, state.hurry, false)) {
                return Some(job);
            }
            let reusable = state.spares.is_empty() && !state.retired.is_empty();
            if let Some(id) = state.wanted.take_if(|_| !reusable) {
                return Some(Job::Create { id, spare: state.spares.pop_front() });
            }
        }
        if let Some(path) = state.retired.pop_front() {
            let keep_as = (state.spares.len() < SPARES_MAX).then(|| self.spare_path(state));
            return Some(Job::Retire { path, keep_as });
        }
        // The next file is filled to its end while the current one's second half is written.
        let late = state.filling.first().is_some_and(|file| file.position > file.end / 2);
        let next = state.filling.get(1).filter(|_| late && state.failed.is_none())?;
        self.fill_job(next, state.hurry, true)
    }

    fn fill_job(&self, file: &Filling, hurry: bool, whole: bool) -> Option<Job> {
        let ahead = file.position + self.config.prepare_bytes.max(STEP);
        let goal = if hurry || whole { file.end } else { ahead.min(file.end) };
        (file.prepared < goal).then(|| Job::Fill {
            id: file.id,
            path: file.path.clone(),
            from: file.prepared,
            to: goal.min(file.prepared + STEP),
        })
    }

    fn spare_path(&self, state: &mut State) -> PathBuf {
        loop {
            state.next_spare += 1;
            let path = self.config.dir.join(format!("spare-{:08x}", state.next_spare));
            if !path.exists() {
                return path;
            }
        }
    }

    fn create(&self, id: FileId, spare: Option<PathBuf>, zeros: &AlignedBuf) {
        let path = self.config.dir.join(id.to_string());
        let open = || -> io::Result<(DiskFile, u64)> {
            let mut prepared = 0;
            match &spare {
                Some(spare) => {
                    std::fs::rename(spare, &path)?;
                    prepared = std::fs::metadata(&path)?.len();
                }
                None => {
                    prepared = prepared.max(STEP.min(self.config.file_bytes));
                    self.fill(&path, 0, prepared, zeros)?;
                }
            }
            let file = DiskFile::open(&path, OpenMode::WriteDurable, self.config.direct)?;
            dir::sync(&self.config.dir)?;
            Ok((file, prepared))
        };
        match open() {
            Ok((file, prepared)) => {
                let end = self.config.file_bytes.max(prepared);
                self.state.lock().filling.push(Filling { id, path, prepared, position: 0, end });
                (self.on_ready)(id, Ok(file));
            }
            Err(error) => {
                tracing::warn!(file = %id, %error, "a new journal file can't be made");
                let mut state = self.state.lock();
                state.wanted = Some(id);
                state.failed = Some(error.kind());
                drop(state);
                let _ = std::fs::remove_file(&path);
                (self.on_ready)(id, Err(error));
            }
        }
    }

    fn fill(&self, path: &Path, from: u64, to: u64, zeros: &AlignedBuf) -> io::Result<()> {
        self.hooks.before_fill(path, from, to)?;
        let file = DiskFile::open(path, OpenMode::Write, self.config.direct)?;
        file.write_at(from, &zeros.as_bytes()[..(to - from) as usize])?;
        file.sync()
    }

    fn on_filled(&self, id: FileId, to: u64, result: io::Result<()>) {
        let mut state = self.state.lock();
        match result {
            Ok(()) => {
                if let Some(file) = state.filling.iter_mut().find(|file| file.id == id) {
                    file.prepared = file.prepared.max(to);
                }
            }
            Err(error) => {
                tracing::warn!(file = %id, %error, "a journal file can't be extended");
                state.failed = Some(error.kind());
            }
        }
        self.ready.notify_all();
    }

    /// Keeps a whole file for reuse and removes any other.
    fn retire(&self, path: &Path, keep_as: Option<PathBuf>) {
        let work = || -> io::Result<Option<PathBuf>> {
            let whole = std::fs::metadata(path)?.len() == self.config.file_bytes;
            let kept = keep_as.filter(|_| whole);
            match &kept {
                Some(spare) => std::fs::rename(path, spare)?,
                None => std::fs::remove_file(path)?,
            }
            dir::sync(&self.config.dir)?;
            Ok(kept)
        };
        match work() {
            Ok(kept) => {
                let mut state = self.state.lock();
                state.spares.extend(kept);
                state.failed = None;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a journal file that is not needed can't be removed");
            }
        }
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
