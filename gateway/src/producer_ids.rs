//! Producer ids for clients, from blocks that metadata reserves for this gateway.

use esker_metadata_client::{MetadataStore, ProposeError};
use esker_metadata_core::{AllocProducerIds, Command, Reply};
use esker_types::ErrorCode;
use esker_types::error::ErrorInfo;

/// Ids taken at a time. What a gateway has not given out when it ends is lost, which costs nothing.
const BLOCK: u32 = 1_000;

/// Ids `next..end` are ours to give out.
#[derive(Default)]
pub struct ProducerIds {
    // A lock that may be held across an await: one request for a block serves all who wait.
    block: tokio::sync::Mutex<(u64, u64)>,
}

impl ProducerIds {
    pub async fn next(&self, store: &dyn MetadataStore) -> Result<u64, ErrorInfo> {
        let mut block = self.block.lock().await;
        if block.0 == block.1 {
            *block = reserve(store).await?;
        }
        block.0 += 1;
        Ok(block.0 - 1)
    }
}

async fn reserve(store: &dyn MetadataStore) -> Result<(u64, u64), ErrorInfo> {
    let unavailable = |reason: String| ErrorInfo::new(ErrorCode::MetadataUnavailable, reason);
    match store.propose(vec![Command::AllocProducerIds(AllocProducerIds { count: BLOCK })]).await {
        Ok(proposed) => match proposed.single() {
            Ok(Reply::ProducerIds(ids)) => Ok((ids.first.0, ids.first.0 + u64::from(ids.count))),
            Ok(_) => Err(ErrorInfo::new(ErrorCode::Internal, "metadata answered with something else")),
            Err(reject) => Err(ErrorInfo::new(reject.code, reject.reason)),
        },
        // A block that was reserved without our knowledge is lost, which costs nothing: the client asks again.
        Err(ProposeError::NotApplied(reason) | ProposeError::Unknown(reason)) => Err(unavailable(reason)),
    }
}
