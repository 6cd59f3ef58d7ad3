//! What bookies say to the writer of a segment, free of the wire's form, and what the writer sends.

use esker_types::{Entry, EntryId, Epoch, InstanceId, Member, SegmentId};

/// One ADD to one member. The member's queue keeps the order of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    pub member: Member,
    pub segment: SegmentId,
    /// Epoch of the writer now; not the one in the entry header, which is the segment's.
    pub req_epoch: Epoch,
    /// Count of entries known to be acked: `0..lac`.
    pub lac: u64,
    /// Written by a recoverer: taken also by read-only members and by members outside the segment's own set.
    pub recovery: bool,
    pub entry: Entry,
}

/// A member's answer to ADDs: one may answer many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddAnswer {
    pub segment: SegmentId,
    /// The instance that was asked; only `WrongInstance` comes from another one.
    pub instance: InstanceId,
    /// Echo of the request's epoch.
    pub req_epoch: Epoch,
    pub kind: AddAnswerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddAnswerKind {
    /// Entries `0..durable` are fsynced.
    Ok {
        durable: u64,
    },
    /// The entry came too early: the member has accepted only `0..accepted`.
    Gap {
        accepted: u64,
    },
    /// A fence with a higher epoch was seen.
    Fenced {
        max_epoch: Epoch,
    },
    /// Entry `entry` is there with other bytes.
    Conflict {
        entry: EntryId,
    },
    ReadOnly,
    Limbo,
    WrongInstance,
}

/// A member's answer to FENCE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceAnswer {
    pub segment: SegmentId,
    pub instance: InstanceId,
    pub req_epoch: Epoch,
    pub kind: FenceAnswerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceAnswerKind {
    /// The fence is durable. `durable` and `lac` are counts; `limbo`: what it held is not known for sure.
    Ok {
        durable: u64,
        lac: u64,
        limbo: bool,
    },
    Fenced {
        max_epoch: Epoch,
    },
    WrongInstance,
}
