use esker_types::ErrorCode;
use esker_types::error::ErrorInfo;
use esker_wire::native::{SweepBucket, SweptBucket};

use super::allow;
use crate::auth::Action;
use crate::door::Client;
use crate::offload::sweep_page;

/// One page of names; the client asks for the next.
pub async fn sweep(client: &Client, request: SweepBucket) -> Result<SweptBucket, ErrorInfo> {
    allow(client, Action::AdministerCluster)?;
    let gateway = &client.gateway;
    let Some(bucket) = &gateway.bucket else {
        let message = "this cluster has no bucket: set objects.url";
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, message));
    };
    let after = Some(request.after.as_str()).filter(|after| !after.is_empty());
    let swept = sweep_page(gateway, bucket, "", after, request.dry_run).await;
    let swept = swept.map_err(|reason| ErrorInfo::new(ErrorCode::Internal, reason))?;
    Ok(SweptBucket {
        listed: swept.listed,
        listed_bytes: swept.listed_bytes,
        leaked: swept.leaked,
        leaked_bytes: swept.leaked_bytes,
        names: swept.names,
        next: swept.next.unwrap_or_default(),
    })
}
