//! What goes into a [`Partition`](super::Partition) and what comes out of it.
//!
//! Rules for the shell: every [`Tag`]ged effect is answered by exactly one event with that tag, however late, also
//! when nothing came back (then the answer says so). ADDs and FENCEs need no such care: what is lost is sent again.
//! Events may come late, twice and in any order; a stale one is ignored.

use bytes::Bytes;
use esker_bookie_core::owner::{Add, AddAnswer, FenceAnswer};
use esker_metadata_core::{Command, PartitionInfo};
use esker_types::{
    BookieId, Entry, EntryId, Epoch, ErrorCode, InstanceId, Member, Offset, Quorum, SegmentId, SessionId, WallMs,
};
use esker_wire::batch::Batch;

/// Chosen by the shell; names one `Append` or `DeleteRecords`, which is answered by exactly one `Complete`.
pub type Ticket = u64;
/// Chosen by the partition; names one question to the shell.
pub type Tag = u64;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// What metadata has committed about the partition, from the watch; older news than known is ignored.
    Info {
        revision: u64,
        info: PartitionInfo,
    },
    /// The topic is gone for good.
    Deleted,
    /// Answer to `ReadRecord`.
    RecordRead {
        tag: Tag,
        result: RecordRead,
    },
    /// Answer to `Propose`.
    Proposed {
        tag: Tag,
        outcome: ProposeOutcome,
    },
    /// Answer to `PickMembers`; None: too few bookies for the ack quorum.
    Members {
        tag: Tag,
        choice: Option<MemberChoice>,
    },
    /// A validated batch of a client.
    Append {
        ticket: Ticket,
        batch: Batch,
    },
    AddAnswer(AddAnswer),
    FenceAnswer(FenceAnswer),
    /// The connection that carries ADDs to this member broke (`up = false`: everything in flight may be lost) or was
    /// made anew (`up = true`: unacknowledged entries are sent again).
    Link {
        instance: InstanceId,
        up: bool,
    },
    /// Answer to `ReadEntries`.
    Entries {
        tag: Tag,
        result: EntriesRead,
    },
    /// The controller or an operator asks the owner to hand the partition over to a live session.
    MoveTo {
        to: SessionId,
    },
    /// Stop taking appends for good: the process is about to end. Answered by `Drained` when nothing is in flight.
    Drain,
    /// State that the previous owner sent; used only if its digest is the one in metadata.
    Transfer(Transfer),
    /// Raise the log start to `before` (clamped to the high watermark is the caller's duty: beyond it is refused).
    DeleteRecords {
        ticket: Ticket,
        before: Offset,
    },
    Settings(Settings),
    /// Now and then (about each 30 s): apply retention with the wall clock.
    Retention {
        wall: WallMs,
    },
    /// The time given with the event has come; see `Partition::deadline`.
    Tick,
}

/// Something is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send in order per member; when the link is down drop it (and say `Link` when it is up again).
    SendAdd(Add),
    SendFence {
        member: Member,
        segment: SegmentId,
        epoch: Epoch,
    },
    /// Read entries `from..to` of one member, at least one entry, then up to `bytes_max`. [`Member::BUCKET`]: of the
    /// segment's object.
    ReadEntries {
        tag: Tag,
        member: Member,
        segment: SegmentId,
        from: EntryId,
        to: EntryId,
        bytes_max: u32,
    },
    Propose {
        tag: Tag,
        command: Command,
    },
    /// Linearizable read of the partition's record.
    ReadRecord {
        tag: Tag,
    },
    /// Placement: `wanted.write` live members, fewer but at least `wanted.ack` if there are no more.
    PickMembers {
        tag: Tag,
        wanted: Quorum,
        exclude: Vec<BookieId>,
    },
    Complete {
        ticket: Ticket,
        result: Result<Completed, Refusal>,
    },
    /// An entry with records is acked: for the tail cache and waiting readers.
    Committed(Entry),
    /// Offsets below this may be read. Published only when recovered; never moves back at this owner.
    HighWatermark(Offset),
    LogStart(Offset),
    /// Bytes waiting or in flight reached their bound (`open = false`), or fell well below it again.
    Flow {
        open: bool,
    },
    /// For gauges, redirects and waiting clients.
    Phase(Phase),
    /// Give the new owner what it needs to start at once.
    SendTransfer {
        to: SessionId,
        transfer: Transfer,
    },
    /// After `Drain`: everything that was in flight is answered.
    Drained,
    /// The partition can't go on under this epoch in this process: ask the controller to assign it anew.
    NeedAssign,
    /// A member made trouble and gets no more of its segment: placement should avoid it for a while (10 s, doubling).
    Suspect(Member),
    Alarm(Alarm),
}

