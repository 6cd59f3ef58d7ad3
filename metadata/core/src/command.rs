//! What may be asked of the state machine. Each command checks its precondition when it is applied, never before.
//!
//! A time-out on any of them means *unknown*: propose the same again, or decide by a linearizable read.

use esker_types::{
    BookieId, BootId, ClusterId, EntryId, Epoch, GatewayId, InstanceId, Member, Offset, PartitionId, Quorum, SegmentId,
    SessionId, TopicId,
};

use crate::change::Change;
use crate::records::{GatewayAddresses, NodeRef, ObjectPlace, RootPlace};
use crate::wire::{self, DecodeError};

/// Commands that may travel as one raft entry.
pub const COMMANDS_MAX: usize = 1_000;
/// Version of the command encoding that this build writes, and the newest that it reads.
pub const COMMAND_VERSION: u32 = 1;

crate::messages! {
    /// The birth of the cluster. Again with the same id: accepted, changes nothing.
    pub struct InitCluster {
        1 id: ClusterId = [bytes = "vec"],
        /// Default quorums of topics: 1/1 with one bookie, else 3/2.
        2 quorum: Quorum = [message, required],
        3 auto_create_topics: bool = [bool],
        /// 1..=10,000.
        4 default_partitions: u32 = [uint32],
    }

    /// Lets newer formats be written. Requires every registered node to know `version`.
    pub struct FinalizeVersion {
        1 version: u32 = [uint32],
    }

    /// One topic setting by Kafka's name. None takes the setting back to its default.
    pub struct Setting {
        1 name: String = [string],
        2 value: Option<String> = [string, optional],
    }

    pub struct CreateTopic {
        /// Random, made by the proposer: a second try with the same id and name is answered like the first.
        1 id: TopicId = [bytes = "vec"],
        2 name: String = [string],
        /// 0 = the cluster's default.
        3 partitions: u32 = [uint32],
        /// Write quorum; None = the cluster's default.
        4 replication: Option<u32> = [uint32, optional],
        5 settings: Vec<Setting> = [message, repeated],
        /// Set by Esker itself only; requires, and is required by, a name that begins with `__`.
        6 internal: bool = [bool],
        /// Check everything, change nothing.
        7 validate_only: bool = [bool],
    }

    pub struct AlterTopic {
        1 topic: TopicId = [bytes = "vec"],
        2 settings: Vec<Setting> = [message, repeated],
        3 validate_only: bool = [bool],
    }

    /// Changes the settings of a consumer group.
    pub struct AlterGroup {
        1 name: String = [string],
        2 settings: Vec<Setting> = [message, repeated],
        3 validate_only: bool = [bool],
    }

    /// Raises the number of partitions. A count that is there already is answered like a first success.
    pub struct AddPartitions {
        1 topic: TopicId = [bytes = "vec"],
        /// New total.
        2 total: u32 = [uint32],
        3 validate_only: bool = [bool],
    }

    pub struct DeleteTopic {
        1 topic: TopicId = [bytes = "vec"],
    }

    /// Maps the name to an id and opens a session. Refused while another boot's session of that name lives.
    pub struct RegisterGateway {
        1 name: String = [string],
        2 boot: BootId = [bytes = "vec"],
        3 addresses: GatewayAddresses = [message, required],
        4 zone: String = [string],
        5 version: u32 = [uint32],
    }

    /// Maps the name to an id, claims the instance for this boot and opens a session. The newest boot of an instance
    /// wins; a running process learns that it lost from its number, which is no longer the record's.
    pub struct RegisterBookie {
        1 name: String = [string],
        2 instance: InstanceId = [bytes = "vec"],
        3 boot: BootId = [bytes = "vec"],
        /// The record's `boot_no` as read just before; 0 for an instance that was never registered.
        4 expect_boot_no: u64 = [uint64],
        5 durable_lsn: u64 = [uint64],
        6 address: String = [string],
        7 zone: String = [string],
        8 version: u32 = [uint32],
        /// Operator's word that the name's former instance is gone (`--new-instance`): it becomes LOST for ever.
        9 replaces: Option<InstanceId> = [bytes = "vec", optional],
    }

    /// News from a running bookie. Refused when a later boot has registered: the sender must stop.
    pub struct ReportBookie {
        1 bookie: BookieId = [uint64],
        2 instance: InstanceId = [bytes = "vec"],
        3 boot_no: u64 = [uint64],
        4 durable_lsn: u64 = [uint64],
        5 read_only: bool = [bool],
        6 disk_total: u64 = [uint64],
        7 disk_used: u64 = [uint64],
    }

    /// A new session for a registered process whose old one ended while it lived. Again: the same session.
    pub struct OpenSession {
        1 node: NodeRef = [message, required],
        2 boot: BootId = [bytes = "vec"],
    }

    /// Proposed by the leader's controller only. Travels in one entry with the `Assign`s of what it leaves behind.
    pub struct ExpireSession {
        1 session: SessionId = [uint64],
    }

    pub struct DrainGateway {
        1 gateway: GatewayId = [uint64],
        2 draining: bool = [bool],
    }

    pub struct DrainBookie {
        1 bookie: BookieId = [uint64],
        2 draining: bool = [bool],
    }

    /// Operator's word that an instance will never come back. Final.
    pub struct LoseBookie {
        1 bookie: BookieId = [uint64],
        2 instance: InstanceId = [bytes = "vec"],
    }

    /// Reserves ids for a gateway to hand out.
    pub struct AllocProducerIds {
        /// 1..=1,000,000.
        1 count: u32 = [uint32],
    }

    /// Gives a partition to a session (R1). The new owner must recover before it writes.
    pub struct Assign {
        1 partition: PartitionId = [uint64],
        2 expect_epoch: Epoch = [uint32],
        3 session: SessionId = [uint64],
    }

    /// The owner gives up: it can't go on and wants another owner, or itself anew, to recover. The epoch stays; the next
    /// `Assign` raises it.
    pub struct Release {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 session: SessionId = [uint64],
    }

    /// A segment to be opened.
    pub struct NextSegment {
        1 n: u64 = [uint64],
        2 quorum: Quorum = [message, required],
        3 members: Vec<Member> = [message, repeated],
    }

    pub struct Open {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        /// The record's `tail_n()`.
        3 prev: Option<u64> = [uint64, optional],
        4 next: NextSegment = [message, required],
    }

    /// How an open segment ends. `last`, `end_offset` and `digest` must be the same in every try.
    pub struct Close {
        1 n: u64 = [uint64],
        /// None: the segment holds no entry at all.
        2 last: Option<EntryId> = [uint64, optional],
        /// Equal to the segment's base offset if it holds no record: then it is dropped from the chain.
        3 end_offset: Offset = [int64],
        4 digest: u64 = [fixed64],
        5 bytes: u64 = [uint64],
        6 first_ts: i64 = [int64],
        7 max_ts: i64 = [int64],
        8 holders: Vec<Member> = [message, repeated],
    }

    /// Closes the tail, and opens the next segment if one is given (R2).
    pub struct Roll {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 close: Close = [message, required],
        4 next: Option<NextSegment> = [message, optional],
    }

    /// As `Roll`, and in the same step gives the partition, at the next epoch, to `to_session` (R2).
    pub struct Handover {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        /// None: the partition has no open segment.
        3 close: Option<Close> = [message, optional],
        4 to_session: SessionId = [uint64],
        5 next: Option<NextSegment> = [message, optional],
    }

    /// Operator's way out when coverage is gone for good: closes at what is readable, declares
    /// [end_offset, next multiple of 2^40) lost, and goes on behind it. `close.holders` may be fewer than Qa, not none.
    pub struct ForceClose {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 close: Close = [message, required],
    }

    /// Declares offsets [from, to) of closed segments lost.
    pub struct DataLoss {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 from: Offset = [int64],
        4 to: Offset = [int64],
    }

    /// Blocks garbage collection of a copy in the making (R13). The segment may be closed (`ver` counts) or open
    /// (`epoch` counts). Again: the longer of both times.
    pub struct PutIntent {
        1 segment: SegmentId = [message, required],
        2 ver: u32 = [uint32],
        3 epoch: Epoch = [uint32],
        4 member: Member = [message, required],
        /// Milliseconds, 1..=86,400,000.
        5 ttl_ms: u32 = [uint32],
    }

    /// Names `new` in place of `old` on a closed segment. Requires a live intent for `new` (R13).
    pub struct ReplaceMember {
        1 segment: SegmentId = [message, required],
        2 ver: u32 = [uint32],
        3 old: Member = [message, required],
        4 new: Member = [message, required],
    }

    /// Lets bookies drop their copies of segments below `upto_n`, exclusive. Never past the tail.
    pub struct DropBookieCopies {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 upto_n: u64 = [uint64],
    }

    /// First phase of deleting records: readers are refused below `log_start` from now on (R16).
    pub struct DeleteBegin {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 log_start: Offset = [int64],
    }

    /// Second phase: forgets segments below `upto_n`, exclusive, whose records lie below the log start and whose
    /// copies were given up.
    pub struct DeleteDone {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 upto_n: u64 = [uint64],
    }

    /// A closed segment is safe in the bucket: written, read back and found whole (R12). The loser of two attempts is
    /// refused; its object is left to the sweep.
    pub struct OffloadCommit {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 n: u64 = [uint64],
        /// The segment's, as the object's footer says it.
        4 digest: u64 = [fixed64],
        5 end_offset: Offset = [int64],
        6 place: ObjectPlace = [message, required],
    }

    /// Puts a new version of the manifest in place of version `expect_ver`, 0 for the first one. All segments up to
    /// `root.folded_to` must be in objects, or below the log start.
    pub struct SetRoot {
        1 partition: PartitionId = [uint64],
        2 epoch: Epoch = [uint32],
        3 expect_ver: u64 = [uint64],
        4 root: RootPlace = [message, required],
        /// Readers are refused below it from now on, as by `DeleteBegin`.
        5 log_start: Option<Offset> = [int64, optional],
    }

    /// Keeps what version `root_ver` of the manifest reaches from being deleted. Of the current version, or of one that
    /// `id` holds already.
    pub struct Pin {
        1 partition: PartitionId = [uint64],
        2 id: u64 = [uint64],
        3 root_ver: u64 = [uint64],
        /// Milliseconds, up to 7 days; renew it in time.
        4 ttl_ms: u32 = [uint32],
    }

    pub struct Unpin {
        1 partition: PartitionId = [uint64],
        2 id: u64 = [uint64],
    }

    /// A piece of what was rebuilt from a backup, into a state machine without a cluster; the cluster's own record comes
    /// with the last piece. Pieces follow each other by the hash of the rows, so that one that comes twice, or one of
    /// another backup, is seen.
    pub struct Restore {
        /// Rows put; none is removed.
        1 rows: Vec<Change> = [message, repeated],
        /// `State::rows_hash` before and after.
        2 before: u64 = [fixed64],
        3 after: u64 = [fixed64],
    }
}

