//! The whole state in one piece of bytes.
//!
//! ```text
//! byte 0 magic "ESKM"   4 version u32   8 revision u64   16 wall i64   24 state hash u64
//!     32 rows, zstd: each a varint length and a protobuf `Change`      ... CRC-32C of all before, u32
//! ```
//! Little-endian. A snapshot that does not verify stops the node: it is never taken for an empty state (2.9).

use std::io::Read;

use esker_types::{WallMs, checksum};
use prost::Message;

use crate::change::Change;
use crate::state::State;
use crate::wire::{DecodeError, Wire};

/// Newest format that this build reads, and the one that it writes.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC: [u8; 4] = *b"ESKM";
const HEADER_LEN: usize = 32;
const CRC_LEN: usize = 4;
const ZSTD_LEVEL: i32 = 1;
/// One row: the largest is a topic with its list of partitions.
const ROW_LEN_MAX: usize = 16 << 20;

/// The bytes are not a whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("metadata snapshot is damaged ({0}): restore this node from its peers")]
    Damaged(&'static str),
    #[error("metadata snapshot has format {found}, this program knows up to {SNAPSHOT_VERSION}: upgrade this node")]
    Newer { found: u32 },
    #[error(transparent)]
    Row(#[from] DecodeError),
}

pub fn encode_snapshot(state: &State) -> Vec<u8> {
    let mut raw = Vec::new();
    for row in state.rows() {
        row.to_wire().encode_length_delimited(&mut raw).expect("a Vec grows");
    }
    let rows = zstd::bulk::compress(&raw, ZSTD_LEVEL).expect("zstd compresses from memory to memory");
    let mut out = Vec::with_capacity(HEADER_LEN + rows.len() + CRC_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
    out.extend_from_slice(&state.revision().to_le_bytes());
    out.extend_from_slice(&state.wall().0.to_le_bytes());
    out.extend_from_slice(&state.state_hash().to_le_bytes());
    out.extend_from_slice(&rows);
    let crc = checksum::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

pub fn decode_snapshot(bytes: &[u8]) -> Result<State, SnapshotError> {
    let Some((body, crc)) = bytes.split_last_chunk::<CRC_LEN>().filter(|(body, _)| body.len() >= HEADER_LEN) else {
        return Err(SnapshotError::Damaged("cut off"));
    };
    if body[..4] != MAGIC {
        return Err(SnapshotError::Damaged("not a snapshot"));
    }
    if checksum::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(SnapshotError::Damaged("checksum"));
    }
    let word = |at: usize| {
        let mut raw = [0u8; 8];
        raw.copy_from_slice(&body[at..at + 8]);
        u64::from_le_bytes(raw)
    };
    match (word(0) >> 32) as u32 {
        SNAPSHOT_VERSION => {}
        0 => return Err(SnapshotError::Damaged("version 0")),
        found => return Err(SnapshotError::Newer { found }),
    }
    let mut state = State::default();
    let mut rows =
        zstd::stream::read::Decoder::with_buffer(&body[HEADER_LEN..]).map_err(|_| SnapshotError::Damaged("zstd"))?;
    let mut row = Vec::new();
    while let Some(len) = read_length(&mut rows)? {
        if len > ROW_LEN_MAX {
            return Err(SnapshotError::Damaged("row too long"));
        }
        row.resize(len, 0);
        rows.read_exact(&mut row).map_err(|_| SnapshotError::Damaged("row cut off"))?;
        let proto = <Change as Wire>::Proto::decode(&row[..]).map_err(DecodeError::from)?;
        state.put(&Change::from_wire(proto)?);
    }
    state.advance(word(8), WallMs(word(16) as i64));
    match state.state_hash() == word(24) {
        true => Ok(state),
        false => Err(SnapshotError::Damaged("state hash")),
    }
}

/// A varint, or none at the end of the rows.
fn read_length(rows: &mut impl Read) -> Result<Option<usize>, SnapshotError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0u8; 1];
        match rows.read(&mut byte) {
            Ok(0) if shift == 0 => return Ok(None),
            Ok(1) => {}
            _ => return Err(SnapshotError::Damaged("zstd")),
        }
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(Some(usize::try_from(value).unwrap_or(usize::MAX)));
        }
    }
    Err(SnapshotError::Damaged("row length"))
}
