//! What operators ask of metadata nodes (opcode `metadata::ADMIN`): the birth of the cluster and its members.
//!
//! Plain protobuf in the control part. `NotLeader` errors name the leader in `owner.addresses`, as everywhere.

use std::time::Duration;

use esker_net::{Address, Pool, RpcError};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Role, opcode};
use prost::{Message, Oneof};

/// Voters that a quorum may have.
pub const QUORUM_SIZES: [usize; 3] = [1, 3, 5];

#[derive(Clone, PartialEq, Message)]
pub struct AdminRequest {
    #[prost(oneof = "AdminAsk", tags = "1, 2, 3, 4, 5")]
    pub ask: Option<AdminAsk>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AdminAsk {
    /// To any node: who are you?
    #[prost(message, tag = "1")]
    Identify(Identify),
    /// To one of the future voters: make a cluster of them. Once.
    #[prost(message, tag = "2")]
    Init(InitCluster),
    /// To any node: who belongs to the quorum?
    #[prost(message, tag = "3")]
    Members(ListMembers),
    /// To the leader: take a blank node into the quorum.
    #[prost(message, tag = "4")]
    Add(AddMember),
    /// To the leader.
    #[prost(message, tag = "5")]
    Remove(RemoveMember),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Identify {}

#[derive(Clone, PartialEq, Message)]
pub struct Identity {
    #[prost(fixed64, tag = "1")]
    pub node: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where others reach it.
    #[prost(string, tag = "3")]
    pub address: String,
    /// It belongs to no quorum yet.
    #[prost(bool, tag = "4")]
    pub blank: bool,
    /// 16 bytes; empty before it knows its cluster.
    #[prost(bytes = "vec", tag = "5")]
    pub cluster: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct InitCluster {
    /// Internal addresses of the voters, the asked node's included: 1, 3 or 5.
    #[prost(string, repeated, tag = "1")]
    pub voters: Vec<String>,
    /// Default write and ack quorum of topics. 0 = 3/2.
    #[prost(uint32, tag = "2")]
    pub write_quorum: u32,
    #[prost(uint32, tag = "3")]
    pub ack_quorum: u32,
    #[prost(bool, tag = "4")]
    pub auto_create_topics: bool,
    /// 0 = 1.
    #[prost(uint32, tag = "5")]
    pub default_partitions: u32,
    /// Make the quorum only: what the cluster is comes by `Restore` commands. The answer names no cluster.
    #[prost(bool, tag = "6")]
    pub restore: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Born {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub cluster: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct ListMembers {}

#[derive(Clone, PartialEq, Message)]
pub struct Member {
    #[prost(fixed64, tag = "1")]
    pub node: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub address: String,
    /// False: it only follows, and does not count for a majority.
    #[prost(bool, tag = "4")]
    pub voter: bool,
    #[prost(bool, tag = "5")]
    pub leader: bool,
    /// Entries that it is behind the leader, if the leader was asked.
    #[prost(uint64, optional, tag = "6")]
    pub behind: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Members {
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<Member>,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Last entry applied by the node that answers.
    #[prost(uint64, tag = "3")]
    pub applied: u64,
    /// Empty before the cluster's birth.
    #[prost(bytes = "vec", tag = "4")]
    pub cluster: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AddMember {
    /// Internal address of the new node. It must be blank.
    #[prost(string, tag = "1")]
    pub address: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct RemoveMember {
    /// Name, address, or id in hexadecimal.
    #[prost(string, tag = "1")]
    pub member: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct AdminAnswer {
    #[prost(oneof = "AdminReply", tags = "1, 2, 3")]
    pub reply: Option<AdminReply>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AdminReply {
    #[prost(message, tag = "1")]
    Identity(Identity),
    #[prost(message, tag = "2")]
    Born(Born),
    /// Also the answer to `Add` and `Remove`: the members afterwards.
    #[prost(message, tag = "3")]
    Members(Members),
}

/// Asks one node.
pub async fn ask(pool: &Pool, node: &Address, ask: AdminAsk, timeout: Duration) -> Result<AdminReply, RpcError> {
    let request = AdminRequest { ask: Some(ask) };
    let answer: AdminAnswer = pool.ask(node, Role::Metadata, opcode::metadata::ADMIN, &request, timeout).await?;
    answer.reply.ok_or_else(|| RpcError::BadAnswer("an answer of a newer version".to_owned()))
}

/// Asks any of `nodes`, and the leader where only the leader can answer. A change that was sent is never repeated
/// unless it was surely not done.
pub async fn ask_any(
    pool: &Pool,
    nodes: &[Address],
    question: AdminAsk,
    timeout: Duration,
) -> Result<AdminReply, RpcError> {
    let mut queue: std::collections::VecDeque<Address> = nodes.iter().cloned().collect();
    let mut redirects = 0;
    let mut last = RpcError::NotSent("no metadata node is configured".to_owned());
    while let Some(node) = queue.pop_front() {
        last = match ask(pool, &node, question.clone(), timeout).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        match &last {
            RpcError::Remote(info) if info.error_code() == Some(ErrorCode::NotLeader) => {
                if let Some(leader) = leader(info)
                    && redirects < nodes.len() + 2
                {
                    redirects += 1;
                    queue.push_front(leader);
                }
            }
            RpcError::NotSent(_) => {}
            _ => return Err(last),
        }
    }
    Err(last)
}

fn leader(info: &ErrorInfo) -> Option<Address> {
    info.owner.as_ref()?.addresses.first()?.parse().ok()
}