crate::union! {
    /// One command.
    pub enum Command {
        1 InitCluster(InitCluster),
        2 FinalizeVersion(FinalizeVersion),
        3 CreateTopic(CreateTopic),
        4 AlterTopic(AlterTopic),
        5 AddPartitions(AddPartitions),
        6 DeleteTopic(DeleteTopic),
        7 AlterGroup(AlterGroup),
        10 RegisterGateway(RegisterGateway),
        11 RegisterBookie(RegisterBookie),
        12 ReportBookie(ReportBookie),
        13 OpenSession(OpenSession),
        14 ExpireSession(ExpireSession),
        15 DrainGateway(DrainGateway),
        16 DrainBookie(DrainBookie),
        17 LoseBookie(LoseBookie),
        18 AllocProducerIds(AllocProducerIds),
        30 Assign(Assign),
        31 Open(Open),
        32 Roll(Roll),
        33 Handover(Handover),
        34 ForceClose(ForceClose),
        35 DataLoss(DataLoss),
        36 Release(Release),
        40 PutIntent(PutIntent),
        41 ReplaceMember(ReplaceMember),
        42 DropBookieCopies(DropBookieCopies),
        43 DeleteBegin(DeleteBegin),
        44 DeleteDone(DeleteDone),
        50 OffloadCommit(OffloadCommit),
        51 SetRoot(SetRoot),
        52 Pin(Pin),
        53 Unpin(Unpin),
        60 Restore(Restore),
    }
}

