//! Calls that change or inspect topics. Any gateway answers unless it is said otherwise.

use super::{KeyValue, PartitionName};

/// Answer to a call that has nothing to tell but that it was done.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Done {
    /// Metadata revision at which the change is visible: a later `CALL_METADATA` may wait for it.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
}

/// `CALL_CREATE_TOPIC`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CreateTopic {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 0 = the cluster's default.
    #[prost(uint32, tag = "2")]
    pub partitions: u32,
    #[prost(message, repeated, tag = "3")]
    pub settings: Vec<KeyValue>,
    /// 16 random bytes chosen by the client, which become the topic's id: a repeated call with the same id succeeds
    /// instead of finding its own topic in the way. Empty = the gateway chooses.
    #[prost(bytes = "vec", tag = "4")]
    pub topic_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CreatedTopic {
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub partitions: u32,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// `CALL_DELETE_TOPIC`. Answered by [`Done`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteTopic {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 16 bytes, or empty = whatever topic has that name now.
    #[prost(bytes = "vec", tag = "2")]
    pub topic_id: Vec<u8>,
}

/// `CALL_ALTER_TOPIC`: all of it happens, or nothing. Answered by [`Done`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AlterTopic {
    #[prost(string, tag = "1")]
    pub name: String,
    /// The new number of partitions, at least the present one; 0 = as it is.
    #[prost(uint32, tag = "2")]
    pub partitions: u32,
    #[prost(message, repeated, tag = "3")]
    pub set: Vec<KeyValue>,
    /// Names of settings that go back to their default.
    #[prost(string, repeated, tag = "4")]
    pub reset: Vec<String>,
}

/// `CALL_DELETE_RECORDS`: raises the log start. Only the owner answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteRecords {
    #[prost(message, optional, tag = "1")]
    pub partition: Option<PartitionName>,
    /// The new log start; -1 = the high watermark.
    #[prost(int64, tag = "2")]
    pub before_offset: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DeletedRecords {
    #[prost(int64, tag = "1")]
    pub log_start: i64,
}

/// `CALL_LIST_SEGMENTS`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListSegments {
    #[prost(string, tag = "1")]
    pub topic: String,
    /// One partition; absent = all.
    #[prost(uint32, optional, tag = "2")]
    pub partition: Option<u32>,
    /// Continues an answer that did not fit.
    #[prost(message, optional, tag = "3")]
    pub from: Option<SegmentCursor>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SegmentCursor {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    #[prost(uint64, tag = "2")]
    pub n: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ListedSegments {
    /// In the order of partitions, then offsets.
    #[prost(message, repeated, tag = "1")]
    pub segments: Vec<SegmentInfo>,
    /// Set if there is more.
    #[prost(message, optional, tag = "2")]
    pub next: Option<SegmentCursor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SegmentState {
    Open = 0,
    Closed = 1,
    /// Offsets that were lost for good; it has no bytes and no members.
    Lost = 2,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SegmentInfo {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    #[prost(uint64, tag = "2")]
    pub n: u64,
    #[prost(enumeration = "SegmentState", tag = "3")]
    pub state: i32,
    #[prost(uint32, tag = "4")]
    pub epoch: u32,
    #[prost(int64, tag = "5")]
    pub base_offset: i64,
    /// Exclusive. Of an open segment: as far as the answering gateway knows, -1 if it does not.
    #[prost(int64, tag = "6")]
    pub end_offset: i64,
    /// Stored once (not times the copies); 0 while open and unknown.
    #[prost(uint64, tag = "7")]
    pub bytes: u64,
    /// Names of the bookies that hold a copy.
    #[prost(string, repeated, tag = "8")]
    pub bookies: Vec<String>,
    /// True if the segment is in the object store.
    #[prost(bool, tag = "9")]
    pub in_objects: bool,
    #[prost(uint32, tag = "10")]
    pub write_quorum: u32,
    #[prost(uint32, tag = "11")]
    pub ack_quorum: u32,
    /// Record timestamps in milliseconds, -1 = none.
    #[prost(int64, tag = "12")]
    pub first_ts_ms: i64,
    #[prost(int64, tag = "13")]
    pub max_ts_ms: i64,
    /// Wall clock of the metadata leader; 0 = not yet.
    #[prost(int64, tag = "14")]
    pub opened_ms: i64,
    #[prost(int64, tag = "15")]
    pub closed_ms: i64,
    /// Name of the object in the bucket; empty = none.
    #[prost(string, tag = "16")]
    pub object: String,
}

/// `CALL_SWEEP_BUCKET`: looks at a few thousand names in the bucket and deletes those that nothing reaches and that are
/// old enough. May be repeated.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SweepBucket {
    /// `next` of the answer before; empty at first.
    #[prost(string, tag = "1")]
    pub after: String,
    /// Look only.
    #[prost(bool, tag = "2")]
    pub dry_run: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SweptBucket {
    #[prost(uint64, tag = "1")]
    pub listed: u64,
    #[prost(uint64, tag = "2")]
    pub listed_bytes: u64,
    #[prost(uint64, tag = "3")]
    pub leaked: u64,
    #[prost(uint64, tag = "4")]
    pub leaked_bytes: u64,
    /// Names that nothing reaches, the first thousand of this answer.
    #[prost(string, repeated, tag = "5")]
    pub names: Vec<String>,
    /// Where to go on; empty at the end.
    #[prost(string, tag = "6")]
    pub next: String,
}

/// `CALL_MOVE_PARTITION`: hands a partition over to another gateway and answers when it serves there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MovePartition {
    #[prost(message, optional, tag = "1")]
    pub partition: Option<PartitionName>,
    /// Configured name of the gateway.
    #[prost(string, tag = "2")]
    pub to: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MovedPartition {
    /// The partition's epoch under the new owner.
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
    /// How long the partition took no appends, as measured by the old owner and the new one.
    #[prost(uint64, tag = "2")]
    pub pause_us: u64,
    #[prost(string, tag = "3")]
    pub from: String,
    #[prost(string, tag = "4")]
    pub to: String,
}
