//! The journal directory as the pure journal sees it: files by id, bytes by position.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use esker_bookie_core::journal::files::{Footer, FooterAt};
use esker_bookie_core::journal::scan::read_footer;
use esker_bookie_core::journal::storage::{ReadAt, ReadFault};
use esker_bookie_core::journal::{FileId, JournalIds};
use parking_lot::Mutex;

use super::footers::Footers;
use super::{AlignedBuf, DiskFile, OpenMode, PAGE};

/// Reads from the journal's files. Clones share the open files.
#[derive(Clone)]
pub struct JournalFiles {
    inner: Arc<Inner>,
}

/// What a data directory has of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// With their lengths in bytes, in order.
    pub files: Vec<(FileId, u64)>,
    /// Files that wait for reuse; contents are of no interest.
    pub spares: Vec<PathBuf>,
}

struct Inner {
    dir: PathBuf,
    mode: OpenMode,
    direct: bool,
    /// Bounded by the number of files in the journal; [`JournalFiles::forget`] takes out what is freed.
    open: Mutex<BTreeMap<FileId, Arc<DiskFile>>>,
    footers: Mutex<Footers>,
}

impl JournalFiles {
    /// For answering reads: through the page cache, with up to `index_bytes` of footers in memory.
    pub fn for_serving(dir: &Path, index_bytes: usize) -> Self {
        Self::new(dir, OpenMode::Read, false, index_bytes)
    }

    /// For restarts and scrubs: what the disk holds, not what memory remembers.
    pub fn for_verifying(dir: &Path, direct: bool) -> Self {
        Self::new(dir, OpenMode::ReadDisk, direct, 0)
    }

    fn new(dir: &Path, mode: OpenMode, direct: bool, index_bytes: usize) -> Self {
        let (open, footers) = (Mutex::default(), Mutex::new(Footers::new(index_bytes)));
        Self { inner: Arc::new(Inner { dir: dir.to_owned(), mode, direct, open, footers }) }
    }

    pub fn path(&self, file: FileId) -> PathBuf {
        self.inner.dir.join(file.to_string())
    }

    /// The same files with the names as they were listed: a directory that can't be read later must not look empty.
    pub fn listed(&self, files: Vec<(FileId, u64)>) -> ListedFiles {
        ListedFiles { files, storage: self.clone() }
    }

    /// Closes a file that is about to be freed. A read that holds it already ends well: the bytes are still there
    /// until the space is used again, and then they do not verify.
    pub fn forget(&self, file: FileId) {
        self.inner.open.lock().remove(&file);
        self.inner.footers.lock().forget(file);
    }

    /// The names in the directory that are journal files, and those that are spares or left over.
    pub fn list(dir: &Path) -> io::Result<Listing> {
        let Listing { mut files, mut spares } = Listing::default();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Ok(file) = name.parse::<FileId>() {
                match entry.metadata() {
                    Ok(meta) => files.push((file, meta.len())),
                    // Freed since the directory was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            } else if name.starts_with("spare-") {
                spares.push(entry.path());
            }
        }
        files.sort_unstable();
        Ok(Listing { files, spares })
    }

    fn open(&self, file: FileId) -> io::Result<Arc<DiskFile>> {
        if let Some(open) = self.inner.open.lock().get(&file) {
            return Ok(open.clone());
        }
        let opened = Arc::new(DiskFile::open(&self.path(file), self.inner.mode, self.inner.direct)?);
        self.inner.open.lock().insert(file, opened.clone());
        Ok(opened)
    }

    fn read(&self, file: FileId, offset: u64, len: usize) -> io::Result<Bytes> {
        let open = self.open(file)?;
        if !open.is_direct() {
            return Ok(open.read_vec(offset, len)?.into());
        }
        // Direct reads begin and end on pages; the answer is a view into the pages read.
        let skip = (offset % PAGE as u64) as usize;
        let mut pages = AlignedBuf::new(skip + len);
        let got = open.read_at(offset - skip as u64, pages.as_bytes_mut())?;
        Ok(Bytes::from_owner(pages).slice(skip.min(got)..(skip + len).min(got)))
    }
}

impl ReadAt for JournalFiles {
    fn files(&self) -> Vec<(FileId, u64)> {
        Self::list(&self.inner.dir).map(|listing| listing.files).unwrap_or_default()
    }

    fn read_at(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, ReadFault> {
        self.read(file, offset, len).map_err(|error| ReadFault { file, offset, len, reason: error.to_string() })
    }

    fn footer(&self, ids: JournalIds, file: FileId, at: FooterAt) -> Option<Arc<Footer>> {
        if let Some(footer) = self.inner.footers.lock().find(file) {
            return Some(footer);
        }
        // Read outside the lock: two readers may both do it, and one copy is kept.
        let footer = Arc::new(read_footer(self, ids, file, at)?);
        self.inner.footers.lock().keep(file, footer.clone());
        Some(footer)
    }
}

/// See [`JournalFiles::listed`].
pub struct ListedFiles {
    files: Vec<(FileId, u64)>,
    storage: JournalFiles,
}

impl ReadAt for ListedFiles {
    fn files(&self) -> Vec<(FileId, u64)> {
        self.files.clone()
    }

    fn read_at(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, ReadFault> {
        self.storage.read_at(file, offset, len)
    }

    fn footer(&self, ids: JournalIds, file: FileId, at: FooterAt) -> Option<Arc<Footer>> {
        self.storage.footer(ids, file, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_positions_read_alike_in_both_modes() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileId { seq: 3, uuid: [7; 16] };
        let bytes: Vec<u8> = (0..3 * PAGE).map(|i| (i / 7) as u8).collect();
        std::fs::write(dir.path().join(file.to_string()), &bytes).unwrap();
        std::fs::write(dir.path().join("spare-00000001"), b"").unwrap();
        for files in [JournalFiles::for_serving(dir.path(), 0), JournalFiles::for_verifying(dir.path(), true)] {
            assert_eq!(files.files(), [(file, 3 * PAGE as u64)]);
            for (offset, len) in [(0, 10), (4090, 20), (5, 3 * PAGE), (3 * PAGE - 1, 10), (4 * PAGE, 5)] {
                let end = bytes.len().min(offset + len);
                let expected = bytes.get(offset..end).unwrap_or_default();
                assert_eq!(files.read_at(file, offset as u64, len).unwrap(), expected, "{offset} {len}");
            }
        }
        assert_eq!(JournalFiles::list(dir.path()).unwrap().spares.len(), 1);
        let missing = FileId { seq: 4, uuid: [7; 16] };
        assert!(JournalFiles::for_serving(dir.path(), 0).read_at(missing, 0, 1).is_err());
    }
}
