//! Puts blocks on the disk: one aligned copy, one write, durable when it returns.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_bookie_core::journal::FileId;
use esker_bookie_core::journal::block::BlockWrite;

use crate::disk::{AlignedBuf, DiskFile, DiskHooks, Space};
use crate::metrics::Metrics;

/// Pause between two tries to get room on a full disk.
const ROOM_RETRY: Duration = Duration::from_millis(100);

/// The files that the journal writes to. Owned by the journal's thread.
pub struct Output {
    space: Arc<Space>,
    hooks: Arc<dyn DiskHooks>,
    metrics: Metrics,
    /// Files that are ready, oldest first: the one being written and the next.
    files: VecDeque<(FileId, DiskFile)>,
    buffer: AlignedBuf,
}

impl Output {
    /// `group_bytes`: what one write holds as a rule; a larger block gets a larger buffer.
    pub fn new(space: Arc<Space>, hooks: Arc<dyn DiskHooks>, metrics: Metrics, group_bytes: usize) -> Self {
        Self { space, hooks, metrics, files: VecDeque::new(), buffer: AlignedBuf::new(group_bytes) }
    }

    pub fn add_file(&mut self, id: FileId, file: DiskFile) {
        self.files.push_back((id, file));
    }

    /// Writes blocks that follow each other in one file. All of them are durable when it returns `Ok`.
    ///
    /// # Errors
    /// Nothing may be acknowledged any more, and nothing may be tried again (R9b).
    pub fn write(&mut self, blocks: &[BlockWrite]) -> io::Result<()> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let (id, offset, end) = (first.file(), first.offset(), last.head.end());
        let len = (end - offset) as usize;
        assert!(blocks.windows(2).all(|pair| pair[0].head.end() == pair[1].offset()), "blocks of one write adjoin");
        assert!(last.file() == id, "blocks of one write are in one file");
        while self.files.front().is_some_and(|(file, _)| file.seq < id.seq) {
            self.files.pop_front();
        }
        self.room(id, end)?;
        if len > self.buffer.capacity() {
            self.buffer = AlignedBuf::new(len);
        }
        let out = &mut self.buffer.as_bytes_mut()[..len];
        let mut at = 0;
        for block in blocks {
            block.copy_to(&mut out[at..at + block.len()]);
            at += block.len();
        }
        let Some((_, file)) = self.files.front().filter(|(file, _)| *file == id) else {
            return Err(io::Error::other(format!("journal file {id} is not open")));
        };
        let began = Instant::now();
        self.hooks.before_write(file.path(), offset, len)?;
        file.write_at(offset, out)?;
        self.hooks.before_sync(file.path())?;
        self.metrics.group_written(len as u64, began.elapsed());
        Ok(())
    }

    /// Waits for prepared space. A full disk is waited out: what was decided can't be taken back, and somebody may
    /// free space. Admission keeps it from coming to that.
    fn room(&self, id: FileId, end: u64) -> io::Result<()> {
        loop {
            match self.space.ensure(id, end) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    tracing::warn!(file = %id, "the disk is full: the journal waits for space");
                    std::thread::sleep(ROOM_RETRY);
                    self.space.retry();
                }
                Err(error) => return Err(error),
            }
        }
    }
}
