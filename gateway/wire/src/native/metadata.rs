//! The map of the cluster: gateways, topics, partitions and their owners. Any gateway answers, from its own copy.

use super::KeyValue;

/// `CALL_METADATA`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetMetadata {
    /// Names asked for; empty = all topics.
    #[prost(string, repeated, tag = "1")]
    pub topics: Vec<String>,
    /// All topics: internal ones too.
    #[prost(bool, tag = "2")]
    pub internal: bool,
    /// Continues an answer that did not fit: [`Metadata::next`] of it.
    #[prost(message, optional, tag = "3")]
    pub from: Option<MetadataCursor>,
    /// Wait (at most 1 s) until the gateway's copy has reached this revision; 0 = answer at once.
    #[prost(uint64, tag = "4")]
    pub revision_min: u64,
}

/// First partition of the next part of the answer. Topics come in the order of their names.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MetadataCursor {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(uint32, tag = "2")]
    pub partition: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    /// Of the gateway's copy of the metadata. Higher is newer.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    #[prost(message, repeated, tag = "3")]
    pub gateways: Vec<GatewayInfo>,
    #[prost(message, repeated, tag = "4")]
    pub topics: Vec<TopicInfo>,
    /// Set if there is more: a gateway stops at about 512 KiB. A topic may be split over two answers.
    #[prost(message, optional, tag = "5")]
    pub next: Option<MetadataCursor>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GatewayInfo {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    /// `host:port` of its QUIC door, in order of preference.
    #[prost(string, repeated, tag = "3")]
    pub addresses: Vec<String>,
    #[prost(string, tag = "4")]
    pub zone: String,
    #[prost(bool, tag = "5")]
    pub live: bool,
    #[prost(bool, tag = "6")]
    pub draining: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TopicInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 16 bytes; empty if there is no such topic.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    #[prost(bool, tag = "3")]
    pub internal: bool,
    /// The number of partitions, also when `partitions` holds only some of them.
    #[prost(uint32, tag = "4")]
    pub partition_count: u32,
    #[prost(message, repeated, tag = "5")]
    pub partitions: Vec<PartitionInfo>,
    /// Effective settings, in the order of their names. Only with [`GetMetadata::topics`] given.
    #[prost(message, repeated, tag = "6")]
    pub settings: Vec<KeyValue>,
    /// For a name asked for: `UnknownTopic`, `InvalidTopicName` or `NotAuthorized`; 0 = none.
    #[prost(uint32, tag = "7")]
    pub error: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PartitionInfo {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// The cluster-wide id, for logs and tools.
    #[prost(uint64, tag = "2")]
    pub id: u64,
    #[prost(uint32, tag = "3")]
    pub epoch: u32,
    /// Gateway id of the owner, 0 = nobody at the moment.
    #[prost(uint64, tag = "4")]
    pub owner: u64,
    #[prost(int64, tag = "5")]
    pub log_start: i64,
    /// Segments in the chain as metadata sees it.
    #[prost(uint32, tag = "6")]
    pub segments: u32,
}
