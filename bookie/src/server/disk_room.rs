//! How much of the disk is left, and what is still taken at that.

use std::io;
use std::path::PathBuf;

use esker_bookie_core::journal::space::{SpaceLevel, SpaceMarks};
use parking_lot::Mutex;

use crate::config::{Config, DiskConfig};
use crate::disk::{JournalFiles, Listing, dir};

/// As measured last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes that journal files take up, or will when they are full.
    pub used: u64,
    /// Bytes for further files.
    pub free: u64,
    pub files: u64,
    pub level: SpaceLevel,
}

pub(super) struct DiskRoom {
    dir: PathBuf,
    file_bytes: u64,
    budget: u64,
    marks: SpaceMarks,
    last: Mutex<Usage>,
}

impl DiskRoom {
    pub fn new(config: &Config) -> Self {
        let file_bytes = config.journal.file_bytes.0;
        let marks = marks(&config.disk, file_bytes);
        let budget = config.disk.budget.0;
        Self { dir: config.data_dir.clone(), file_bytes, budget, marks, last: Mutex::default() }
    }

    /// Looks at the directory and the file system.
    pub fn measure(&self) -> io::Result<Usage> {
        let Listing { files, spares } = JournalFiles::list(&self.dir)?;
        let used: u64 = files.iter().map(|(_, len)| (*len).max(self.file_bytes)).sum();
        // What files in use will still grow by is not free; what spares hold is.
        let growth: u64 = files.iter().map(|(_, len)| self.file_bytes.saturating_sub(*len)).sum();
        let spare: u64 = spares.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|meta| meta.len()).sum();
        let on_disk = (dir::free_bytes(&self.dir)? + spare).saturating_sub(growth);
        let free = if self.budget == 0 { on_disk } else { on_disk.min(self.budget.saturating_sub(used)) };
        let usage = Usage { used, free, files: files.len() as u64, level: self.marks.level(free) };
        *self.last.lock() = usage;
        Ok(usage)
    }

    pub fn usage(&self) -> Usage {
        *self.last.lock()
    }
}

/// ADDs stop at the reserve, recoveries at three quarters of it, copies of the garbage collection at half; the rest is
/// for fences. Never less than 4, 3 and 2 files.
fn marks(disk: &DiskConfig, file_bytes: u64) -> SpaceMarks {
    let least = SpaceMarks::for_files(file_bytes);
    let reserve = disk.reserve.0;
    SpaceMarks {
        add: least.add.max(reserve),
        recovery: least.recovery.max(reserve / 4 * 3),
        copies: least.copies.max(reserve / 2),
    }
}

#[cfg(test)]
mod tests {
    use esker_bookie_core::journal::FileId;
    use esker_types::ByteCount;

    use super::*;

    #[test]
    fn a_budget_is_used_up_file_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        config.journal.file_bytes = ByteCount::mib(1);
        config.disk = DiskConfig { budget: ByteCount::mib(6), reserve: ByteCount(0) };
        let room = DiskRoom::new(&config);
        let mut levels = Vec::new();
        for seq in 1..=6 {
            let file = FileId { seq, uuid: [0; 16] };
            std::fs::write(dir.path().join(file.to_string()), b"short").unwrap();
            levels.push(room.measure().unwrap().level);
        }
        use SpaceLevel::*;
        assert_eq!(levels, [All, All, NoAdds, NoRecovery, FencesOnly, FencesOnly]);
        assert_eq!(room.usage().free, 0);
    }
}
