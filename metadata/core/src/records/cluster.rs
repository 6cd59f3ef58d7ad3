use esker_types::{ClusterId, Member, Quorum, SegmentId, WallMs, first_id};

crate::messages! {
    /// Facts about the cluster as a whole, and the counters that ids come from. There is exactly one.
    pub struct ClusterRecord {
        1 id: ClusterId = [bytes = "vec"],
        /// How often the metadata was rebuilt from a backup: the top bits of every id and epoch (I9).
        2 incarnation: u8 = [uint32],
        /// What may be written: nothing newer than this version, until `cluster finalize` (architecture 8.4).
        3 version: u32 = [uint32],
        /// Quorums of a topic that asks for none.
        4 quorum: Quorum = [message, required],
        5 auto_create_topics: bool = [bool],
        /// Partitions of a topic that was made without saying how many.
        6 default_partitions: u32 = [uint32],
        7 next_partition: u64 = [uint64],
        8 next_producer: u64 = [uint64],
        9 next_session: u64 = [uint64],
        /// Gateways and bookies draw from counters of their own, both from 1.
        10 next_gateway: u64 = [uint64],
        11 next_bookie: u64 = [uint64],
    }

    /// Somebody copies a closed segment to this member right now: its garbage collector keeps the copy (R13, R14)
    /// until the record names it or the intent has run out.
    pub struct IntentRecord {
        1 segment: SegmentId = [message, required],
        2 member: Member = [message, required],
        /// First millisecond of the state machine's wall clock at which the intent is void. Exclusive.
        3 expires: WallMs = [int64],
    }
}

impl ClusterRecord {
    /// Whether they differ in more than the counters of ids, which move with every session and producer.
    pub fn differs(&self, other: &Self) -> bool {
        let Self { next_partition, next_producer, next_session, next_gateway, next_bookie, .. } = *other;
        *other != Self { next_partition, next_producer, next_session, next_gateway, next_bookie, ..self.clone() }
    }

    pub fn born(
        id: ClusterId,
        version: u32,
        quorum: Quorum,
        auto_create_topics: bool,
        default_partitions: u32,
    ) -> Self {
        let first = first_id(0);
        Self {
            id,
            incarnation: 0,
            version,
            quorum,
            auto_create_topics,
            default_partitions,
            next_partition: first,
            next_producer: first,
            next_session: first,
            next_gateway: first,
            next_bookie: first,
        }
    }
}
