//! Room for the journal: pre-written files, one step ahead of the writer, on a thread of its own.
//!
//! A write into space that already holds bytes changes nothing but data blocks, so its fsync does not wait for the
//! file system's journal: nearly twice as many syncs per second (measured), and none of the long ones. It also can't
//! fail for want of space. So the writer only ever writes where this thread has written zeros before, or into a file
//! that was used and came back. Names: `journal-SEQ` in use, `spare-SEQ` waiting.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::{AlignedBuf, DiskFile, DiskHooks, OpenMode, PAGE, dir};

/// Bytes of zeros per write, and per fsync of the filling thread. Small enough that a sync of the journal beside it
/// waits a few milliseconds at most.
const STEP: usize = 1 << 20;
/// Files kept for reuse. More would be space that nobody can use.
const SPARES_MAX: usize = 2;

/// `journal-` and 16 hex digits.
pub fn file_name(seq: u64) -> String {
    format!("journal-{seq:016x}")
}

/// The number in a journal file's name.
pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("journal-")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

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

/// Handle of the thread that prepares files.
pub struct Space {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    config: SpaceConfig,
    hooks: Arc<dyn DiskHooks>,
    state: Mutex<State>,
    /// For the thread: there is work.
    work: Condvar,
    /// For the writer: space is ready, or there is none.
    ready: Condvar,
}

#[derive(Default)]
struct State {
    current: Option<Filling>,
    spares: VecDeque<Spare>,
    /// Files that nothing refers to any more, to be kept as spares or removed.
    retired: VecDeque<PathBuf>,
    next_spare: u64,
    /// A whole spare is wanted now, not only when the current file is half full.
    spare_wanted: bool,
    error: Option<io::ErrorKind>,
    closed: bool,
}

struct Filling {
    path: PathBuf,
    /// Bytes from the front that hold data or zeros. The writer stays below it.
    prepared: u64,
    /// Where the writer is, or wants to go.
    position: u64,
    /// The file stops here; nothing to prepare beyond.
    end: u64,
}

struct Spare {
    path: PathBuf,
    len: u64,
}

impl Space {
    /// Starts the thread. `spares` are whole files left from an earlier run; their contents are of no interest.
    pub fn start(config: SpaceConfig, spares: Vec<PathBuf>, hooks: Arc<dyn DiskHooks>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            config,
            hooks,
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

    /// Opens the file `seq` for writing, durably named, with at least its first pages prepared. Called by the writer.
    pub fn open_next(&self, seq: u64) -> io::Result<DiskFile> {
        let config = &self.shared.config;
        let path = config.dir.join(file_name(seq));
        let spare = self.shared.state.lock().spares.pop_front();
        let prepared = match spare {
            Some(spare) => {
                std::fs::rename(&spare.path, &path)?;
                spare.len
            }
            None => 0,
        };
        let file = DiskFile::open(&path, OpenMode::WriteDurable, config.direct)?;
        dir::sync(&config.dir)?;
        let mut state = self.shared.state.lock();
        state.current = Some(Filling { path, prepared, position: 0, end: config.file_bytes.max(prepared) });
        state.spare_wanted = false;
        self.shared.work.notify_one();
        Ok(file)
    }

    /// Waits until the current file may be written up to `end` (exclusive).
    ///
    /// # Errors
    /// `StorageFull`: there is no room now; the caller may try again later. Anything else: the disk failed.
    pub fn ensure(&self, end: u64) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        loop {
            let Some(current) = &mut state.current else {
                return Err(io::Error::other("no journal file is open"));
            };
            current.position = current.position.max(end);
            // A footer may be longer than what was left: the file grows by it.
            current.end = current.end.max(end.next_multiple_of(PAGE as u64));
            let (prepared, goal) = (current.prepared, current.goal(&self.shared.config));
            if prepared < goal && prepared < end + self.shared.config.prepare_bytes / 2 {
                self.shared.work.notify_one();
            }
            if prepared >= end {
                return Ok(());
            }
            if let Some(kind) = state.error.take() {
                return Err(kind.into());
            }
            self.shared.ready.wait(&mut state);
        }
    }

