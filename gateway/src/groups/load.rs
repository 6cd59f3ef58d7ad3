//! Reading the log into a new coordinator.

use std::sync::Arc;

use esker_gateway_core::groups::{Config, Coordinator, ReplayError};
use esker_types::Offset;
use esker_types::error::ErrorInfo;
use esker_wire::batch::{self, DecodeLimits};

use crate::gateway::Gateway;
use crate::partition::Handle;
use crate::read::{Chunk, ColdReader};
use crate::tail::CachedEntry;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Worth another try.
    #[error("{}", .0.message)]
    Read(ErrorInfo),
    /// Another try finds the same.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("a batch of the group log does not parse: {0}")]
    Batch(#[from] batch::BatchError),
}

/// Replays [from, to).
pub async fn load(
    gateway: &Arc<Gateway>,
    handle: &Arc<Handle>,
    config: Config,
    from: Offset,
    to: Offset,
) -> Result<Coordinator, LoadError> {
    let mut coordinator = Coordinator::new(config);
    let mut reader = ColdReader::new(gateway.clone(), handle.clone());
    let mut offset = from;
    while offset < to {
        match reader.read(offset).await.map_err(LoadError::Read)? {
            Chunk::Entries(entries) => {
                for entry in &entries {
                    replay(&mut coordinator, entry, from, to)?;
                    offset = entry.end_offset.max(offset);
                }
            }
            Chunk::Lost { from, to } => {
                tracing::warn!(partition = %handle.id, from, to, "records of consumer groups are lost for good");
                offset = to;
            }
            Chunk::End => break,
        }
    }
    Ok(coordinator)
}

fn replay(coordinator: &mut Coordinator, entry: &CachedEntry, from: Offset, to: Offset) -> Result<(), LoadError> {
    for batch in batch::split(entry.batches.clone(), false) {
        for record in batch?.records(DecodeLimits::default())? {
            let record = record?;
            if (from..to).contains(&record.offset) {
                coordinator.replay(record.key.as_deref().unwrap_or_default(), record.value.as_deref())?;
            }
        }
    }
    Ok(())
}
