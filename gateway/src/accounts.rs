//! What this gateway holds in memory, counted when somebody looks: a gauge for each part of it.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::gateway::Gateway;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

/// Holds the gateway weakly: the registry outlives it.
struct Accounts {
    gateway: Weak<Gateway>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}

/// Shows `esker_gateway_accounted_bytes{part}` from now on.
pub fn register(gateway: &Arc<Gateway>, registry: &mut Registry) {
    let accounts = Accounts { gateway: Arc::downgrade(gateway) };
    registry.sub_registry_with_prefix("esker_gateway").register_collector(Box::new(accounts));
}

/// Bytes by part. Metadata and partitions grow with what is live, never with the age of a log; the others have a budget.
fn parts(gateway: &Gateway) -> [(&'static str, usize); 6] {
    let metadata = gateway.view.read(esker_metadata_core::State::accounted_bytes);
    let partitions = gateway.handles.all().iter().map(|handle| handle.state_bytes()).sum();
    let appends = gateway.config.append.total_inflight.as_usize().saturating_sub(gateway.room.available_permits());
    let (blocks, index) = gateway.bucket.as_ref().map_or((0, 0), |bucket| bucket.memory());
    [
        ("metadata", usize::try_from(metadata).unwrap_or(usize::MAX)),
        ("partitions", partitions),
        ("appends", appends),
        ("tail-cache", gateway.tail.used()),
        ("block-cache", blocks),
        ("page-cache", index),
    ]
}

impl Collector for Accounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(gateway) = self.gateway.upgrade() else { return Ok(()) };
        let family = Family::<Part, Gauge>::default();
        for (part, bytes) in parts(&gateway) {
            family.get_or_create(&Part { part }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let help = "Memory in use: metadata (rows of the local copy), partitions (state of those owned), appends (batches \
                    under way), tail-cache, block-cache (of objects), page-cache (manifest pages and footers)";
        let metric = encoder.encode_descriptor("accounted_bytes", help, None, family.metric_type())?;
        family.encode(metric)
    }
}