    /// Gives a file back. Only after a durable LiveSet that does not name it.
    pub fn retire(&self, path: PathBuf) {
        self.shared.state.lock().retired.push_back(path);
        self.shared.work.notify_one();
    }

    /// Asks for a whole spare file now: space is getting short and the last file belongs to fences.
    pub fn want_spare(&self) {
        let mut state = self.shared.state.lock();
        if !state.spare_wanted {
            state.spare_wanted = true;
            self.shared.work.notify_one();
        }
    }

    /// Spare files ready for use, and their bytes.
    pub fn spares(&self) -> (usize, u64) {
        let state = self.shared.state.lock();
        (state.spares.len(), state.spares.iter().map(|s| s.len).sum())
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

impl Filling {
    /// Up to where the file should be prepared now.
    fn goal(&self, config: &SpaceConfig) -> u64 {
        (self.position + config.prepare_bytes.max(STEP as u64)).min(self.end)
    }
}

/// One thing for the thread to do.
enum Job {
    Fill { path: PathBuf, from: u64, to: u64 },
    MakeSpare(PathBuf),
    Retire { path: PathBuf, keep_as: Option<PathBuf> },
}

impl Shared {
    fn run(&self) {
        let zeros = AlignedBuf::new(STEP);
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
            let result = self.execute(&job, &zeros);
            self.on_done(job, result);
        }
    }

    fn next_job(&self, state: &mut State) -> Option<Job> {
        if let Some(current) = &state.current {
            let goal = current.goal(&self.config);
            if current.prepared < goal && state.error.is_none() {
                let to = goal.min(current.prepared + STEP as u64);
                return Some(Job::Fill { path: current.path.clone(), from: current.prepared, to });
            }
        }
        if let Some(path) = state.retired.pop_front() {
            let keep_as = (state.spares.len() < SPARES_MAX).then(|| self.spare_path(state));
            return Some(Job::Retire { path, keep_as });
        }
        let half_full = state.current.as_ref().is_some_and(|c| c.position > c.end / 2);
        if state.spares.is_empty() && (half_full || state.spare_wanted) && state.error.is_none() {
            return Some(Job::MakeSpare(self.spare_path(state)));
        }
        None
    }

    fn spare_path(&self, state: &mut State) -> PathBuf {
        // Names left over from an earlier run are taken over as retired files at the start, so a collision can only
        // be with one of those: skip it.
        loop {
            state.next_spare += 1;
            let path = self.config.dir.join(format!("spare-{:08x}", state.next_spare));
            if !path.exists() {
                return path;
            }
        }
    }

    fn execute(&self, job: &Job, zeros: &AlignedBuf) -> io::Result<u64> {
        match job {
            Job::Fill { path, from, to } => self.fill(path, *from, *to, zeros).map(|()| *to),
            Job::MakeSpare(path) => {
                let result = (0..self.config.file_bytes.div_ceil(STEP as u64)).try_for_each(|step| {
                    let from = step * STEP as u64;
                    self.fill(path, from, (from + STEP as u64).min(self.config.file_bytes), zeros)
                });
                if result.is_err() {
                    let _ = std::fs::remove_file(path);
                }
                result.and_then(|()| dir::sync(&self.config.dir)).map(|()| self.config.file_bytes)
            }
            Job::Retire { path, keep_as } => self.retire_file(path, keep_as.as_deref()),
        }
    }

    fn fill(&self, path: &Path, from: u64, to: u64, zeros: &AlignedBuf) -> io::Result<()> {
        self.hooks.before_fill(path, from, to)?;
        let file = DiskFile::open(path, OpenMode::Write, self.config.direct)?;
        let mut at = from;
        while at < to {
            let len = (to - at).min(STEP as u64) as usize;
            file.write_at(at, &zeros.as_bytes()[..len])?;
            at += len as u64;
        }
        file.sync()
    }

    /// Keeps a whole file for reuse and removes any other.
    fn retire_file(&self, path: &Path, keep_as: Option<&Path>) -> io::Result<u64> {
        let len = std::fs::metadata(path)?.len();
        match keep_as {
            Some(spare) if len == self.config.file_bytes => std::fs::rename(path, spare)?,
            _ => {
                std::fs::remove_file(path)?;
                dir::sync(&self.config.dir)?;
                return Ok(0);
            }
        }
        dir::sync(&self.config.dir)?;
        Ok(len)
    }

    fn on_done(&self, job: Job, result: io::Result<u64>) {
        let mut state = self.state.lock();
        match (job, result) {
            (Job::Fill { path, .. }, Ok(to)) => {
                if let Some(current) = state.current.as_mut().filter(|c| c.path == path) {
                    current.prepared = current.prepared.max(to);
                }
                self.ready.notify_all();
            }
            (Job::MakeSpare(path), Ok(len)) => state.spares.push_back(Spare { path, len }),
            (Job::Retire { keep_as: Some(path), .. }, Ok(len)) if len > 0 => {
                state.spares.push_back(Spare { path, len });
            }
            (Job::Retire { .. }, Ok(_)) => state.error = None,
            (Job::Retire { path, .. }, Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "a freed journal file can't be removed");
            }
            (Job::MakeSpare(path), Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "no room for a spare journal file");
                state.spare_wanted = false;
                if error.kind() != io::ErrorKind::StorageFull {
                    state.error = Some(error.kind());
                }
            }
            (Job::Fill { path, .. }, Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "a journal file can't be extended");
                state.error = Some(error.kind());
                self.ready.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quiet;
    impl DiskHooks for Quiet {
        fn poisoned(&self, reason: &str) {
            panic!("{reason}");
        }
    }

    fn config(dir: &Path) -> SpaceConfig {
        SpaceConfig { dir: dir.to_owned(), file_bytes: 3 << 20, prepare_bytes: 1 << 20, direct: true }
    }

    #[test]
    fn names_round_trip() {
        assert_eq!(parse_file_name(&file_name(77)), Some(77));
        assert_eq!(parse_file_name("journal-1"), None);
        assert_eq!(parse_file_name("spare-00000001"), None);
    }

    #[test]
    fn space_runs_ahead_and_files_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let space = Space::start(config(temp.path()), Vec::new(), Arc::new(Quiet)).unwrap();
        let file = space.open_next(1).unwrap();
        space.ensure(PAGE as u64).unwrap();
        assert!(file.len().unwrap() >= PAGE as u64);
        space.ensure(3 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 3 << 20);
        // A footer that needs more than what is left still finds room.
        space.ensure((3 << 20) + 1).unwrap();
        assert_eq!(file.len().unwrap(), (3 << 20) + PAGE as u64);

        let second = space.open_next(2).unwrap();
        space.ensure(3 << 20).unwrap();
        space.retire(second.path().to_owned());
        drop(space);
        let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.len() <= 4, "{left:?}");
    }

    /// No room, then room again.
    struct FullOnce(std::sync::atomic::AtomicBool);
    impl DiskHooks for FullOnce {
        fn before_fill(&self, _: &Path, from: u64, _: u64) -> io::Result<()> {
            let full = from > 0 && self.0.swap(false, std::sync::atomic::Ordering::SeqCst);
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
        fn poisoned(&self, reason: &str) {
            panic!("{reason}");
        }
    }

    #[test]
    fn a_full_disk_is_an_answer_and_not_the_end() {
        let temp = tempfile::tempdir().unwrap();
        let hooks = Arc::new(FullOnce(true.into()));
        let space = Space::start(config(temp.path()), Vec::new(), hooks).unwrap();
        space.open_next(1).unwrap();
        let error = space.ensure(3 << 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        space.ensure(3 << 20).unwrap();
    }
}
