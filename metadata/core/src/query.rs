//! Questions that are answered by a linearizable read, and the pure function that answers them.

use std::sync::Arc;

use esker_types::{ClusterId, Epoch, InstanceId, PartitionId, SegmentId, SessionId, TopicId, WallMs};

use crate::gc::{self, Verdict};
use crate::records::{
    BookieRecord, ClosedSegment, ClusterRecord, GatewayRecord, PartitionRecord, SessionRecord, TopicRecord,
};
use crate::state::State;

crate::messages! {
    pub struct ClusterQuery {}
    pub struct SummaryQuery {}
    pub struct PartitionQuery { 1 partition: PartitionId = [uint64] }
    /// By name, or by id when `name` is empty.
    pub struct TopicQuery {
        1 name: String = [string],
        2 id: Option<TopicId> = [bytes = "vec", optional],
    }
    /// May these local copies be dropped?
    pub struct GcQuery {
        1 instance: InstanceId = [bytes = "vec"],
        2 segments: Vec<SegmentId> = [message, repeated],
    }
    pub struct InstanceQuery { 1 instance: InstanceId = [bytes = "vec"] }
    pub struct SegmentsQuery { 1 instance: InstanceId = [bytes = "vec"] }
    pub struct BookieQuery { 1 name: String = [string] }
    pub struct GatewayQuery { 1 name: String = [string] }
    pub struct SessionQuery { 1 session: SessionId = [uint64] }

    /// A partition with its closed segments, oldest first.
    pub struct PartitionInfo {
        1 record: Arc<PartitionRecord> = [message, required],
        2 chain: Vec<Arc<ClosedSegment>> = [message, repeated],
    }
    pub struct PartitionAnswer {
        1 info: Option<PartitionInfo> = [message, optional],
        /// The partition's topic was deleted.
        2 deleted: bool = [bool],
        /// Of the state that was read.
        3 revision: u64 = [uint64],
    }
    pub struct TopicAnswer { 1 topic: Option<Arc<TopicRecord>> = [message, optional] }
    pub struct GcAnswer {
        /// In the order of the question.
        1 verdicts: Vec<Verdict> = [uint32, repeated],
        /// A bookie that knows another incarnation refuses to delete anything.
        2 incarnation: u8 = [uint32],
    }
    /// A partition whose open segment names the instance, and the epoch below which the instance must refuse.
    pub struct OpenOn {
        1 segment: SegmentId = [message, required],
        2 epoch: Epoch = [uint32],
    }
    pub struct OpenSegmentsAnswer { 1 open: Vec<OpenOn> = [message, repeated] }
    /// Open and closed segments that name the instance as member or holder, in order.
    pub struct SegmentsAnswer { 1 segments: Vec<SegmentId> = [message, repeated] }
    pub struct BookieAnswer { 1 bookie: Option<Arc<BookieRecord>> = [message, optional] }
    pub struct GatewayAnswer { 1 gateway: Option<Arc<GatewayRecord>> = [message, optional] }
    pub struct SessionAnswer { 1 session: Option<Arc<SessionRecord>> = [message, optional] }
    pub struct ClusterAnswer { 1 cluster: Option<Arc<ClusterRecord>> = [message, optional] }
    pub struct Summary {
        1 cluster: Option<ClusterId> = [bytes = "vec", optional],
        2 revision: u64 = [uint64],
        3 wall: WallMs = [int64],
        4 topics: u64 = [uint64],
        5 partitions: u64 = [uint64],
        6 closed_segments: u64 = [uint64],
        7 ownerless: u64 = [uint64],
        8 state_hash: u64 = [fixed64],
    }
}

crate::union! {
    pub enum Query {
        1 Cluster(ClusterQuery),
        2 Partition(PartitionQuery),
        3 Topic(TopicQuery),
        4 BookieGc(GcQuery),
        /// All open segments that name an instance: read at every boot of a bookie (2.6).
        5 OpenSegmentsOf(InstanceQuery),
        6 BookieByName(BookieQuery),
        7 GatewayByName(GatewayQuery),
        8 Session(SessionQuery),
        9 Summary(SummaryQuery),
        /// All segments that count on an instance: after a loss it must ask for each of them (R9).
        10 SegmentsOf(SegmentsQuery),
    }
}

