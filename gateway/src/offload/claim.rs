use std::time::Duration;

use esker_cache_core::claim::{Claim, Standing};

use super::{Bucket, RETRY_MIN};
use crate::gateway::Gateway;

/// Returns when the bucket is known to be this cluster's, at this incarnation. Until then nothing may be written.
pub(super) async fn claimed(gateway: &Gateway, bucket: &Bucket) {
    let mut pause = RETRY_MIN;
    let mut told = None;
    loop {
        let reason = match ours(gateway, bucket).await {
            Ok(()) => break,
            Err(reason) => reason,
        };
        // A reason is told once, however often it is met.
        if told.as_ref() != Some(&reason) {
            tracing::warn!(reason, "the bucket can't be used yet: segments stay on bookies");
            told = Some(reason);
        }
        gateway.metrics.offload_failures.inc();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(gateway.config.objects.retry_max.0.max(Duration::from_millis(1)));
    }
    tracing::info!(bucket = bucket.store.location().describe(), "closed segments go to the bucket");
}

/// Whether we may write and delete there, now.
pub(super) async fn ours(gateway: &Gateway, bucket: &Bucket) -> Result<(), String> {
    let incarnation = gateway.incarnation();
    let mine = Claim { cluster: bucket.cluster, incarnation, by: gateway.boot };
    let place = || bucket.store.location().describe();
    match bucket.store.claim(&mine).await {
        Ok(Standing::Ours) => Ok(()),
        Ok(Standing::Foreign(other)) => {
            Err(format!("{} belongs to cluster {other}: set objects.url to a prefix of this cluster's own", place()))
        }
        Ok(Standing::Superseded(newer)) => Err(format!(
            "this cluster was rebuilt from {} as incarnation {newer}: stop this one, which is incarnation {incarnation}",
            place()
        )),
        Ok(Standing::Unclaimed) => Err(format!("{} could not be claimed", place())),
        Err(error) => Err(error.to_string()),
    }
}
