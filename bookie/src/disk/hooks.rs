//! What happens around the system calls that decide about data. Production uses [`RealDisk`].

use std::io;
use std::path::Path;

/// Called before writes and syncs, and when the disk can no longer be trusted. Tests inject failures here.
pub trait DiskHooks: Send + Sync + 'static {
    /// An error is taken for the outcome of the write, which is then not made.
    fn before_write(&self, path: &Path, position: u64, len: usize) -> io::Result<()> {
        let _ = (path, position, len);
        Ok(())
    }

    /// An error is taken for the outcome of the sync, which is then not made.
    fn before_sync(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Ok(())
    }

    /// Before zeros are written to make room in a file. `StorageFull` means that there is none now.
    fn before_fill(&self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        let _ = (path, from, to);
        Ok(())
    }

    /// A write or an fsync failed (R9b). Nothing is acknowledged any more; the process must end, because the kernel
    /// may have dropped the dirty pages and would report the next fsync as a success.
    fn poisoned(&self, reason: &str);
}

/// The real disk, and the end of the process when it fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl DiskHooks for RealDisk {
    fn poisoned(&self, reason: &str) {
        tracing::error!(reason, "the journal's disk failed: stopping at once, nothing more is acknowledged");
        std::process::abort();
    }
}
