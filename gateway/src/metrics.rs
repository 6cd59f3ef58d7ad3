//! What a gateway counts. One function or field per observation; names end in their unit.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Clones count into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub partitions: Gauge,
    pub connections: Gauge,
    pub connections_refused: Counter,
    pub streams: Gauge,
    pub bad_frames: Counter,
    pub kafka_connections: Gauge,
    pub kafka_connections_refused: Counter,
    pub kafka_requests: Counter,
    pub kafka_bad_requests: Counter,
    pub kafka_inflight_bytes: Gauge,
    pub kafka_fetch_bytes: Gauge,
    pub kafka_sent_near: Counter,
    pub kafka_near_bytes: Counter,
    pub appended_bytes: Counter,
    pub appended_entries: Counter,
    pub appends: Counter,
    pub recompressed_bytes: Counter,
    pub append_errors: Counter,
    pub append_timeouts: Counter,
    pub append_seconds: Histogram,
    pub read_bytes: Counter,
    pub tail_hits: Counter,
    pub tail_misses: Counter,
    pub tail_bytes: Gauge,
    pub bookie_reads: Counter,
    pub bookie_read_failures: Counter,
    pub moves: Counter,
    pub move_seconds: Histogram,
    pub sessions_lost: Counter,
    pub alarms: Counter,
    pub offloaded_bytes: Counter,
    pub offload_failures: Counter,
    pub offload_backlog_segments: Gauge,
    pub offload_backlog_bytes: Gauge,
    pub offload_backlog_age_seconds: Gauge,
    pub offload_waiting_segments: Gauge,
    pub shared_objects: Counter,
    pub shared_segments: Counter,
    pub throttled_ms: Counter,
    pub objects_deleted: Counter,
    pub objects_swept: Counter,
    pub object_reads: Counter,
    pub object_read_failures: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("esker_gateway");
        let metrics = Self::unregistered();
        macro_rules! add {
            ($($field:ident $name:literal $help:literal;)*) => { $(registry.register($name, $help, metrics.$field.clone());)* };
        }
        add! {
            partitions "partitions" "Partitions that this gateway was given";
            connections "quic_connections" "Open client connections";
            connections_refused "quic_connections_refused" "Connections refused: too many, or no Hello in time";
            streams "quic_streams" "Open client streams";
            bad_frames "bad_frames" "Streams ended because of bytes that are not the protocol";
            kafka_connections "kafka_connections" "Open connections of Kafka clients";
            kafka_connections_refused "kafka_connections_refused" "Kafka connections refused: too many, in all or from one address";
            kafka_requests "kafka_requests" "Requests of Kafka clients";
            kafka_bad_requests "kafka_bad_requests" "Kafka connections closed because of bytes that are not the protocol, or that came too slowly";
            kafka_inflight_bytes "kafka_inflight_bytes" "Bytes of Kafka requests above 64 KiB that are not answered yet (bound: kafka.total-inflight)";
            kafka_fetch_bytes "kafka_fetch_bytes" "Record bytes in answers to fetches that are not sent yet (bound: kafka.fetch-total)";
            kafka_sent_near "kafka_sent_near" "Partitions of fetches whose client was sent to a gateway in its zone";
            kafka_near_bytes "kafka_near_bytes" "Record bytes of other gateways' partitions served to Kafka clients in this gateway's zone";
            appended_bytes "appended_bytes" "Bytes of record batches acknowledged by an ack quorum";
            appended_entries "appended_entries" "Entries acknowledged by an ack quorum";
            appends "appends" "Batches taken from producers";
            recompressed_bytes "recompressed_bytes" "Bytes of batches that were compressed anew because of their topic's compression.type";
            append_errors "append_errors" "Batches refused or failed";
            append_timeouts "append_timeouts" "Batches answered with unknown outcome after append.timeout";
            append_seconds "append_seconds" "From a batch's arrival to its answer";
            read_bytes "read_bytes" "Bytes of record batches sent to readers";
            tail_hits "tail_cache_hits" "Pushes served from the tail cache";
            tail_misses "tail_cache_misses" "Pushes that went to bookies";
            tail_bytes "tail_cache_bytes" "Bytes held by the tail cache";
            bookie_reads "bookie_reads" "Reads from bookies for clients";
            bookie_read_failures "bookie_read_failures" "Reads that no bookie could serve";
            moves "moves" "Partitions handed over on request";
            move_seconds "move_seconds" "From the freeze of a partition until its new owner was ready";
            sessions_lost "sessions_lost" "Sessions that ended while this process lived";
            alarms "alarms" "Partitions that asked for an operator";
            offloaded_bytes "offloaded_bytes" "Bytes of objects written to the bucket";
            offload_failures "offload_failures" "Steps of the object tier that failed and are tried again";
            offload_backlog_segments "offload_backlog_segments" "Closed segments that are not in the bucket yet";
            offload_backlog_bytes "offload_backlog_bytes" "Bytes of closed segments that are not in the bucket yet";
            offload_backlog_age_seconds "offload_backlog_age_seconds" "Since the oldest segment that is not in the bucket was closed";
            offload_waiting_segments "offload_waiting_segments" "Small closed segments that wait for others to share an object with";
            shared_objects "shared_objects" "Objects written with the segments of several partitions";
            shared_segments "shared_segments" "Segments in those objects";
            throttled_ms "throttled_milliseconds" "Time that batches waited because bookies fill up while the bucket takes too little";
            objects_deleted "objects_deleted" "Objects and pages deleted from the bucket";
            objects_swept "objects_swept" "Objects and pages that nothing reached, deleted by the sweep";
            object_reads "object_reads" "Blocks of objects read for clients";
            object_read_failures "object_read_failures" "Blocks of objects that could not be read";
        }
        metrics
    }

    /// For tests and tools that show nothing.
    pub fn unregistered() -> Self {
        Self {
            partitions: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            streams: Gauge::default(),
            bad_frames: Counter::default(),
            kafka_connections: Gauge::default(),
            kafka_connections_refused: Counter::default(),
            kafka_requests: Counter::default(),
            kafka_bad_requests: Counter::default(),
            kafka_inflight_bytes: Gauge::default(),
            kafka_fetch_bytes: Gauge::default(),
            kafka_sent_near: Counter::default(),
            kafka_near_bytes: Counter::default(),
            appended_bytes: Counter::default(),
            appended_entries: Counter::default(),
            appends: Counter::default(),
            recompressed_bytes: Counter::default(),
            append_errors: Counter::default(),
            append_timeouts: Counter::default(),
            append_seconds: Histogram::new(exponential_buckets(100e-6, 2.0, 18)),
            read_bytes: Counter::default(),
            tail_hits: Counter::default(),
            tail_misses: Counter::default(),
            tail_bytes: Gauge::default(),
            bookie_reads: Counter::default(),
            bookie_read_failures: Counter::default(),
            moves: Counter::default(),
            move_seconds: Histogram::new(exponential_buckets(500e-6, 2.0, 16)),
            sessions_lost: Counter::default(),
            alarms: Counter::default(),
            offloaded_bytes: Counter::default(),
            offload_failures: Counter::default(),
            offload_backlog_segments: Gauge::default(),
            offload_backlog_bytes: Gauge::default(),
            offload_backlog_age_seconds: Gauge::default(),
            offload_waiting_segments: Gauge::default(),
            shared_objects: Counter::default(),
            shared_segments: Counter::default(),
            throttled_ms: Counter::default(),
            objects_deleted: Counter::default(),
            objects_swept: Counter::default(),
            object_reads: Counter::default(),
            object_read_failures: Counter::default(),
        }
    }
}
