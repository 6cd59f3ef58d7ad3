//! Control parts of the native client protocol. `gateway/PROTOCOL.md` tells how they are used on streams.
//!
//! Field numbers are on the wire: never reuse one. Every message leaves room for more fields; a reader ignores
//! those that it does not know.

pub mod admin;
pub mod cluster;
pub mod metadata;
pub mod produce;
pub mod read;

pub use admin::*;
pub use cluster::*;
pub use metadata::*;
pub use produce::*;
pub use read::*;

/// ALPN protocol name of the QUIC door. A server refuses every other one.
pub const ALPN: &[u8] = b"esker/1";

/// One topic setting, or any other named value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

impl KeyValue {
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// A partition as clients name it. `topic_id`, if given, must be the topic's: a topic deleted and made again under
/// the same name is then `UnknownTopicId` and not silently another log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PartitionName {
    #[prost(string, tag = "1")]
    pub topic: String,
    /// 16 bytes, or empty = whatever topic has that name now.
    #[prost(bytes = "vec", tag = "2")]
    pub topic_id: Vec<u8>,
    /// Index in the topic, from 0.
    #[prost(uint32, tag = "3")]
    pub partition: u32,
}