crate::union! {
    pub enum Answer {
        1 Cluster(ClusterAnswer),
        2 Partition(PartitionAnswer),
        3 Topic(TopicAnswer),
        4 BookieGc(GcAnswer),
        5 OpenSegmentsOf(OpenSegmentsAnswer),
        6 BookieByName(BookieAnswer),
        7 GatewayByName(GatewayAnswer),
        8 Session(SessionAnswer),
        9 Summary(Summary),
        10 SegmentsOf(SegmentsAnswer),
    }
}

impl State {
    /// A partition with its chain.
    pub fn partition_info(&self, id: PartitionId) -> Option<PartitionInfo> {
        let record = self.partition(id)?.clone();
        Some(PartitionInfo { record, chain: self.chain(id).cloned().collect() })
    }

    /// Answers from this state. The caller has made sure that it is as fresh as the question needs.
    pub fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Cluster(_) => Answer::Cluster(ClusterAnswer { cluster: self.cluster().cloned() }),
            Query::Partition(q) => Answer::Partition(PartitionAnswer {
                info: self.partition_info(q.partition),
                deleted: self.deleted(q.partition).is_some(),
                revision: self.revision(),
            }),
            Query::Topic(q) => {
                let topic = match q.id {
                    Some(id) if q.name.is_empty() => self.topic(id),
                    _ => self.topic_by_name(&q.name),
                };
                Answer::Topic(TopicAnswer { topic: topic.cloned() })
            }
            Query::BookieGc(q) => Answer::BookieGc(GcAnswer {
                verdicts: q.segments.iter().map(|segment| gc::verdict(self, q.instance, *segment)).collect(),
                incarnation: self.cluster().map_or(0, |cluster| cluster.incarnation),
            }),
            Query::OpenSegmentsOf(q) => {
                Answer::OpenSegmentsOf(OpenSegmentsAnswer { open: self.open_segments_of(q.instance) })
            }
            Query::BookieByName(q) => {
                Answer::BookieByName(BookieAnswer { bookie: self.bookie_by_name(&q.name).cloned() })
            }
            Query::GatewayByName(q) => {
                Answer::GatewayByName(GatewayAnswer { gateway: self.gateway_by_name(&q.name).cloned() })
            }
            Query::Session(q) => Answer::Session(SessionAnswer { session: self.session(q.session).cloned() }),
            Query::SegmentsOf(q) => Answer::SegmentsOf(SegmentsAnswer { segments: self.segments_of(q.instance) }),
            Query::Summary(_) => Answer::Summary(self.summary()),
        }
    }

    fn open_segments_of(&self, instance: InstanceId) -> Vec<OpenOn> {
        let named = |p: &&Arc<PartitionRecord>| {
            p.open.as_ref().is_some_and(|open| open.members.iter().any(|member| member.instance == instance))
        };
        let on = |p: &Arc<PartitionRecord>| Some(OpenOn { segment: p.open_id()?, epoch: p.epoch });
        self.partitions().filter(named).filter_map(on).collect()
    }

    fn segments_of(&self, instance: InstanceId) -> Vec<SegmentId> {
        let open = self.open_segments_of(instance).into_iter().map(|on| on.segment);
        let kept = |s: &&Arc<ClosedSegment>| {
            let copies_from = self.partition(s.segment.partition).map_or(0, |partition| partition.copies_from);
            s.names(instance) && s.segment.n >= copies_from
        };
        let closed = self.segments().filter(kept).map(|s| s.segment);
        let mut all: Vec<SegmentId> = open.chain(closed).collect();
        all.sort_unstable();
        all
    }

    pub fn summary(&self) -> Summary {
        Summary {
            cluster: self.cluster().map(|cluster| cluster.id),
            revision: self.revision(),
            wall: self.wall(),
            topics: self.topics().count() as u64,
            partitions: self.partitions().len() as u64,
            closed_segments: self.segments().len() as u64,
            ownerless: self.partitions().filter(|p| !self.has_live_owner(p)).count() as u64,
            state_hash: self.state_hash(),
        }
    }
}
