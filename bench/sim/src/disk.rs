//! A disk that fails the way disks do: unsynced sectors vanish at a power cut in any subset and order, writes get
//! lost or land elsewhere, bits rot, fsync fails, space runs out, and whole images go away, age or multiply.

use std::collections::BTreeMap;

use bytes::Bytes;
use esker_bookie_core::journal::FileId;
use esker_bookie_core::journal::storage::{ReadAt, ReadFault};

use crate::rng::Rng;

/// What a disk writes at once; a power cut tears writes between sectors, never inside one.
pub const SECTOR: usize = 512;

/// A write that no fsync covers yet: what stood there before, so that a power cut can take it back.
#[derive(Clone, Debug)]
struct Undo {
    write: u64,
    file: FileId,
    at: usize,
    before: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// The directory entry itself survives a power cut.
    linked: bool,
}

/// A write's fate other than being done, armed by the nemesis for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    Lost,
    Misdirected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// EIO. What the failed call covered may or may not be on the platter.
    Io,
    /// ENOSPC. Nothing was done.
    Full,
}

/// How a power cut treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// The process died, the machine did not: the page cache reaches the platter.
    ProcessOnly,
    AllLost,
    /// Each sector for itself.
    Random,
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<FileId, File>,
    undo: Vec<Undo>,
    unlinked: Vec<(FileId, File)>,
    writes: u64,
    /// Whose directory this is; a small file that is replaced as a whole.
    pub superblock: Option<Bytes>,
    /// Bytes that files may use together; none = no bound.
    pub capacity: Option<usize>,
    pub next_write: Option<WriteFault>,
    pub next_sync_fails: bool,
}

impl Disk {
    /// Makes a file of `len` bytes: zeros, or the old bytes of `recycled`, which goes away.
    pub fn create(&mut self, id: FileId, len: usize, recycled: Option<FileId>) -> Result<(), DiskError> {
        let old = recycled.and_then(|old| self.files.remove(&old));
        if old.is_none() && self.capacity.is_some_and(|capacity| self.used() + len > capacity) {
            return Err(DiskError::Full);
        }
        let mut bytes = old.map(|file| file.bytes).unwrap_or_default();
        bytes.resize(len, 0);
        self.files.insert(id, File { bytes, linked: false });
        Ok(())
    }

    pub fn used(&self) -> usize {
        self.files.values().map(|file| file.bytes.len()).sum()
    }

    pub fn exists(&self, id: FileId) -> bool {
        self.files.contains_key(&id)
    }

    pub fn file_ids(&self) -> Vec<FileId> {
        self.files.keys().copied().collect()
    }

    /// Whole content as a reader sees it now; empty if there is no such file.
    pub fn bytes(&self, id: FileId) -> &[u8] {
        self.files.get(&id).map_or(&[], |file| &file.bytes)
    }

    /// Hands a write to the disk. Returns its number, for [`Disk::sync`].
    pub fn write(&mut self, id: FileId, at: usize, bytes: &[u8], rng: &mut Rng) -> Result<u64, DiskError> {
        self.writes += 1;
        let mut at = at;
        match self.next_write.take() {
            Some(WriteFault::Lost) => return Ok(self.writes),
            Some(WriteFault::Misdirected) => at = self.elsewhere(id, at, bytes.len(), rng),
            None => {}
        }
        let Some(file) = self.files.get_mut(&id) else { return Err(DiskError::Io) };
        if file.bytes.len() < at + bytes.len() {
            file.bytes.resize(at + bytes.len(), 0);
        }
        let place = &mut file.bytes[at..at + bytes.len()];
        self.undo.push(Undo { write: self.writes, file: id, at, before: place.to_vec() });
        place.copy_from_slice(bytes);
        Ok(self.writes)
    }

    /// Another aligned place in the same file for a write that misses its own.
    fn elsewhere(&self, id: FileId, at: usize, len: usize, rng: &mut Rng) -> usize {
        let blocks = self.bytes(id).len().saturating_sub(len) / 4096 + 1;
        let other = rng.index(blocks) * 4096;
        if other == at { at + 4096 } else { other }
    }

    /// The write is complete and on the platter. After an error what it wrote may be there or not.
    pub fn sync(&mut self, write: u64) -> Result<(), DiskError> {
        if std::mem::take(&mut self.next_sync_fails) {
            return Err(DiskError::Io);
        }
        self.undo.retain(|undo| undo.write != write);
        Ok(())
    }

    pub fn sync_directory(&mut self) {
        self.files.values_mut().for_each(|file| file.linked = true);
        self.unlinked.clear();
    }

    pub fn unlink(&mut self, id: FileId) {
        if let Some(file) = self.files.remove(&id) {
            self.unlinked.push((id, file));
        }
    }

    /// Sectors written but not covered by any fsync.
    pub fn unsynced(&self) -> usize {
        self.undo.iter().map(|undo| undo.before.len().div_ceil(SECTOR)).sum()
    }

