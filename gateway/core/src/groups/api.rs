//! Requests and responses as plain data: the door translates between these and Kafka's encodings.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use esker_types::{ErrorCode, TopicId};

/// One request about one group (but for `List`).
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Join(Join),
    Sync(SyncGroup),
    Heartbeat(Heartbeat),
    Leave(Leave),
    Commit(Commit),
    Fetch(Fetch),
    Describe { group: String },
    List(List),
    Delete { group: String },
    DeleteOffsets { group: String, partitions: Vec<(String, i32)> },
    ConsumerHeartbeat(ConsumerHeartbeat),
    ConsumerDescribe { group: String },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Join(Result<Joined, JoinRefused>),
    Sync(Result<Synced, ErrorCode>),
    Heartbeat(Result<(), ErrorCode>),
    /// Per member, in the order of the request.
    Leave(Result<Vec<Result<(), ErrorCode>>, ErrorCode>),
    /// Per partition, in the order of the request.
    Commit(Vec<Result<(), ErrorCode>>),
    Fetch(Result<Vec<Fetched>, ErrorCode>),
    Describe(Described),
    List(Vec<Listed>),
    Delete(Result<(), ErrorCode>),
    DeleteOffsets(Result<Vec<Result<(), ErrorCode>>, ErrorCode>),
    ConsumerHeartbeat(Result<ConsumerHeartbeated, Refused>),
    ConsumerDescribe(Result<ConsumerDescribed, ErrorCode>),
}

/// Who a member says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Empty: it has no member id yet.
    pub member: String,
    /// A static member's own name.
    pub instance: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub group: String,
    pub who: Identity,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    /// Name and the member's opaque metadata, best liked first.
    pub protocols: Vec<(String, Bytes)>,
    /// The client can be told a member id first (JoinGroup 4 and later).
    pub knows_member_ids: bool,
    /// The client understands that a leader need not assign (JoinGroup 9 and later).
    pub knows_skip: bool,
    /// Makes the member id unique, should one be given out.
    pub fresh: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member: String,
    /// The leader is to keep the assignment as it is.
    pub skip_assignment: bool,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub who: Identity,
    pub metadata: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    pub code: ErrorCode,
    /// The id to join with, after `MemberIdRequired`; else what the client sent.
    pub member: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroup {
    pub group: String,
    pub who: Identity,
    pub generation: i32,
    /// As the client knows them; None: an old client that does not tell.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// From the leader: member id and opaque assignment.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub group: String,
    pub who: Identity,
    pub generation: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    pub group: String,
    pub members: Vec<Identity>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub group: String,
    pub who: Identity,
    /// Generation or member epoch; negative: a client that is not a member.
    pub generation: i32,
    /// The client knows member epochs (OffsetCommit 9 and later).
    pub knows_epochs: bool,
    /// Of OffsetCommit 2 to 4; None: the cluster's.
    pub retention: Option<Duration>,
    pub offsets: Vec<CommitOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// -1 = not known.
    pub leader_epoch: i32,
    pub metadata: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub group: String,
    /// Member and epoch of the consumer protocol (OffsetFetch 9 and later); None: nobody asks as a member.
    pub member: Option<(String, i32)>,
    /// None: all that the group has.
    pub partitions: Option<Vec<(String, i32)>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub topic: String,
    pub partition: i32,
    /// -1 = nothing is committed.
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

/// A group as `DescribeGroups` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub error: Option<ErrorCode>,
    pub group: String,
    /// `Dead` for a group that does not exist.
    pub state: &'static str,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub who: Identity,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// Filters; an empty one lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Names of states, in any case.
    pub states: Vec<String>,
    /// `classic`, `consumer`, in any case.
    pub types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub group: String,
    pub protocol_type: String,
    pub state: &'static str,
    pub kind: &'static str,
}

/// Partitions by topic.
pub type Partitions = BTreeMap<TopicId, Vec<i32>>;

