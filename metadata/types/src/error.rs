//! One table of errors for both doors and for the links between nodes. Codes are on the wire: never renumber one.

/// What the caller should do. Sent with every error, so that old clients can treat new codes right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorClass {
    /// The same request will fail again: fix it or report it.
    Fatal = 0,
    /// Nothing was done. Try the same request again after a back-off.
    Retry = 1,
    /// Nothing was done here. Learn the partition's owner anew, then try again there.
    RefreshMetadata = 2,
    /// It may or may not have been done. Only an idempotent request may be repeated blindly.
    UnknownOutcome = 3,
}

macro_rules! error_table {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $class:ident, kafka $kafka:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $name = $code,)* }

        impl ErrorCode {
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            pub fn from_u16(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            pub fn class(self) -> ErrorClass {
                match self { $(Self::$name => ErrorClass::$class,)* }
            }

            /// The code that a Kafka client is given.
            pub fn kafka(self) -> i16 {
                match self { $(Self::$name => $kafka,)* }
            }

            /// The name in logs, JSON and documents.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

error_table! {
    /// A bug of ours, or a peer that broke the protocol.
    Internal = 1, Fatal, kafka -1;
    /// The request does not parse or breaks a rule that the message names.
    InvalidRequest = 2, Fatal, kafka 42;
    /// An opcode that this side does not know.
    UnknownOpcode = 3, Fatal, kafka 35;
    UnsupportedVersion = 4, Fatal, kafka 35;
    /// The peer belongs to another cluster.
    WrongCluster = 5, Fatal, kafka 104;
    NotAuthorized = 6, Fatal, kafka 29;
    /// The deadline passed before the work began.
    TimedOutBefore = 7, Retry, kafka 7;
    /// The deadline passed while it was under way.
    TimedOutUnknown = 8, UnknownOutcome, kafka 7;
    /// A bound was reached; the message names the configuration key.
    Overloaded = 9, Retry, kafka 89;
    ShuttingDown = 10, RefreshMetadata, kafka 6;
    /// No quorum of metadata nodes answers.
    MetadataUnavailable = 11, Retry, kafka 15;
    /// The metadata node asked is not the leader.
    NotLeader = 12, RefreshMetadata, kafka 41;

    UnknownTopic = 20, Fatal, kafka 3;
    UnknownPartition = 21, Fatal, kafka 3;
    TopicExists = 22, Fatal, kafka 36;
    InvalidTopicName = 23, Fatal, kafka 17;
    InvalidConfig = 24, Fatal, kafka 40;
    InvalidPartitions = 25, Fatal, kafka 37;
    InvalidReplicationFactor = 26, Fatal, kafka 38;
    UnknownTopicId = 27, RefreshMetadata, kafka 100;
    TopicDeleted = 28, Fatal, kafka 3;

    /// This gateway does not own the partition.
    NotOwner = 40, RefreshMetadata, kafka 6;
    /// It owned the partition when the request came, and lost it: the outcome is decided by the next owner's dedupe.
    Moved = 41, UnknownOutcome, kafka 6;
    /// The owner is still recovering the partition.
    Recovering = 42, Retry, kafka 5;
    /// Too few bookies take entries for the ack quorum. Some may hold the batch: it is stored if they return.
    NotEnoughBookies = 43, UnknownOutcome, kafka 20;
    FencedEpoch = 44, RefreshMetadata, kafka 74;
    UnknownEpoch = 45, Retry, kafka 75;
    OffsetOutOfRange = 46, Fatal, kafka 1;
    /// The offset exists or will, but this gateway can't serve it now.
    OffsetNotAvailable = 47, Retry, kafka 78;
    /// Records in the range named by the message are lost for good; reading goes on behind it only if asked.
    DataLoss = 48, Fatal, kafka 56;

    CorruptBatch = 60, Fatal, kafka 2;
    BatchTooLarge = 61, Fatal, kafka 10;
    InvalidBatch = 62, Fatal, kafka 87;
    InvalidTimestamp = 63, Fatal, kafka 32;
    UnsupportedCompression = 64, Fatal, kafka 76;
    /// A sequence gap: an earlier batch of this producer is missing.
    OutOfOrderSequence = 65, Fatal, kafka 45;
    /// A newer epoch of this producer exists.
    ProducerFenced = 66, Fatal, kafka 90;
    InvalidProducerEpoch = 67, Fatal, kafka 47;
    /// The producer's state is not in the log any more; its first batch here must carry sequence 0.
    UnknownProducer = 68, Fatal, kafka 59;
    /// The producer table of the partition is full of live producers.
    TooManyProducers = 69, Retry, kafka 89;
    /// An earlier batch of this producer failed, so this one was not tried.
    EarlierBatchFailed = 70, Retry, kafka 45;

    /// A bookie has seen a higher epoch for the partition.
    Fenced = 80, RefreshMetadata, kafka 6;
    /// The directories that answer are not the instance that was asked for.
    WrongInstance = 81, RefreshMetadata, kafka -1;
    ReadOnly = 82, Retry, kafka 56;
    /// After damage the bookie does not know what it held of this segment.
    Limbo = 83, Retry, kafka 56;
    /// Entry e is there with other bytes: a bug of ours.
    Conflict = 84, Fatal, kafka -1;
    /// An entry before this one is missing; the answer carries the last one held.
    Gap = 85, Retry, kafka -1;
    NoSuchEntry = 86, Fatal, kafka -1;
    /// The entry was held and can't be read back.
    Damaged = 87, Retry, kafka 56;

    /// Not one that a group may have: empty.
    InvalidGroupId = 120, Fatal, kafka 24;
    /// This gateway does not coordinate the group.
    NotCoordinator = 121, RefreshMetadata, kafka 16;
    /// The coordinator has not read the group's state yet.
    CoordinatorLoading = 122, Retry, kafka 14;
    CoordinatorUnavailable = 123, Retry, kafka 15;
    UnknownGroup = 124, Fatal, kafka 69;
    GroupNotEmpty = 125, Fatal, kafka 68;
    /// The group has as many members as it may.
    GroupFull = 126, Fatal, kafka 81;
    /// Another kind of group uses the name, or no protocol is known to all members.
    InconsistentGroupProtocol = 127, Fatal, kafka 23;
    UnknownMember = 128, Fatal, kafka 25;
    /// Join again with the member id of the answer.
    MemberIdRequired = 129, Retry, kafka 79;
    IllegalGeneration = 130, Fatal, kafka 22;
    RebalanceInProgress = 131, Retry, kafka 27;
    InvalidSessionTimeout = 132, Fatal, kafka 26;
    /// A newer member uses the same instance id.
    FencedInstance = 133, Fatal, kafka 82;
    /// The member of this instance id has not left.
    UnreleasedInstance = 134, Fatal, kafka 111;
    FencedMemberEpoch = 135, Fatal, kafka 110;
    StaleMemberEpoch = 136, Fatal, kafka 113;
    UnsupportedAssignor = 137, Fatal, kafka 112;
    InvalidRegex = 138, Fatal, kafka 128;
    OffsetMetadataTooLarge = 139, Fatal, kafka 12;
    GroupSubscribed = 140, Fatal, kafka 86;

    /// A precondition of a metadata command did not hold; the message says which.
    Precondition = 100, Fatal, kafka 42;
    NoSuchSession = 101, RefreshMetadata, kafka -1;
    /// Another live process uses this node name.
    NameInUse = 102, Retry, kafka -1;
    UnknownNode = 103, Fatal, kafka 102;
    /// The data in the folder or the cluster is of a newer version than this program writes.
    NewerVersion = 104, Fatal, kafka 35;
}

/// The control part of an error answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorInfo {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(enumeration = "ErrorClass", tag = "2")]
    pub class: i32,
    /// One line for a person: what is wrong and what to do.
    #[prost(string, tag = "3")]
    pub message: String,
    /// The partition's owner as this side knows it, with `NotOwner`, `Moved` and `FencedEpoch`.
    #[prost(message, optional, tag = "4")]
    pub owner: Option<OwnerHint>,
    /// Suggested wait before the next try; 0 = the caller's own back-off.
    #[prost(uint32, tag = "5")]
    pub retry_after_ms: u32,
    /// `DataLoss`: [from, to); `OffsetOutOfRange`: [log start, high watermark].
    #[prost(int64, tag = "6")]
    pub from: i64,
    #[prost(int64, tag = "7")]
    pub to: i64,
}

/// Who owns a partition. A higher epoch is newer news.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OwnerHint {
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
    /// Gateway id, 0 = nobody at the moment.
    #[prost(uint64, tag = "2")]
    pub gateway: u64,
    /// `host:port` of the gateway's QUIC door, in order of preference.
    #[prost(string, repeated, tag = "3")]
    pub addresses: Vec<String>,
}

impl ErrorInfo {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: (code as u16).into(), class: code.class() as i32, message: message.into(), ..Self::default() }
    }

    /// None: a newer peer sent a code that this build does not know; `class` still tells what to do.
    pub fn error_code(&self) -> Option<ErrorCode> {
        u16::try_from(self.code).ok().and_then(ErrorCode::from_u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_are_unique() {
        let mut codes: Vec<u16> = ErrorCode::ALL.iter().map(|c| *c as u16).collect();
        assert!(ErrorCode::ALL.iter().all(|c| ErrorCode::from_u16(*c as u16) == Some(*c)));
        codes.dedup();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
    }
}
