//! What stands in the log: one key and one value per record, in ordinary record batches. A missing value deletes the
//! key. Kinds and tags are on disk: never renumber one.

use bytes::Bytes;
use prost::Message;

/// Highest version of keys and values that this build writes and reads.
const VERSION: u32 = 1;

/// A key and its value as they are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRecord {
    pub key: Bytes,
    /// None deletes the key.
    pub value: Option<Bytes>,
}

impl KeyedRecord {
    pub fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A record without meaning: a reader that has seen it has seen all that its writer sent before.
    pub fn barrier() -> Self {
        Self { key: Key::Barrier.encode(), value: None }
    }
}

/// The log holds something that this build can't read. The coordinator does not serve rather than guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("a record of the group log does not parse: {0}")]
    Broken(String),
    #[error("a record of the group log has version {0}, this build reads up to {VERSION}: start the newer build")]
    NewerVersion(u32),
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Classic { group: String },
    Consumer { group: String },
    Member { group: String, member: String },
    Offset { group: String, topic: String, partition: i32 },
    Barrier,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct KeyRecord {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    group: String,
    /// Topic or member id.
    #[prost(string, tag = "4")]
    name: String,
    #[prost(int32, tag = "5")]
    partition: i32,
}

const CLASSIC: u32 = 1;
const CONSUMER: u32 = 2;
const MEMBER: u32 = 3;
const OFFSET: u32 = 4;
const BARRIER: u32 = 5;

