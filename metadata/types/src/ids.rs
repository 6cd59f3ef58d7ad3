//! Identities. None is ever reused, also not after a restore from backup: numeric ids come from the metadata
//! state machine and carry the cluster's incarnation in their top bits, the others are random UUIDs.

use std::fmt;
use std::str::FromStr;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number_id!(/// A partition of a topic, unique in the cluster's whole life. Bookies know partitions by this alone.
    PartitionId, u64);
number_id!(/// A broker process's configured name, mapped to a number from 1. Shown to Kafka clients as the node id.
    GatewayId, u64);
number_id!(/// A storage node's configured name, mapped to a number from 1. Its *data* is named by [`InstanceId`].
    BookieId, u64);
number_id!(/// One life of a gateway process as metadata sees it; ends when its lease is not renewed.
    SessionId, u64);
number_id!(/// An idempotent producer. Kafka calls it producer id, an i64 that is never negative.
    ProducerId, u64);
number_id!(/// A voter or learner of the metadata quorum.
    NodeId, u64);

/// Number of entry in a segment, from 0, without holes.
pub type EntryId = u64;

/// Position of a record in its partition, from 0. Signed because Kafka's is; a valid one is never negative.
pub type Offset = i64;

/// One segment: the partition and its ordinal `n` in the partition's chain. Ordinals start at 1 and are never
/// reused, also not when an empty segment was dropped from the chain.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    pub partition: PartitionId,
    pub n: u64,
}

impl SegmentId {
    pub const fn new(partition: u64, n: u64) -> Self {
        Self { partition: PartitionId(partition), n }
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.n)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({self})")
    }
}

/// Who may write a partition: raised by every change of owner, checked by bookies and metadata.
/// Below 2^31 (Kafka's leader epoch is an i32): 8 bits of cluster incarnation, then 23 bits of count.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    pub const INCARNATION_SHIFT: u32 = 23;
    pub const MAX: Epoch = Epoch((1 << 31) - 1);

    /// First epoch of a partition that is born in `incarnation`.
    pub const fn first(incarnation: u8) -> Self {
        Self((incarnation as u32 & 0xff) << Self::INCARNATION_SHIFT)
    }

    /// The next epoch, or none when the 23-bit count of this incarnation is used up.
    pub fn next(self) -> Option<Self> {
        let next = self.0 + 1;
        (next >> Self::INCARNATION_SHIFT == self.0 >> Self::INCARNATION_SHIFT).then_some(Self(next))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

/// Bits of a numeric id that hold the incarnation in which it was given out.
pub const ID_INCARNATION_SHIFT: u32 = 48;

/// First numeric id of an incarnation: 1, 2^48 + 1, ... Incarnation 0 is the first life of a cluster.
pub const fn first_id(incarnation: u8) -> u64 {
    ((incarnation as u64) << ID_INCARNATION_SHIFT) + 1
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            pub const NIL: Self = Self([0; 16]);

            /// Makes an RFC 9562 version 4 UUID from 16 random bytes that the caller supplies.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(as_v4(bytes))
            }

            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            pub fn is_nil(&self) -> bool {
                self.0 == [0; 16]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadUuid;
            fn from_str(text: &str) -> Result<Self, BadUuid> {
                parse_uuid(text).map(Self)
            }
        }
    };
}

uuid_id!(/// The cluster, made at its birth. A node with another cluster's id is refused everywhere.
    ClusterId);
uuid_id!(/// A topic. A topic deleted and made again under the same name has a new one.
    TopicId);
uuid_id!(/// One set of data directories of a bookie. A wiped or replaced disk is a new instance.
    InstanceId);
uuid_id!(/// One run of a process.
    BootId);

/// The text is not a UUID of 32 hex digits with or without dashes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a uuid: {0:?}")]
pub struct BadUuid(pub String);

fn as_v4(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

fn write_uuid(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_uuid(text: &str) -> Result<[u8; 16], BadUuid> {
    let bad = || BadUuid(text.chars().take(64).collect());
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    if digits.len() != 32 {
        return Err(bad());
    }
    let mut out = [0u8; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |c: u8| (c as char).to_digit(16).ok_or_else(bad);
        *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_round_trips() {
        let id = TopicId::from_random([7; 16]);
        assert_eq!(id.to_string().parse::<TopicId>(), Ok(id));
        assert_eq!(id.to_string().len(), 36);
        assert!("xyz".parse::<TopicId>().is_err());
    }

    #[test]
    fn epochs_stop_at_their_incarnation() {
        let last = Epoch(Epoch::first(1).0 + (1 << 23) - 1);
        assert_eq!(last.next(), None);
        assert_eq!(Epoch(5).next(), Some(Epoch(6)));
        assert!(Epoch::first(255) <= Epoch::MAX);
    }
}
