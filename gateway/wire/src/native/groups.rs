//! Calls about consumer groups. A group's coordinator is the owner of one partition of [`GROUP_TOPIC`]; only it answers, and
//! others say who it is as they do for any partition.

/// The internal topic that holds the state of groups. Made when a Kafka client first asks for a coordinator.
pub const GROUP_TOPIC: &str = "__consumer_offsets";

/// The partition of [`GROUP_TOPIC`] that a group belongs to, as Kafka computes it: Java's `String.hashCode`, its sign bit
/// cleared, modulo the partition count.
///
/// # Panics
/// If there are no partitions.
pub fn coordinating_partition(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
    (hash & 0x7fff_ffff) % partitions
}

/// `CALL_LIST_GROUPS`: the groups of one partition of [`GROUP_TOPIC`]. Only its owner answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListGroups {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// Only groups behind this one in the order of names; empty = from the first.
    #[prost(string, tag = "2")]
    pub after: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListedGroups {
    /// In the order of names.
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<GroupInfo>,
    /// There are more behind the last one.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GroupInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    /// As Kafka calls it: `Empty`, `Stable`, `PreparingRebalance`, `Assigning`, ...
    #[prost(string, tag = "2")]
    pub state: String,
    /// `classic` or `consumer`: which group protocol its members speak.
    #[prost(string, tag = "3")]
    pub kind: String,
    /// What the members are, `consumer` for consumers; empty for a group that only has offsets.
    #[prost(string, tag = "4")]
    pub protocol_type: String,
}

/// `CALL_DESCRIBE_GROUP`. Only the coordinator answers. Members come first, then offsets; an answer that did not hold all of
/// them is continued with the last ones in it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DescribeGroup {
    #[prost(string, tag = "1")]
    pub group: String,
    /// Only members behind this one in the order of ids; empty = from the first.
    #[prost(string, tag = "2")]
    pub after_member: String,
    /// Only offsets behind this one in the order of topics and partitions; absent = from the first.
    #[prost(message, optional, tag = "3")]
    pub after_offset: Option<GroupPartition>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GroupPartition {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(int32, tag = "2")]
    pub partition: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DescribedGroup {
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupInfo>,
    /// Who assigns: the assignor that the members chose, or the coordinator's own. Empty before there is one.
    #[prost(string, tag = "2")]
    pub assignor: String,
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<GroupMember>,
    #[prost(message, repeated, tag = "4")]
    pub offsets: Vec<CommittedOffset>,
    /// There is more: ask again, behind the last member and the last offset seen.
    #[prost(bool, tag = "5")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GroupMember {
    #[prost(string, tag = "1")]
    pub id: String,
    /// The name of a static member.
    #[prost(string, optional, tag = "2")]
    pub instance: Option<String>,
    #[prost(string, tag = "3")]
    pub client_id: String,
    #[prost(string, tag = "4")]
    pub host: String,
    /// Empty also if the members assign in a form of their own. Ends after [`ASSIGNED_MAX`] partitions.
    #[prost(message, repeated, tag = "5")]
    pub assigned: Vec<AssignedTopic>,
    /// How many partitions it holds, whether or not all of them are listed.
    #[prost(uint32, tag = "6")]
    pub assigned_count: u32,
}

/// Partitions of one member in an answer: an answer must fit a frame.
pub const ASSIGNED_MAX: usize = 20_000;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AssignedTopic {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(int32, repeated, tag = "2")]
    pub partitions: Vec<i32>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CommittedOffset {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    /// Where the group goes on: one behind the last record that it is done with.
    #[prost(int64, tag = "3")]
    pub offset: i64,
    /// -1 = not known.
    #[prost(int32, tag = "4")]
    pub leader_epoch: i32,
    #[prost(string, tag = "5")]
    pub metadata: String,
}

/// `CALL_RESET_OFFSETS`: sets a group's offsets, all of them or none. Only the coordinator answers, and only while the group
/// has no members. A group that does not exist comes into being. Answered by [`super::Done`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResetOffsets {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(message, repeated, tag = "2")]
    pub offsets: Vec<CommittedOffset>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hash_as_in_java() {
        // "hello".hashCode() == 99162322, "polygenelubricants".hashCode() == Integer.MIN_VALUE.
        assert_eq!(coordinating_partition("hello", 50), 99_162_322 % 50);
        assert_eq!(coordinating_partition("polygenelubricants", 50), 0);
        assert_eq!(coordinating_partition("", 50), 0);
        // A character outside the basic plane counts as its two surrogates: 0xd83d * 31 + 0xde00.
        assert_eq!(coordinating_partition("\u{1f600}", 1 << 30), 0xd83d * 31 + 0xde00);
    }
}