crate::messages! {
    /// What one raft entry carries.
    pub struct CommandBatch {
        1 version: u32 = [uint32],
        /// Wall clock of the leader that took the commands, ms. Apply uses the larger of this and all before.
        2 wall_ms: i64 = [int64],
        3 commands: Vec<Command> = [message, repeated],
    }
}

impl CommandBatch {
    pub fn new(wall_ms: i64, commands: Vec<Command>) -> Self {
        Self { version: COMMAND_VERSION, wall_ms, commands }
    }

    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let batch: Self = wire::decode(bytes)?;
        match batch {
            batch if batch.version > COMMAND_VERSION => Err(DecodeError::Newer("command batch")),
            batch if batch.version == 0 => Err(DecodeError::Invalid("command batch without a version")),
            batch if batch.commands.len() > COMMANDS_MAX => Err(DecodeError::Invalid("over 1,000 commands in a batch")),
            batch => Ok(batch),
        }
    }
}

impl Command {
    /// The name in logs and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::InitCluster(_) => "init-cluster",
            Self::FinalizeVersion(_) => "finalize-version",
            Self::CreateTopic(_) => "create-topic",
            Self::AlterTopic(_) => "alter-topic",
            Self::AddPartitions(_) => "add-partitions",
            Self::DeleteTopic(_) => "delete-topic",
            Self::AlterGroup(_) => "alter-group",
            Self::RegisterGateway(_) => "register-gateway",
            Self::RegisterBookie(_) => "register-bookie",
            Self::ReportBookie(_) => "report-bookie",
            Self::OpenSession(_) => "open-session",
            Self::ExpireSession(_) => "expire-session",
            Self::DrainGateway(_) => "drain-gateway",
            Self::DrainBookie(_) => "drain-bookie",
            Self::LoseBookie(_) => "lose-bookie",
            Self::AllocProducerIds(_) => "alloc-producer-ids",
            Self::Assign(_) => "assign",
            Self::Open(_) => "open",
            Self::Roll(_) => "roll",
            Self::Handover(_) => "handover",
            Self::ForceClose(_) => "force-close",
            Self::DataLoss(_) => "data-loss",
            Self::Release(_) => "release",
            Self::PutIntent(_) => "put-intent",
            Self::ReplaceMember(_) => "replace-member",
            Self::DropBookieCopies(_) => "drop-bookie-copies",
            Self::DeleteBegin(_) => "delete-begin",
            Self::DeleteDone(_) => "delete-done",
            Self::OffloadCommit(_) => "offload-commit",
            Self::SetRoot(_) => "set-root",
            Self::Pin(_) => "pin",
            Self::Unpin(_) => "unpin",
            Self::Restore(_) => "restore",
        }
    }
}
