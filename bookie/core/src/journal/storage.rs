//! How the pure journal reads files: production's directory and the simulator's disk implement this.

use std::sync::Arc;

use bytes::Bytes;

use super::files::{Footer, FooterAt};
use super::scan::read_footer;
use super::{FileId, JournalIds};

/// A range could not be read: an IO error, or the file is gone or shorter. Treated like bytes that do not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't read {len} bytes at {offset} of {file}: {reason}")]
pub struct ReadFault {
    pub file: FileId,
    pub offset: u64,
    pub len: usize,
    pub reason: String,
}

/// Read access to the journal's files. Reads during a restart must see what is on the *disk* (direct IO or after an
/// fsync of the file): bytes that only the page cache holds are no evidence.
pub trait ReadAt {
    /// All files whose names are journal file names, with their lengths in bytes, in any order.
    fn files(&self) -> Vec<(FileId, u64)>;

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, ReadFault>;

    /// The index of a full file. Implementations may keep some of them in memory.
    fn footer(&self, ids: JournalIds, file: FileId, at: FooterAt) -> Option<Arc<Footer>> {
        read_footer(self, ids, file, at).map(Arc::new)
    }
}

impl<S: ReadAt + ?Sized> ReadAt for &S {
    fn files(&self) -> Vec<(FileId, u64)> {
        (**self).files()
    }

    fn read_at(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, ReadFault> {
        (**self).read_at(file, offset, len)
    }

    fn footer(&self, ids: JournalIds, file: FileId, at: FooterAt) -> Option<Arc<Footer>> {
        (**self).footer(ids, file, at)
    }
}

/// Reads a file front to back in large steps, whatever sizes are asked for.
pub(crate) struct Window<'a, S: ?Sized> {
    storage: &'a S,
    file: FileId,
    file_len: u64,
    start: u64,
    bytes: Bytes,
}

/// One read of a scan.
const WINDOW_BYTES: usize = 4 << 20;

impl<'a, S: ReadAt + ?Sized> Window<'a, S> {
    pub fn new(storage: &'a S, file: FileId, file_len: u64) -> Self {
        Self { storage, file, file_len, start: 0, bytes: Bytes::new() }
    }

    /// Exactly `len` bytes at `offset`, or none if they can't be read.
    pub fn get(&mut self, offset: u64, len: usize) -> Option<Bytes> {
        let end = offset.checked_add(len as u64)?;
        if end > self.file_len {
            return None;
        }
        let held = offset >= self.start && end <= self.start + self.bytes.len() as u64;
        if !held {
            let wanted = (self.file_len - offset).min(len.max(WINDOW_BYTES) as u64) as usize;
            // A bad sector must cost its own range, not the window: try again with just what is asked for.
            let read = self.storage.read_at(self.file, offset, wanted);
            let read = read.or_else(|_| self.storage.read_at(self.file, offset, len)).ok()?;
            (self.start, self.bytes) = (offset, read);
        }
        let from = (offset - self.start) as usize;
        (self.bytes.len() >= from + len).then(|| self.bytes.slice(from..from + len))
    }
}
