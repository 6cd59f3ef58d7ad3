use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What coordinators count. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct GroupMetrics {
    pub requests: Counter,
    pub refusals: Counter,
    pub coordinators: Gauge,
    pub groups: Gauge,
    pub state_bytes: Gauge,
    pub loads: Counter,
    pub load_seconds: Histogram,
    pub append_failures: Counter,
    pub snapshots: Counter,
}

impl GroupMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("esker_gateway_groups");
        let metrics = Self {
            requests: Counter::default(),
            refusals: Counter::default(),
            coordinators: Gauge::default(),
            groups: Gauge::default(),
            state_bytes: Gauge::default(),
            loads: Counter::default(),
            load_seconds: Histogram::new(exponential_buckets(500e-6, 2.0, 16)),
            append_failures: Counter::default(),
            snapshots: Counter::default(),
        };
        registry.register("requests", "Requests about consumer groups", metrics.requests.clone());
        registry.register("refusals", "Requests that no coordinator here could take", metrics.refusals.clone());
        registry.register("coordinators", "Coordinators that serve", metrics.coordinators.clone());
        registry.register("groups", "Groups of all coordinators here", metrics.groups.clone());
        registry.register("state_bytes", "Encoded state of all coordinators here", metrics.state_bytes.clone());
        registry.register("loads", "Logs read to the end", metrics.loads.clone());
        registry.register("load_seconds", "From the partition's readiness to serving", metrics.load_seconds.clone());
        registry.register(
            "append_failures",
            "Appends that failed: the state was read anew",
            metrics.append_failures.clone(),
        );
        registry.register("snapshots", "Snapshots completed", metrics.snapshots.clone());
        metrics
    }
}
