//! The superblock's file: replaced as a whole, so that it is always one that was written.

use std::io;
use std::path::{Path, PathBuf};

use esker_bookie_core::journal::Lsn;
use esker_bookie_core::journal::superblock::{SUPERBLOCK_LEN, Superblock};
use esker_types::BookieId;

use crate::cookie::Cookie;
use crate::disk::dir;

const NAME: &str = "superblock";

/// Where the superblock is, and the part of it that never changes.
#[derive(Clone, Debug)]
pub struct SuperblockFile {
    dir: PathBuf,
    cookie: Cookie,
}

impl SuperblockFile {
    pub fn new(dir: &Path, cookie: Cookie) -> Self {
        Self { dir: dir.to_owned(), cookie }
    }

    /// The superblock, if there is one that verifies and belongs to this directory. It is evidence of what was
    /// durable and never the only one, so a damaged one is passed over; the next file start writes it anew.
    pub fn read(&self) -> io::Result<Option<Superblock>> {
        let Some(bytes) = dir::read_file(&self.dir.join(NAME), SUPERBLOCK_LEN)? else { return Ok(None) };
        match Superblock::decode(&bytes) {
            Ok(block) if block.instance == self.cookie.instance && block.cluster == self.cookie.cluster => {
                Ok(Some(block))
            }
            Ok(block) => {
                let found = block.instance.to_string();
                tracing::warn!(found, "the superblock belongs to another instance: passed over");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "the superblock does not verify: passed over");
                Ok(None)
            }
        }
    }

    /// Durable when it returns.
    pub fn write(&self, bookie: BookieId, durable: Lsn, poisoned: bool) -> io::Result<()> {
        let block = Superblock {
            cluster: self.cookie.cluster,
            bookie,
            instance: self.cookie.instance,
            directory: self.cookie.directory.0,
            durable,
            poisoned,
        };
        dir::replace_file(&self.dir, NAME, &block.encode())
    }
}

#[cfg(test)]
mod tests {
    use esker_types::ClusterId;

    use super::*;

    #[test]
    fn only_our_own_counts() {
        let dir = tempfile::tempdir().unwrap();
        let ours = SuperblockFile::new(dir.path(), Cookie::fresh(ClusterId([1; 16]), [1; 32]));
        assert_eq!(ours.read().unwrap(), None);
        ours.write(BookieId(4), Lsn(4096), true).unwrap();
        let block = ours.read().unwrap().unwrap();
        assert_eq!((block.durable, block.poisoned, block.bookie), (Lsn(4096), true, BookieId(4)));
        let other = SuperblockFile::new(dir.path(), Cookie::fresh(ClusterId([1; 16]), [2; 32]));
        assert_eq!(other.read().unwrap(), None);
        std::fs::write(dir.path().join(NAME), b"nonsense").unwrap();
        assert_eq!(ours.read().unwrap(), None);
    }
}