/// Member epochs with a meaning of their own.
pub const JOIN_EPOCH: i32 = 0;
pub const LEAVE_EPOCH: i32 = -1;
/// A static member that will be back.
pub const LEAVE_STATIC_EPOCH: i32 = -2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeat {
    pub group: String,
    pub who: Identity,
    pub epoch: i32,
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// None: as before.
    pub rebalance_timeout: Option<Duration>,
    pub topics: Option<Vec<String>>,
    /// An empty one takes the subscription back.
    pub regex: Option<String>,
    pub assignor: Option<String>,
    /// What the member holds; None: as before.
    pub owned: Option<Partitions>,
    /// Used as the member's id if it brings none.
    pub fresh: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeated {
    pub member: String,
    pub epoch: i32,
    pub heartbeat_interval: Duration,
    /// None: unchanged.
    pub assignment: Option<Partitions>,
}

/// Why a heartbeat is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: ErrorCode,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescribed {
    pub state: &'static str,
    pub epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: String,
    pub members: Vec<ConsumerDescribedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescribedMember {
    pub who: Identity,
    pub rack: Option<String>,
    pub epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub topics: Vec<String>,
    pub regex: Option<String>,
    /// With the topics' names.
    pub assigned: Vec<(TopicId, String, Vec<i32>)>,
    pub target: Vec<(TopicId, String, Vec<i32>)>,
}

impl Request {
    /// The group that it is about; None for `List`.
    pub fn group(&self) -> Option<&str> {
        Some(match self {
            Request::Join(r) => &r.group,
            Request::Sync(r) => &r.group,
            Request::Heartbeat(r) => &r.group,
            Request::Leave(r) => &r.group,
            Request::Commit(r) => &r.group,
            Request::Fetch(r) => &r.group,
            Request::ConsumerHeartbeat(r) => &r.group,
            Request::Describe { group }
            | Request::Delete { group }
            | Request::DeleteOffsets { group, .. }
            | Request::ConsumerDescribe { group } => group,
            Request::List(_) => return None,
        })
    }

    /// The answer when it can't be served at all: no coordinator here, not loaded, too many requests.
    pub fn refuse(&self, code: ErrorCode) -> Response {
        match self {
            Request::Join(r) => Response::Join(Err(JoinRefused { code, member: r.who.member.clone() })),
            Request::Sync(_) => Response::Sync(Err(code)),
            Request::Heartbeat(_) => Response::Heartbeat(Err(code)),
            Request::Leave(_) => Response::Leave(Err(code)),
            Request::Commit(r) => Response::Commit(vec![Err(code); r.offsets.len()]),
            Request::Fetch(_) => Response::Fetch(Err(code)),
            Request::Describe { group } => Response::Describe(Described::failed(group, Some(code))),
            Request::List(_) => Response::List(Vec::new()),
            Request::Delete { .. } => Response::Delete(Err(code)),
            Request::DeleteOffsets { .. } => Response::DeleteOffsets(Err(code)),
            Request::ConsumerHeartbeat(_) => {
                let message = "the group's coordinator can't serve it now".to_owned();
                Response::ConsumerHeartbeat(Err(Refused { code, message }))
            }
            Request::ConsumerDescribe { .. } => Response::ConsumerDescribe(Err(code)),
        }
    }

    /// Bytes that the request holds while it waits, about.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 256;
        let pairs = |pairs: &[(String, Bytes)]| pairs.iter().map(|(name, b)| name.len() + b.len() + 56).sum::<usize>();
        let names = |names: &[(String, i32)]| names.iter().map(|(name, _)| name.len() + 32).sum::<usize>();
        FIXED
            + match self {
                Request::Join(r) => pairs(&r.protocols),
                Request::Sync(r) => pairs(&r.assignments),
                Request::Leave(r) => r.members.iter().map(|m| m.member.len() + 64).sum(),
                Request::Commit(r) => r.offsets.iter().map(|o| o.topic.len() + o.metadata.len() + 64).sum(),
                Request::Fetch(r) => r.partitions.as_deref().map_or(0, names),
                Request::DeleteOffsets { partitions, .. } => names(partitions),
                Request::ConsumerHeartbeat(r) => {
                    let topics = r.topics.iter().flatten().map(|t| t.len() + 24).sum::<usize>();
                    topics + r.owned.iter().flatten().map(|(_, p)| 64 + 4 * p.len()).sum::<usize>()
                }
                _ => 0,
            }
    }
}

impl Response {
    /// Why all of the request was refused, if it was. Of answers per item, the first item tells.
    pub fn refusal(&self) -> Option<ErrorCode> {
        match self {
            Response::Join(outcome) => outcome.as_ref().err().map(|refused| refused.code),
            Response::Sync(outcome) => outcome.as_ref().err().copied(),
            Response::Heartbeat(outcome) | Response::Delete(outcome) => outcome.as_ref().err().copied(),
            Response::Leave(outcome) | Response::DeleteOffsets(outcome) => outcome.as_ref().err().copied(),
            Response::Commit(outcomes) => outcomes.first().and_then(|outcome| outcome.as_ref().err().copied()),
            Response::Fetch(outcome) => outcome.as_ref().err().copied(),
            Response::Describe(described) => described.error,
            Response::List(_) => None,
            Response::ConsumerHeartbeat(outcome) => outcome.as_ref().err().map(|refused| refused.code),
            Response::ConsumerDescribe(outcome) => outcome.as_ref().err().copied(),
        }
    }
}

impl Described {
    /// A group that is not there, or can't be told about.
    pub fn failed(group: &str, error: Option<ErrorCode>) -> Self {
        Self {
            error,
            group: group.to_owned(),
            state: "Dead",
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }
}
