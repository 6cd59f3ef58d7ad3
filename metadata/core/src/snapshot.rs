//! The state in one piece of bytes.

use crate::state::State;
use crate::wire::DecodeError;

pub const SNAPSHOT_VERSION: u32 = 1;

/// The bytes are not a whole snapshot. Never taken for an empty state.
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
    let _ = state;
    Vec::new()
}

pub fn decode_snapshot(bytes: &[u8]) -> Result<State, SnapshotError> {
    let _ = bytes;
    Err(SnapshotError::Damaged("empty"))
}
