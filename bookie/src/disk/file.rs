//! One file: written at given positions, each write durable when it returns.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::aligned::PAGE;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For the journal writer: created if missing; a write is durable when it returns.
    WriteDurable,
    /// For filling with zeros: created if missing; durable after [`DiskFile::sync`].
    Write,
    /// For serving: through the page cache, so that neighbouring entries are read ahead.
    Read,
    /// For scans and scrubs: around the page cache, so that what is verified is what the disk holds, and so that
    /// a scrub pushes nothing out of memory.
    ReadDisk,
}

/// A file and how it is reached.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    path: PathBuf,
    direct: bool,
}

impl DiskFile {
    /// Opens `path`. `direct` asks for O_DIRECT; file systems that refuse it (tmpfs) get ordinary access.
    pub fn open(path: &Path, mode: OpenMode, direct: bool) -> io::Result<Self> {
        let direct = direct && mode != OpenMode::Read;
        match Self::open_with(path, mode, direct) {
            Err(e) if direct && e.kind() == io::ErrorKind::InvalidInput => Self::open_with(path, mode, false),
            other => other,
        }
    }

    fn open_with(path: &Path, mode: OpenMode, direct: bool) -> io::Result<Self> {
        let write = matches!(mode, OpenMode::WriteDurable | OpenMode::Write);
        let mut flags = OFlags::CLOEXEC;
        if direct {
            flags |= OFlags::DIRECT;
        }
        if mode == OpenMode::WriteDurable {
            flags |= OFlags::DSYNC;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(false)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        Ok(Self { file, path: path.to_owned(), direct })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// True if buffers must start at a page boundary.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Writes whole pages at a page boundary.
    ///
    /// # Panics
    /// When position or length are not multiples of a page: a bug of ours.
    pub fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(
            position.is_multiple_of(PAGE as u64) && bytes.len().is_multiple_of(PAGE),
            "journal writes are whole pages"
        );
        self.file.write_all_at(bytes, position)
    }

    /// Fills `buf` from `position`; returns how many bytes there were before the end of the file.
    pub fn read_at(&self, position: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], position + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            // With O_DIRECT a short read ends at the end of the file; going on at an odd position would be refused.
            if self.direct && !done.is_multiple_of(PAGE) {
                break;
            }
        }
        Ok(done)
    }

    /// Up to `len` bytes from `position`, fewer at the end of the file. Not for direct files, whose buffers must be
    /// aligned. The memory is not cleared first: these are the bytes of every read that is served.
    pub fn read_vec(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = position + bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room than was asked for.
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Makes the contents and the length durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts or extends the file.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::AlignedBuf;
    use super::*;

    #[test]
    fn pages_come_back_in_every_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for direct in [false, true] {
            let mut page = AlignedBuf::new(2 * PAGE);
            page.as_bytes_mut().fill(7);
            let file = DiskFile::open(&path, OpenMode::WriteDurable, direct).unwrap();
            file.write_at(PAGE as u64, page.as_bytes()).unwrap();
            for mode in [OpenMode::Read, OpenMode::ReadDisk] {
                let mut back = AlignedBuf::new(4 * PAGE);
                let file = DiskFile::open(&path, mode, direct).unwrap();
                assert_eq!(file.read_at(PAGE as u64, back.as_bytes_mut()).unwrap(), 2 * PAGE);
                assert_eq!(back.as_bytes()[..2 * PAGE], *page.as_bytes());
            }
        }
    }
}
