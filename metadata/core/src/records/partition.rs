use esker_types::{
    EntryId, Epoch, GatewayId, Member, Offset, PartitionId, Quorum, SegmentId, SessionId, TopicId, WallMs,
};

use super::object::{ObjectPlace, PinRecord, RootPlace};

/// Dropped segments that a partition remembers; a bookie sets copies of older ones aside for 72 h instead.
pub const DROPPED_MAX: usize = 256;

crate::messages! {
    /// The holder of a partition's epoch.
    pub struct Owner {
        1 gateway: GatewayId = [uint64],
        /// May have ended: then the partition waits for an `Assign`.
        2 session: SessionId = [uint64],
    }

    /// The one segment that may grow (I1).
    pub struct OpenSegment {
        1 n: u64 = [uint64],
        /// Epoch under which it was opened; written into every entry.
        2 seg_epoch: Epoch = [uint32],
        /// The only session whose process may start it, once (R6). Every other owner recovers it.
        3 session: SessionId = [uint64],
        4 quorum: Quorum = [message, required],
        /// Exactly `quorum.write` of them. Never changes while the segment is open (R7).
        5 members: Vec<Member> = [message, repeated],
        6 base_offset: Offset = [int64],
        7 opened: WallMs = [int64],
    }

    /// What the newest closed segment ended with. Outlives the segment's own record.
    pub struct LastClosed {
        1 n: u64 = [uint64],
        /// Inclusive.
        2 last: EntryId = [uint64],
        /// Exclusive.
        3 end_offset: Offset = [int64],
        4 digest: u64 = [fixed64],
    }

    /// Offsets [from, to) whose records are gone for good, said so by the operator.
    pub struct LostRange {
        1 from: Offset = [int64],
        2 to: Offset = [int64],
    }

    /// A partition without its closed segments; those are rows of their own (`State::chain`).
    ///
    /// ```text
    /// log_start            last.end_offset   next_offset
    ///     v                              v   v
    ///  [closed][closed]...[last closed   ](lost)[open ...
    ///                                           ^ open.base_offset == next_offset
    /// ```
    /// `log_start <= next_offset` unless a segment is open; `next_offset` = `last.end_offset` but after a force-close, which leaves a declared hole.
    pub struct PartitionRecord {
        1 id: PartitionId = [uint64],
        2 topic: TopicId = [bytes = "vec"],
        /// Number in the topic, from 0.
        3 index: u32 = [uint32],
        4 epoch: Epoch = [uint32],
        /// None until the first `Assign`.
        5 owner: Option<Owner> = [message, optional],
        /// First offset that readers may see. Inclusive. Never falls.
        6 log_start: Offset = [int64],
        /// Where the open segment begins, or the next one will.
        7 next_offset: Offset = [int64],
        /// Ordinal that the next segment must carry; from 1, never reused (I9).
        8 next_n: u64 = [uint64],
        9 open: Option<OpenSegment> = [message, optional],
        /// None: no segment with data was ever closed.
        10 last: Option<LastClosed> = [message, optional],
        /// Bookies may drop their copies of every segment with n below this (R14). Never falls.
        11 copies_from: u64 = [uint64],
        12 lost: Vec<LostRange> = [message, repeated],
        /// The newest segments that were dropped from the chain for holding no record, at most [`DROPPED_MAX`]: any copy
        /// of one is garbage.
        13 dropped: Vec<u64> = [uint64, repeated],
        /// The manifest of what is in the bucket. None: nothing was folded yet.
        14 root: Option<RootPlace> = [message, optional],
        /// At most [`super::PINS_MAX`].
        15 pins: Vec<PinRecord> = [message, repeated],
    }

    /// A segment that will never grow again. `last`, `end_offset` and `digest` never change (I2).
    pub struct ClosedSegment {
        1 segment: SegmentId = [message, required],
        2 seg_epoch: Epoch = [uint32],
        3 quorum: Quorum = [message, required],
        4 members: Vec<Member> = [message, repeated],
        /// Instances that durably hold all entries 0..=last, at least `quorum.ack` of them but after a force-close.
        5 holders: Vec<Member> = [message, repeated],
        6 base_offset: Offset = [int64],
        /// Exclusive; above `base_offset`: a segment without records is dropped from the chain instead.
        7 end_offset: Offset = [int64],
        /// Last entry, inclusive.
        8 last: EntryId = [uint64],
        /// `chain` of the last entry.
        9 digest: u64 = [fixed64],
        /// Of all entries, headers included.
        10 bytes: u64 = [uint64],
        11 first_ts: i64 = [int64],
        12 max_ts: i64 = [int64],
        13 opened: WallMs = [int64],
        14 closed: WallMs = [int64],
        /// Raised by every change of `members` or `holders`.
        15 ver: u32 = [uint32],
        /// Where the same entries are in the bucket. None: on bookies only.
        16 object: Option<ObjectPlace> = [message, optional],
    }

    /// A partition of a deleted topic: bookies may forget it, fences and all (I8, R14).
    pub struct DeletedPartition {
        1 id: PartitionId = [uint64],
        2 topic: TopicId = [bytes = "vec"],
        3 deleted: WallMs = [int64],
    }
}

impl PartitionRecord {
    pub fn born(id: PartitionId, topic: TopicId, index: u32, incarnation: u8) -> Self {
        Self {
            id,
            topic,
            index,
            epoch: Epoch::first(incarnation),
            owner: None,
            log_start: 0,
            next_offset: 0,
            next_n: 1,
            open: None,
            last: None,
            copies_from: 1,
            lost: Vec::new(),
            dropped: Vec::new(),
            root: None,
            pins: Vec::new(),
        }
    }

    /// Ordinal of the newest segment of the chain: the open one, else the last closed one with data.
    pub fn tail_n(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.n).or(self.last.as_ref().map(|last| last.n))
    }

    pub fn open_id(&self) -> Option<SegmentId> {
        self.open.as_ref().map(|open| SegmentId { partition: self.id, n: open.n })
    }
}

impl ClosedSegment {
    /// True if a copy on this instance is one that metadata counts on.
    pub fn names(&self, instance: esker_types::InstanceId) -> bool {
        self.members.iter().chain(&self.holders).any(|m| m.instance == instance)
    }
}