#[derive(Clone, Debug)]
pub enum RecordRead {
    Info {
        revision: u64,
        info: PartitionInfo,
    },
    /// The partition is deleted.
    Gone,
    /// No answer.
    Failed,
}

/// What became of a proposed command.
#[derive(Clone, Debug)]
pub enum ProposeOutcome {
    /// Applied, its precondition held.
    Applied { revision: u64 },
    /// Applied as a rejected command: this very try did nothing. An earlier try with an unknown outcome may have worked.
    Rejected { code: ErrorCode, reason: String },
    /// It was refused before it could enter the log.
    NotApplied,
    /// It may have been applied, or may be later.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChoice {
    /// As many as `quorum.write`.
    pub members: Vec<Member>,
    pub quorum: Quorum,
}

#[derive(Clone, Debug)]
pub enum EntriesRead {
    /// Consecutive entries from `from` on, each header and payload; may be fewer than asked for, at least one.
    Data(Vec<Bytes>),
    NoSuchEntry,
    /// Damaged, limbo, wrong instance, time-out: try another copy.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Offset of the batch's first record (`Append`), or the new log start (`DeleteRecords`).
    pub base_offset: Offset,
    /// The batch had been stored before; `base_offset` is the original one.
    pub duplicate: bool,
}

/// Why an append or delete was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    pub code: ErrorCode,
    pub reason: String,
}

/// Producer state and position at the end of a closed segment, sent by the owner that closed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Digest of the closed segment.
    pub digest: u64,
    pub end_offset: Offset,
    /// Producer snapshot, chunks in order.
    pub snapshot: Vec<Bytes>,
}

/// What the topic's configuration says about this partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Width wanted for new segments; a roll with fewer members is degraded.
    pub quorum: Quorum,
    /// Close a segment at this size.
    pub segment_bytes: u64,
    /// Close a segment that holds at least 1 MiB after this time, a smaller one after six times as long. Milliseconds.
    pub segment_ms: u64,
    /// None: keep for ever.
    pub retention_ms: Option<u64>,
    pub retention_bytes: Option<u64>,
}

/// Where in its life the partition is, at this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Owned by someone else, or by nobody.
    Idle,
    /// Fencing, copying, closing, or reading producer state.
    Recovering { epoch: Epoch },
    /// Takes appends and serves reads.
    Ready { epoch: Epoch },
    /// Owns the partition and gave up: see the alarm.
    Stopped { epoch: Epoch },
}

/// Something that a person must look at; the partition stays safe and stops instead of guessing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    #[error("segment {segment}: entry {entry} on {instance} has other bytes than ours; the partition is stopped")]
    Conflict { segment: SegmentId, entry: EntryId, instance: InstanceId },
    #[error(
        "segment {segment}: recovery still waits for members ({answered} of {needed} answered); bring them back, or force-close"
    )]
    NoCoverage { segment: SegmentId, answered: usize, needed: usize },
    #[error(
        "segment {segment}: {acked} entries were acked, but members hold only {end}; bring back the missing member, or force-close"
    )]
    Loss { segment: SegmentId, acked: u64, end: u64 },
    #[error("segment {segment}: entry {entry} can't be read from any member; bring them back, or force-close")]
    Unreadable { segment: SegmentId, entry: EntryId },
    #[error("segment {segment}: the copy read back does not fit the committed record ({what})")]
    BadChain { segment: SegmentId, what: &'static str },
}
