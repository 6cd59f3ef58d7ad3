//! Changed rows: what apply produces, what watchers are sent, and what snapshots are made of.

use std::sync::Arc;

use esker_types::{BookieId, GatewayId, InstanceId, PartitionId, SegmentId, SessionId, TopicId, WallMs};

use crate::records::{
    BookieRecord, ClosedSegment, ClusterRecord, DeletedPartition, GatewayRecord, GroupRecord, IntentRecord,
    PartitionRecord, SessionRecord, TopicRecord,
};

crate::messages! {
    /// Key of an intent.
    pub struct IntentKey {
        1 segment: SegmentId = [message, required],
        2 instance: InstanceId = [bytes = "vec"],
    }

    pub struct TopicKey { 1 id: TopicId = [bytes = "vec"] }
    pub struct PartitionKey { 1 id: PartitionId = [uint64] }
    pub struct SegmentKey { 1 id: SegmentId = [message, required] }
    pub struct GatewayKey { 1 id: GatewayId = [uint64] }
    pub struct BookieKey { 1 id: BookieId = [uint64] }
    pub struct SessionKey { 1 id: SessionId = [uint64] }
    pub struct GroupKey { 1 name: String = [string] }
}

crate::union! {
    /// One row put (inserted or replaced) or removed. Replaying changes in order rebuilds the state.
    pub enum Change {
        1 Cluster(Arc<ClusterRecord>),
        2 Topic(Arc<TopicRecord>),
        3 TopicGone(TopicKey),
        4 Partition(Arc<PartitionRecord>),
        5 PartitionGone(PartitionKey),
        6 Segment(Arc<ClosedSegment>),
        7 SegmentGone(SegmentKey),
        8 Gateway(Arc<GatewayRecord>),
        9 GatewayGone(GatewayKey),
        10 Bookie(Arc<BookieRecord>),
        11 BookieGone(BookieKey),
        12 Session(Arc<SessionRecord>),
        13 SessionGone(SessionKey),
        14 Intent(Arc<IntentRecord>),
        15 IntentGone(IntentKey),
        16 Deleted(Arc<DeletedPartition>),
        17 Group(Arc<GroupRecord>),
        18 GroupGone(GroupKey),
    }
}

crate::messages! {
    /// All that one applied batch changed.
    pub struct Delta {
        /// The state's revision after it. Each delta is exactly one above the one before.
        1 revision: u64 = [uint64],
        /// The state's wall clock after it. Never falls.
        2 wall: WallMs = [int64],
        3 changes: Vec<Change> = [message, repeated],
    }
}
