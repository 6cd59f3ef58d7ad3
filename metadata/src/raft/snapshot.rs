//! Snapshot files.
//!
//! ```text
//! magic u32 | version u32 | meta length u32 | body length u64 | meta (protobuf) | body (the state) | crc32c u32
//! ```
//! Little-endian; the CRC covers everything before it. Written under another name, fsynced, renamed, and the directory
//! fsynced: a file with the right name is whole, unless the disk damaged it. The newest two are kept.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use esker_metadata_core::{State, decode_snapshot, encode_snapshot};
use esker_types::checksum::crc32c;
use prost::Message;

use super::SnapshotMeta;
use super::codec::SnapshotMetaRecord;
use crate::error::StartError;

const MAGIC: u32 = 0x4d4b_5345; // "ESKM"
const VERSION: u32 = 1;
const HEAD: usize = 20;
const KEEP: usize = 2;
const SUFFIX: &str = ".snapshot";
const INCOMING: &str = "incoming.tmp";
const WRITING: &str = "writing.tmp";

/// A snapshot on disk: one of ours, or one that is being received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    pub path: PathBuf,
}

/// The file is not a whole snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("damaged ({0})")]
    Damaged(&'static str),
    #[error("written by a newer version ({0}): upgrade this node")]
    Newer(u32),
    #[error("{0}")]
    State(#[from] esker_metadata_core::SnapshotError),
}

/// The snapshots of one node.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    path: PathBuf,
}

impl SnapshotDir {
    /// Makes the directory if need be and clears what a crash left half-written.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        for leftover in [INCOMING, WRITING] {
            match fs::remove_file(path.join(leftover)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(Self { path })
    }

    /// Where a snapshot from the leader is gathered. One at a time.
    pub fn incoming(&self) -> SnapshotFile {
        SnapshotFile { path: self.path.join(INCOMING) }
    }

    /// Oldest first.
    pub fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest snapshot, if there is one. A damaged one stops the node: the older one is behind what this node has
    /// promised, and an empty state is further behind still.
    pub fn load(&self) -> Result<Option<(SnapshotMeta, State, SnapshotFile)>, StartError> {
        let fail = |path: &Path, reason: String| StartError::Snapshot { path: path.to_owned(), reason };
        let found = self.list().map_err(|error| fail(&self.path, error.to_string()))?;
        let Some(path) = found.into_iter().next_back() else { return Ok(None) };
        let file = SnapshotFile { path };
        match file.read() {
            Ok((meta, state)) => Ok(Some((meta, state, file))),
            Err(fault) => Err(fail(&file.path, fault.to_string())),
        }
    }

    /// Writes a snapshot; at return it is durable under its name.
    pub fn save(&self, meta: &SnapshotMeta, state: &State) -> io::Result<SnapshotFile> {
        let record = SnapshotMetaRecord::from(meta).encode_to_vec();
        let body = encode_snapshot(state);
        let mut head = Vec::with_capacity(HEAD + record.len());
        head.extend_from_slice(&MAGIC.to_le_bytes());
        head.extend_from_slice(&VERSION.to_le_bytes());
        let meta_len = u32::try_from(record.len()).map_err(io::Error::other)?;
        head.extend_from_slice(&meta_len.to_le_bytes());
        head.extend_from_slice(&(body.len() as u64).to_le_bytes());
        head.extend_from_slice(&record);
        let crc = esker_types::checksum::crc32c_parts([head.as_slice(), &body]);
        let writing = self.path.join(WRITING);
        let mut file = File::create(&writing)?;
        file.write_all(&head)?;
        file.write_all(&body)?;
        file.write_all(&crc.to_le_bytes())?;
        file.sync_all()?;
        let path = self.path.join(file_name(meta));
        fs::rename(&writing, &path)?;
        self.sync()?;
        self.prune()?;
        Ok(SnapshotFile { path })
    }

    fn prune(&self) -> io::Result<()> {
        let found = self.list()?;
        for path in found.iter().take(found.len().saturating_sub(KEEP)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Sorts by the log position that the snapshot covers.
fn file_name(meta: &SnapshotMeta) -> String {
    let last = meta.last_log_id.unwrap_or_default();
    let index = meta.last_log_id.map_or(0, |id| id.index + 1);
    format!("{index:020}-{:010}-{:016x}{SUFFIX}", last.leader_id.term, last.leader_id.node_id)
}

impl SnapshotFile {
    pub fn read(&self) -> Result<(SnapshotMeta, State), SnapshotFault> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.read_to_end(&mut bytes)?;
        parse(&bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<(SnapshotMeta, State), SnapshotFault> {
    let Some((covered, crc)) = bytes.split_last_chunk::<4>() else { return Err(SnapshotFault::Damaged("cut off")) };
    let Some((head, rest)) = covered.split_first_chunk::<HEAD>() else {
        return Err(SnapshotFault::Damaged("cut off"));
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(0) != MAGIC {
        return Err(SnapshotFault::Damaged("not a snapshot"));
    }
    if crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(SnapshotFault::Damaged("checksum"));
    }
    if word(4) > VERSION {
        return Err(SnapshotFault::Newer(word(4)));
    }
    let body_len = u64::from(word(12)) | u64::from(word(16)) << 32;
    let Some((meta, body)) = rest.split_at_checked(word(8) as usize) else {
        return Err(SnapshotFault::Damaged("lengths"));
    };
    if body.len() as u64 != body_len {
        return Err(SnapshotFault::Damaged("lengths"));
    }
    let meta = SnapshotMetaRecord::decode(meta).map_err(|_| SnapshotFault::Damaged("description"))?;
    Ok((meta.into(), decode_snapshot(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::LogId;

    fn meta(index: u64) -> SnapshotMeta {
        let last = LogId::new(openraft::CommittedLeaderId::new(1, 5), index);
        SnapshotMeta { last_log_id: Some(last), snapshot_id: index.to_string(), ..SnapshotMeta::default() }
    }

    #[test]
    fn the_newest_is_loaded_and_two_are_kept() {
        let temp = tempfile::tempdir().expect("temp");
        let dir = SnapshotDir::open(temp.path().to_owned()).expect("open");
        assert!(dir.load().expect("empty").is_none());
        for index in [3, 20, 100] {
            dir.save(&meta(index), &State::default()).expect("saved");
        }
        assert_eq!(dir.list().expect("list").len(), KEEP);
        let (loaded, state, _) = dir.load().expect("good").expect("there");
        assert_eq!((loaded, state.revision()), (meta(100), 0));
    }

    #[test]
    fn any_damage_is_seen_and_never_an_empty_state() {
        let temp = tempfile::tempdir().expect("temp");
        let dir = SnapshotDir::open(temp.path().to_owned()).expect("open");
        let file = dir.save(&meta(7), &State::default()).expect("saved");
        let good = fs::read(&file.path).expect("read");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        fs::write(&file.path, &good[..good.len() - 1]).expect("write");
        let error = dir.load().expect_err("damaged").to_string();
        assert!(error.contains("snapshot") && !error.contains('\n'), "{error}");
    }
}
