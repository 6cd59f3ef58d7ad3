//! Directories: every name that appears, changes or goes is fsynced before anything relies on it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Makes the names in `dir` durable.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and its missing parents, durably.
pub fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        create(parent)?;
        std::fs::create_dir(dir).or_else(|e| if dir.is_dir() { Ok(()) } else { Err(e) })?;
        return sync(parent);
    }
    std::fs::create_dir(dir).or_else(|e| if dir.is_dir() { Ok(()) } else { Err(e) })?;
    sync(Path::new("."))
}

/// Replaces `dir/name` as a whole: after a crash it holds the old bytes or the new ones, never a mixture.
pub fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = dir.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temp, dir.join(name))?;
    sync(dir)
}

/// The file's bytes, none if there is no such file. At most `limit` bytes are read: a longer file is not ours.
pub fn read_file(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Held while the process lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory for this process. `Ok(None)`: another process has it.
    pub fn acquire(dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Free bytes on the file system that holds `dir`, for unprivileged users.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_per_directory_and_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        create(&nested).unwrap();
        let lock = Lock::acquire(&nested).unwrap();
        assert!(lock.is_some());
        assert!(Lock::acquire(&nested).unwrap().is_none());
        drop(lock);
        assert!(Lock::acquire(&nested).unwrap().is_some());
        replace_file(&nested, "x", b"one").unwrap();
        replace_file(&nested, "x", b"two").unwrap();
        assert_eq!(read_file(&nested.join("x"), 3).unwrap().as_deref(), Some(&b"two"[..]));
        assert!(read_file(&nested.join("x"), 2).is_err());
        assert_eq!(read_file(&nested.join("y"), 2).unwrap(), None);
        assert!(free_bytes(&nested).unwrap() > 0);
    }
}