impl Key {
    pub fn encode(&self) -> Bytes {
        let record = |kind, group: &str, name: &str, partition| KeyRecord {
            version: VERSION,
            kind,
            group: group.to_owned(),
            name: name.to_owned(),
            partition,
        };
        let record = match self {
            Key::Classic { group } => record(CLASSIC, group, "", 0),
            Key::Consumer { group } => record(CONSUMER, group, "", 0),
            Key::Member { group, member } => record(MEMBER, group, member, 0),
            Key::Offset { group, topic, partition } => record(OFFSET, group, topic, *partition),
            Key::Barrier => record(BARRIER, "", "", 0),
        };
        record.encode_to_vec().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ReplayError> {
        let KeyRecord { version, kind, group, name, partition } =
            KeyRecord::decode(bytes).map_err(|e| ReplayError::Broken(e.to_string()))?;
        if version > VERSION {
            return Err(ReplayError::NewerVersion(version));
        }
        match kind {
            CLASSIC => Ok(Key::Classic { group }),
            CONSUMER => Ok(Key::Consumer { group }),
            MEMBER => Ok(Key::Member { group, member: name }),
            OFFSET => Ok(Key::Offset { group, topic: name, partition }),
            BARRIER => Ok(Key::Barrier),
            other => Err(ReplayError::Broken(format!("kind {other}"))),
        }
    }
}

/// A value carries its version in its first field.
pub trait Value: Message + Default {
    fn version(&self) -> u32;
}

pub fn decode<V: Value>(bytes: &[u8]) -> Result<V, ReplayError> {
    let value = V::decode(bytes).map_err(|e| ReplayError::Broken(e.to_string()))?;
    match value.version() {
        newer if newer > VERSION => Err(ReplayError::NewerVersion(newer)),
        _ => Ok(value),
    }
}

macro_rules! values {
    ($($name:ident),*) => { $(impl Value for $name { fn version(&self) -> u32 { self.version } })* };
}
values!(ClassicValue, ConsumerValue, MemberValue, OffsetValue);

/// A classic group with its members; they change together, so they are one record.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClassicValue {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(int32, tag = "2")]
    pub generation: i32,
    #[prost(string, tag = "3")]
    pub protocol_type: String,
    #[prost(string, tag = "4")]
    pub protocol: String,
    #[prost(string, tag = "5")]
    pub leader: String,
    #[prost(enumeration = "StoredPhase", tag = "6")]
    pub phase: i32,
    #[prost(message, repeated, tag = "7")]
    pub members: Vec<ClassicMemberValue>,
    /// When the group came into this phase, milliseconds since the epoch.
    #[prost(int64, tag = "8")]
    pub since_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum StoredPhase {
    Empty = 0,
    /// Members that left were taken out; the others must join again.
    Preparing = 1,
    /// The generation has members and waits for its leader's assignment.
    Completing = 2,
    Stable = 3,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClassicMemberValue {
    #[prost(string, tag = "1")]
    pub member: String,
    #[prost(string, optional, tag = "2")]
    pub instance: Option<String>,
    #[prost(string, tag = "3")]
    pub client_id: String,
    #[prost(string, tag = "4")]
    pub client_host: String,
    #[prost(uint64, tag = "5")]
    pub session_ms: u64,
    #[prost(uint64, tag = "6")]
    pub rebalance_ms: u64,
    #[prost(message, repeated, tag = "7")]
    pub protocols: Vec<ProtocolValue>,
    #[prost(bytes = "bytes", tag = "8")]
    pub assignment: Bytes,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProtocolValue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub metadata: Bytes,
}

/// A group of the consumer protocol, without its members.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConsumerValue {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(int32, tag = "2")]
    pub epoch: i32,
    #[prost(int32, tag = "3")]
    pub target_epoch: i32,
    #[prost(int64, tag = "4")]
    pub since_ms: i64,
    /// Of the topics that the target was made for; another one means to make it anew.
    #[prost(fixed64, tag = "5")]
    pub topics_hash: u64,
    #[prost(string, tag = "6")]
    pub assignor: String,
    /// Of members, if the group has one of its own.
    #[prost(uint64, optional, tag = "7")]
    pub session_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct MemberValue {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(string, optional, tag = "2")]
    pub instance: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub rack: Option<String>,
    #[prost(string, tag = "4")]
    pub client_id: String,
    #[prost(string, tag = "5")]
    pub client_host: String,
    #[prost(string, repeated, tag = "6")]
    pub topics: Vec<String>,
    #[prost(string, tag = "7")]
    pub regex: String,
    #[prost(string, optional, tag = "8")]
    pub assignor: Option<String>,
    #[prost(uint64, tag = "9")]
    pub rebalance_ms: u64,
    #[prost(int32, tag = "10")]
    pub epoch: i32,
    #[prost(int32, tag = "11")]
    pub previous_epoch: i32,
    #[prost(message, repeated, tag = "12")]
    pub target: Vec<PartitionsValue>,
    #[prost(message, repeated, tag = "13")]
    pub assigned: Vec<PartitionsValue>,
    /// Taken away, and not yet given back.
    #[prost(message, repeated, tag = "14")]
    pub revoking: Vec<PartitionsValue>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PartitionsValue {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub topic: Vec<u8>,
    #[prost(int32, repeated, tag = "2")]
    pub partitions: Vec<i32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct OffsetValue {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    #[prost(int32, tag = "3")]
    pub leader_epoch: i32,
    #[prost(string, tag = "4")]
    pub metadata: String,
    #[prost(int64, tag = "5")]
    pub committed_ms: i64,
    /// The client asked for a retention of its own.
    #[prost(int64, optional, tag = "6")]
    pub expires_ms: Option<i64>,
}

pub const WRITTEN: u32 = VERSION;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_newer_ones_are_refused() {
        let keys = [
            Key::Classic { group: "g".into() },
            Key::Consumer { group: "ü".into() },
            Key::Member { group: "g".into(), member: "m".into() },
            Key::Offset { group: "g".into(), topic: "t".into(), partition: 7 },
            Key::Barrier,
        ];
        for key in keys {
            assert_eq!(Key::decode(&key.encode()), Ok(key));
        }
        let newer = KeyRecord { version: 2, kind: 9, ..KeyRecord::default() }.encode_to_vec();
        assert_eq!(Key::decode(&newer), Err(ReplayError::NewerVersion(2)));
        assert!(matches!(Key::decode(b"\xff\xff"), Err(ReplayError::Broken(_))));
        let value = OffsetValue { version: 9, ..OffsetValue::default() }.encode_to_vec();
        assert_eq!(decode::<OffsetValue>(&value), Err(ReplayError::NewerVersion(9)));
    }

    #[test]
    fn the_bytes_of_an_offset_are_as_agreed() {
        let key = Key::Offset { group: "g".into(), topic: "t".into(), partition: 3 }.encode();
        assert_eq!(&key[..], b"\x08\x01\x10\x04\x1a\x01g\x22\x01t\x28\x03");
        let value = OffsetValue {
            version: 1,
            offset: 5,
            leader_epoch: 2,
            metadata: "x".into(),
            committed_ms: 9,
            expires_ms: None,
        };
        assert_eq!(value.encode_to_vec(), b"\x08\x01\x10\x05\x18\x02\x22\x01x\x28\x09");
    }
}
