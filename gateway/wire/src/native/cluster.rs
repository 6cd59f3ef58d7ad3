//! Calls about the cluster as a whole and its nodes. Any gateway answers.

use super::PartitionName;

/// `CALL_CLUSTER_STATUS`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GetClusterStatus {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClusterStatus {
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    /// `cluster.version`: the newest format that may be written.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    #[prost(message, repeated, tag = "4")]
    pub metadata: Vec<MetadataNodeStatus>,
    #[prost(message, repeated, tag = "5")]
    pub bookies: Vec<BookieStatus>,
    #[prost(message, repeated, tag = "6")]
    pub gateways: Vec<GatewayStatus>,
    #[prost(uint64, tag = "7")]
    pub topics: u64,
    #[prost(uint64, tag = "8")]
    pub partitions: u64,
    /// Partitions without an owner at the moment.
    #[prost(uint64, tag = "9")]
    pub ownerless: u64,
    /// Bytes of segments on bookies, each counted once.
    #[prost(uint64, tag = "10")]
    pub bookie_bytes: u64,
    #[prost(uint64, tag = "11")]
    pub object_bytes: u64,
    /// Segments with fewer copies than their write quorum.
    #[prost(uint64, tag = "12")]
    pub degraded_segments: u64,
    /// One line per thing that needs a person.
    #[prost(string, repeated, tag = "13")]
    pub warnings: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MetadataNodeStatus {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub address: String,
    #[prost(bool, tag = "4")]
    pub leader: bool,
    #[prost(bool, tag = "5")]
    pub voter: bool,
    #[prost(bool, tag = "6")]
    pub live: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BookieStatus {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub address: String,
    #[prost(string, tag = "4")]
    pub zone: String,
    /// `live`, `draining`, `read-only` or `lost`.
    #[prost(string, tag = "5")]
    pub state: String,
    /// Segments that name this bookie as a holder.
    #[prost(uint64, tag = "6")]
    pub segments: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GatewayStatus {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, repeated, tag = "3")]
    pub addresses: Vec<String>,
    #[prost(string, tag = "4")]
    pub zone: String,
    #[prost(bool, tag = "5")]
    pub live: bool,
    #[prost(bool, tag = "6")]
    pub draining: bool,
    /// Partitions owned.
    #[prost(uint64, tag = "7")]
    pub partitions: u64,
    /// `host:port` of the door for Kafka clients; empty if there is none.
    #[prost(string, tag = "8")]
    pub kafka: String,
}

/// `CALL_DRAIN_GATEWAY` and `CALL_DRAIN_BOOKIE`: take a node out of, or back into, placement. Answered by
/// [`Drained`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DrainNode {
    /// Configured node name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Undo an earlier drain.
    #[prost(bool, tag = "2")]
    pub cancel: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Drained {
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// Partitions (of a gateway) or segments (of a bookie) that are still there; draining goes on by itself.
    #[prost(uint64, tag = "2")]
    pub remaining: u64,
}

/// `CALL_FORCE_CLOSE`: gives up what can't be read of a partition whose quorum is gone for good, records the lost
/// range and lets it serve again. Loses data by design.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ForceClose {
    #[prost(message, optional, tag = "1")]
    pub partition: Option<PartitionName>,
    /// Must be `true`; a client sets it after the operator agreed.
    #[prost(bool, tag = "2")]
    pub accept_data_loss: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ForceClosed {
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
    /// [from, to): the offsets that were given up.
    #[prost(int64, tag = "2")]
    pub lost_from: i64,
    #[prost(int64, tag = "3")]
    pub lost_to: i64,
}
