//! Control parts of the native client protocol. `gateway/PROTOCOL.md` tells how they are used on streams.
//!
//! Field numbers are on the wire: never reuse one. Every message leaves room for more fields; a reader ignores
//! those that it does not know.

pub mod admin;
pub mod cluster;
pub mod groups;
pub mod metadata;
pub mod produce;
pub mod read;

pub use admin::*;
pub use cluster::*;
pub use groups::*;
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn hex(message: &impl Message) -> String {
        message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn field_numbers_are_frozen() {
        let partition = Some(PartitionName { topic: "t".to_owned(), topic_id: vec![1, 2], partition: 3 });
        assert_eq!(hex(&ProduceOpen { partition: partition.clone() }), "0a090a0174120201021803");
        let produced = Produced { base_offset: 300, append_time_ms: -1, log_start: 7, duplicate: true };
        assert_eq!(hex(&produced), "08ac0210ffffffffffffffffff0118072001");
        let open = ReadOpen {
            partition,
            start: Some(Position::Offset(9)),
            end_offset: 10,
            push_bytes_max: 11,
            skip_lost: true,
            any_gateway: false,
        };
        assert_eq!(hex(&open), "0a090a0174120201021803100a180b20015009");
        let push = ReadBatches {
            high_watermark: 1,
            log_start: 2,
            last_stable: 3,
            next_offset: 4,
            lost: Some(OffsetRange { from: 5, to: 6 }),
        };
        assert_eq!(hex(&push), "08011002180320042a0408051006");
    }

    #[test]
    fn a_start_comes_back_as_it_was_sent() {
        for start in [Position::Offset(0), Position::TimeMs(-5), Position::Earliest(true), Position::Latest(true)] {
            let open = ReadOpen { start: Some(start), ..ReadOpen::default() };
            assert_eq!(ReadOpen::decode(&open.encode_to_vec()[..]), Ok(open));
        }
    }
}
