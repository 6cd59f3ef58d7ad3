//! What a segment says of itself in its first entry, so that a chain can be rebuilt from bookies alone.

use crate::ids::{BookieId, Epoch, InstanceId};

/// One bookie that stores a segment: the node and the exact data directories that hold the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub bookie: BookieId,
    pub instance: InstanceId,
}

impl Member {
    /// Stands for the segment's object in the bucket, where whoever reads has to choose among copies. Bookies are numbered
    /// from 1.
    pub const BUCKET: Self = Self { bookie: BookieId(0), instance: InstanceId::NIL };
}

/// How many members store each entry, and how many must have it fsynced before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quorum {
    /// Qw: number of members, 1..=7.
    pub write: u8,
    /// Qa: fsyncs before the ack, 1..=write.
    pub ack: u8,
}

impl Quorum {
    pub const WRITE_MAX: u8 = 7;

    pub fn is_valid(&self) -> bool {
        self.ack >= 1 && self.ack <= self.write && self.write <= Self::WRITE_MAX
    }

    /// Members whose answers prove that nothing beyond them was acked: any two sets of `ack` and `coverage`
    /// members of one segment share a member.
    pub fn coverage(&self) -> usize {
        usize::from(self.write - self.ack) + 1
    }
}

/// Stored in entry 0 of every segment. `prev_*` describe the segment before it in the chain, zero when there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SegmentPrologue {
    #[prost(uint32, tag = "1")]
    pub write_quorum: u32,
    #[prost(uint32, tag = "2")]
    pub ack_quorum: u32,
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<MemberRecord>,
    #[prost(uint32, tag = "4")]
    pub epoch: u32,
    #[prost(uint64, tag = "5")]
    pub prev_n: u64,
    /// Last entry of the previous segment, inclusive.
    #[prost(uint64, tag = "6")]
    pub prev_last: u64,
    /// Offset behind the last record of the previous segment, exclusive: where this segment begins.
    #[prost(int64, tag = "7")]
    pub prev_end_offset: i64,
    #[prost(fixed64, tag = "8")]
    pub prev_digest: u64,
}

/// [`Member`] as stored and sent.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberRecord {
    #[prost(uint64, tag = "1")]
    pub bookie: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub instance: Vec<u8>,
}

impl From<Member> for MemberRecord {
    fn from(member: Member) -> Self {
        Self { bookie: member.bookie.0, instance: member.instance.0.to_vec() }
    }
}

impl MemberRecord {
    /// None when the instance is not 16 bytes: damaged or foreign input.
    pub fn to_member(&self) -> Option<Member> {
        Some(Member { bookie: BookieId(self.bookie), instance: InstanceId::from_slice(&self.instance)? })
    }
}

impl SegmentPrologue {
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }
}
