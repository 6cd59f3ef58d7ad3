//! What a command answers.

use esker_types::{BookieId, Epoch, ErrorCode, GatewayId, PartitionId, ProducerId, SessionId, TopicId};

use crate::wire::{Canon, DecodeError, Wire};

crate::messages! {
    pub struct Done {}

    pub struct TopicReply {
        1 topic: TopicId = [bytes = "vec"],
        /// By index.
        2 partitions: Vec<PartitionId> = [uint64, repeated],
    }

    pub struct GatewayReply {
        1 gateway: GatewayId = [uint64],
        2 session: SessionId = [uint64],
    }

    pub struct BookieReply {
        1 bookie: BookieId = [uint64],
        /// The registering process's number; it must stop when the record shows another.
        2 boot_no: u64 = [uint64],
        3 session: SessionId = [uint64],
    }

    pub struct SessionReply {
        1 session: SessionId = [uint64],
    }

    /// Ids `first..first + count`.
    pub struct ProducerIdsReply {
        1 first: ProducerId = [uint64],
        2 count: u32 = [uint32],
    }

    /// `Assign`, `Handover`: the new epoch.
    pub struct EpochReply {
        1 epoch: Epoch = [uint32],
    }

    /// `ForceClose`: the declared hole.
    pub struct LostReply {
        1 from: i64 = [int64],
        2 to: i64 = [int64],
    }
}

crate::union! {
    /// The answer to a command that was applied.
    pub enum Reply {
        1 Done(Done),
        2 Topic(TopicReply),
        3 Gateway(GatewayReply),
        4 Bookie(BookieReply),
        5 Session(SessionReply),
        6 ProducerIds(ProducerIdsReply),
        7 Epoch(EpochReply),
        8 Lost(LostReply),
    }
}

impl Reply {
    pub const DONE: Reply = Reply::Done(Done {});
}

/// A command that changed nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Reject {
    pub code: ErrorCode,
    /// One line for a person, with the values.
    pub reason: String,
}

impl Reject {
    pub fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// A stated precondition did not hold.
    pub(crate) fn precondition(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::Precondition, reason)
    }
}

pub type CommandResult = Result<Reply, Reject>;

crate::messages! {
    /// `Reject` as sent.
    pub struct RejectMessage {
        1 code: u32 = [uint32],
        2 reason: String = [string],
    }

    /// [`CommandResult`] as sent: exactly one field is set.
    pub struct ResultMessage {
        1 reply: Option<Reply> = [message, optional],
        2 reject: Option<RejectMessage> = [message, optional],
    }
}

impl Wire for Reject {
    type Proto = <RejectMessage as Wire>::Proto;
    fn to_wire(&self) -> Self::Proto {
        RejectMessage { code: (self.code as u16).into(), reason: self.reason.clone() }.to_wire()
    }
    fn from_wire(proto: Self::Proto) -> Result<Self, DecodeError> {
        let code = u16::try_from(proto.code).ok().and_then(ErrorCode::from_u16);
        // A newer node's code: the reason still says what happened.
        Ok(Self { code: code.unwrap_or(ErrorCode::Precondition), reason: proto.reason })
    }
    fn digest(&self, into: &mut Canon) {
        into.word(u64::from(self.code as u16));
        self.reason.digest(into);
    }
}

impl Wire for CommandResult {
    type Proto = <ResultMessage as Wire>::Proto;
    fn to_wire(&self) -> Self::Proto {
        match self {
            Ok(reply) => ResultMessage { reply: Some(reply.clone()), reject: None }.to_wire(),
            Err(reject) => {
                let mut proto = ResultMessage { reply: None, reject: None }.to_wire();
                proto.reject = Some(reject.to_wire());
                proto
            }
        }
    }
    fn from_wire(proto: Self::Proto) -> Result<Self, DecodeError> {
        match (proto.reply, proto.reject) {
            (Some(reply), None) => Ok(Ok(Reply::from_wire(reply)?)),
            (None, Some(reject)) => Ok(Err(Reject::from_wire(reject)?)),
            _ => Err(DecodeError::Invalid("command result is not exactly one of reply and reject")),
        }
    }
    fn digest(&self, into: &mut Canon) {
        match self {
            Ok(reply) => reply.digest(into),
            Err(reject) => reject.digest(into),
        }
    }
}