    /// The power goes, or only the process.
    pub fn cut(&mut self, how: PowerCut, rng: &mut Rng) {
        let undo = std::mem::take(&mut self.undo);
        let unlinked = std::mem::take(&mut self.unlinked);
        self.next_sync_fails = false;
        self.next_write = None;
        let back = |rng: &mut Rng| match how {
            PowerCut::ProcessOnly => false,
            PowerCut::AllLost => true,
            PowerCut::Random => rng.chance(500),
        };
        for undo in undo.iter().rev() {
            let Some(file) = self.files.get_mut(&undo.file) else { continue };
            for (i, before) in undo.before.chunks(SECTOR).enumerate() {
                if back(rng) {
                    let at = undo.at + i * SECTOR;
                    file.bytes[at..at + before.len()].copy_from_slice(before);
                }
            }
        }
        for (id, file) in unlinked {
            if back(rng) && file.linked {
                self.files.entry(id).or_insert(file);
            }
        }
        self.files.retain(|_, file| file.linked || !back(rng));
        self.files.values_mut().for_each(|file| file.linked = true);
    }

    /// Rot: one bit of one file turns over.
    pub fn flip(&mut self, id: FileId, byte: usize, bit: u8) {
        if let Some(byte) = self.files.get_mut(&id).and_then(|file| file.bytes.get_mut(byte)) {
            *byte ^= 1 << (bit & 7);
        }
    }

    /// The platter as it would look if power went now and took all that was not synced: an image to roll back to.
    pub fn image(&self) -> Self {
        let mut image = self.clone();
        image.cut(PowerCut::AllLost, &mut Rng::new(0));
        image
    }

    /// All files with their lengths.
    pub fn lengths(&self) -> Vec<(FileId, usize)> {
        self.files.iter().map(|(id, file)| (*id, file.bytes.len())).collect()
    }

    /// No fault is armed any more and there is room.
    pub fn heal(&mut self) {
        (self.capacity, self.next_write, self.next_sync_fails) = (None, None, false);
    }

    pub fn wipe(&mut self) {
        *self = Self { capacity: self.capacity, ..Self::default() };
    }
}

impl ReadAt for Disk {
    fn files(&self) -> Vec<(FileId, u64)> {
        self.files.iter().map(|(id, file)| (*id, file.bytes.len() as u64)).collect()
    }

    fn read_at(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, ReadFault> {
        let bytes = self.bytes(file);
        let from = (offset as usize).min(bytes.len());
        if !self.exists(file) {
            return Err(ReadFault { file, offset, len, reason: "no such file".into() });
        }
        Ok(Bytes::copy_from_slice(&bytes[from..(from + len).min(bytes.len())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> FileId {
        FileId { seq, uuid: [seq as u8; 16] }
    }

    fn disk() -> (Disk, Rng) {
        let mut disk = Disk::default();
        disk.create(id(1), 8192, None).expect("space");
        disk.sync_directory();
        (disk, Rng::new(7))
    }

    #[test]
    fn a_power_cut_takes_only_what_was_not_synced() {
        let (mut disk, mut rng) = disk();
        let first = disk.write(id(1), 0, &[1; 1024], &mut rng).expect("write");
        disk.write(id(1), 1024, &[2; 1024], &mut rng).expect("write");
        disk.sync(first).expect("sync");
        disk.cut(PowerCut::AllLost, &mut rng);
        assert_eq!((disk.bytes(id(1))[1023], disk.bytes(id(1))[1024]), (1, 0));
    }

    #[test]
    fn sectors_survive_one_by_one_and_unlinked_files_come_back() {
        let (mut disk, mut rng) = disk();
        disk.write(id(1), 0, &[1; 8192], &mut rng).expect("write");
        disk.create(id(2), 4096, None).expect("space");
        disk.unlink(id(1));
        disk.cut(PowerCut::AllLost, &mut rng);
        assert!(disk.exists(id(1)) && !disk.exists(id(2)));
        disk.write(id(1), 0, &[3; 8192], &mut rng).expect("write");
        disk.cut(PowerCut::Random, &mut rng);
        let kept = disk.bytes(id(1)).iter().filter(|b| **b == 3).count();
        assert!(kept > 0 && kept < 8192 && kept % SECTOR == 0);
    }

    #[test]
    fn armed_faults_strike_once() {
        let (mut disk, mut rng) = disk();
        disk.next_write = Some(WriteFault::Lost);
        disk.next_sync_fails = true;
        disk.write(id(1), 0, &[9; 512], &mut rng).expect("the caller sees success");
        assert_eq!(disk.bytes(id(1))[0], 0);
        assert_eq!(disk.sync(1), Err(DiskError::Io));
        assert_eq!(disk.sync(1), Ok(()));
        disk.capacity = Some(9000);
        assert_eq!(disk.create(id(3), 1000, None), Err(DiskError::Full));
    }
}
