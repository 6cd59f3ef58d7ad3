//! The journal of a bookie: the only place where its data lives (R8, R9). Pure: bytes in, bytes and verdicts out.
//!
//! ```text
//! file:   | header block | group block | group block | ... | footer block | (old bytes or zeros)
//! block:  | fixed head 112 B | items 40 B each | payload | zeros to the next 4 KiB |
//! ```
//! One position space orders all: the log sequence number, [`Lsn`], in bytes. A block's lsn is its file's base lsn
//! plus its offset in the file; a file's base is not below the end of the file before it.
//!
//! `durable <= written <= sealed <= queued`: queued records wait in memory, sealed ones are in a block that was handed
//! to the disk, written blocks are complete on the disk, durable ones are fsynced and have no hole before them.

pub mod block;
pub mod files;
pub mod gc;
pub mod restart;
pub mod scan;
pub mod space;
pub mod storage;
pub mod superblock;
pub mod writer;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use esker_types::{ClusterId, EntryId, Epoch, InstanceId, PartitionId, SegmentId};

/// Everything in a journal file begins and ends on a multiple of this.
pub const ALIGN: u64 = 4096;

/// Rounds up to the next multiple of [`ALIGN`].
pub const fn align_up(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGN) * ALIGN
}

/// Position in the journal in bytes, over all files. Never goes back, also not over a restart.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.0)
    }
}

/// Whose journal this is. Part of every block, so that a foreign disk is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalIds {
    pub cluster: ClusterId,
    pub instance: InstanceId,
}

/// One life of a journal file. The uuid is new each time the space is recycled, and seeds every block's checksum:
/// what an earlier life left behind can't verify.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Order of the files, from 1.
    pub seq: u64,
    pub uuid: [u8; 16],
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:032x}.journal", self.seq, u128::from_be_bytes(self.uuid))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name is not that of a journal file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a journal file: 16 hex digits, \"-\", 32 hex digits, \".journal\"")]
pub struct BadFileName(pub String);

impl FromStr for FileId {
    type Err = BadFileName;
    /// Reads back what `Display` wrote: the file's name in the journal directory.
    fn from_str(name: &str) -> Result<Self, BadFileName> {
        let parse = || {
            let (seq, uuid) = name.strip_suffix(".journal")?.split_once('-')?;
            let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex(seq, 16) || !hex(uuid, 32) {
                return None;
            }
            let seq = u64::from_str_radix(seq, 16).ok()?;
            Some(Self { seq, uuid: u128::from_str_radix(uuid, 16).ok()?.to_be_bytes() })
        };
        parse().ok_or_else(|| BadFileName(name.chars().take(80).collect()))
    }
}

/// What is written to the journal, in the order in which it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// `crc` is that of `bytes`, checked when it came in.
    Entry { segment: SegmentId, entry: EntryId, crc: u32, bytes: Bytes },
    /// Nothing below `epoch` is taken for the partition any more.
    Fence { partition: PartitionId, epoch: Epoch },
    /// Damage was found while running: what the segment held is not known for sure any more.
    LimboSet { segment: SegmentId },
    /// The segment is CLOSED and all its `end` entries are held and verified.
    LimboCleared { segment: SegmentId, end: u64 },
    /// The bookie dropped its copy (R14): entries before this record do not count.
    Dropped { segment: SegmentId },
    /// Metadata says that the partition is gone for good: its fence may be forgotten.
    PartitionDeleted { partition: PartitionId },
}

impl Record {
    /// Bytes of payload that the record puts into a block.
    pub fn payload_len(&self) -> usize {
        match self {
            Record::Entry { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }
}

/// A record with its place in the queue. `seq` counts from 1 in each run of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    pub seq: u64,
    pub record: Record,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_round_trip() {
        let id = FileId { seq: 17, uuid: [0xab; 16] };
        assert_eq!(id.to_string().parse::<FileId>(), Ok(id));
        for bad in ["", "spare-1", "11-22.journal", "+000000000000001-000000000000000000000000000000ab.journal"] {
            assert!(bad.parse::<FileId>().is_err(), "{bad}");
        }
        assert_eq!((align_up(0), align_up(1), align_up(4096)), (0, 4096, 4096));
    }
}
