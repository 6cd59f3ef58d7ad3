//! The sending side: raft's messages over the links of `esker-net`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_net::{Address, Pool, RpcError};
use esker_types::checksum::crc32c;
use esker_types::{ErrorCode, Role, opcode};
use openraft::OptionalSend;
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::Snapshot;
use prost::Message;
use tokio::io::AsyncReadExt;

use super::codec::VoteRecord;
use super::machine::Applied;
use super::rpc::{self, AppendAnswer, AppendAsk, AppendVerdict, SnapshotAnswer, SnapshotAsk, VoteAnswer, VoteAsk};
use super::{LogId, NodeId, TypeConfig, Vote, Voter};

const SNAPSHOT_PIECE: usize = 1 << 20;
/// The last piece is answered when the snapshot is installed.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

type Failure = RPCError<NodeId, Voter, RaftError<NodeId>>;

/// Makes a [`Target`] per voter.
#[derive(Clone)]
pub struct Transport {
    pool: Pool,
    applied: Arc<Applied>,
}

/// One other voter.
pub struct Target {
    id: NodeId,
    voter: Voter,
    transport: Transport,
}

impl Transport {
    pub fn new(pool: Pool, applied: Arc<Applied>) -> Self {
        Self { pool, applied }
    }

    fn target(&self, id: NodeId, voter: &Voter) -> Target {
        Target { id, voter: voter.clone(), transport: self.clone() }
    }

    /// Asks whether a voter would vote for a node whose log ends at `last`.
    pub async fn would_vote(&self, id: NodeId, voter: &Voter, last: Option<LogId>, within: Duration) -> bool {
        let vote = VoteRecord::default();
        let ask = VoteAsk { to: id, vote, last: last.map(Into::into), trial: true };
        let answer: Result<VoteAnswer, _> =
            self.target(id, voter).ask(opcode::metadata::RAFT_VOTE, &ask, Vec::new(), within).await;
        answer.is_ok_and(|answer| answer.granted)
    }
}

impl RaftNetworkFactory<TypeConfig> for Transport {
    type Network = Target;

    async fn new_client(&mut self, target: NodeId, node: &Voter) -> Target {
        self.target(target, node)
    }
}

impl Target {
    async fn ask<A: Message + Default>(
        &self,
        opcode: u16,
        ask: &impl Message,
        payload: Vec<Bytes>,
        within: Duration,
    ) -> Result<A, RpcError> {
        let address: Address =
            self.voter.address.parse().map_err(|error: esker_net::BadAddress| RpcError::NotSent(error.to_string()))?;
        let frame = self.transport.pool.call(&address, Role::Metadata, opcode, ask, payload, within).await;
        if let Err(RpcError::Remote(info)) = &frame
            && info.error_code() == Some(ErrorCode::WrongInstance)
        {
            tracing::error!(
                voter = self.voter.name,
                address = self.voter.address,
                reason = info.message,
                "a voter lost its data: remove it from the quorum and add it anew"
            );
        }
        frame?.decode_control().map_err(|error| RpcError::BadAnswer(error.to_string()))
    }
}

fn failure(error: &RpcError) -> Failure {
    match error {
        // openraft waits a little before it tries such a node again.
        RpcError::NotSent(_) => RPCError::Unreachable(Unreachable::new(error)),
        _ => RPCError::Network(NetworkError::new(error)),
    }
}

fn broken(what: &'static str) -> Failure {
    RPCError::Network(NetworkError::new(&io::Error::other(what)))
}

impl RaftNetwork<TypeConfig> for Target {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failure> {
        let (lens, payload) = rpc::pack_entries(&rpc.entries);
        let applied = &self.transport.applied;
        let ask = AppendAsk {
            to: self.id,
            vote: rpc.vote.into(),
            prev: rpc.prev_log_id.map(Into::into),
            committed: rpc.leader_commit.map(Into::into),
            lens,
            payload_crc: crc32c(&payload),
            checkpoint: applied.checkpoint().map(Into::into),
        };
        let within = option.hard_ttl();
        let payload = if payload.is_empty() { Vec::new() } else { vec![payload] };
        let answer = self.ask::<AppendAnswer>(opcode::metadata::RAFT_APPEND, &ask, payload, within).await;
        let answer = answer.map_err(|error| failure(&error))?;
        if let Some(theirs) = answer.checkpoint {
            applied.compare(theirs.into(), &self.voter.name);
        }
        match AppendVerdict::try_from(answer.verdict) {
            Ok(AppendVerdict::Success) => Ok(AppendEntriesResponse::Success),
            Ok(AppendVerdict::Partial) => Ok(AppendEntriesResponse::PartialSuccess(answer.matching.map(Into::into))),
            Ok(AppendVerdict::Conflict) => Ok(AppendEntriesResponse::Conflict),
            Ok(AppendVerdict::HigherVote) => {
                let vote = answer.vote.ok_or_else(|| broken("a refusal without a vote"))?;
                Ok(AppendEntriesResponse::HigherVote(vote.into()))
            }
            Err(_) => Err(broken("an answer of a newer version")),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<NodeId>, option: RPCOption) -> Result<VoteResponse<NodeId>, Failure> {
        let last = rpc.last_log_id.map(Into::into);
        let ask = VoteAsk { to: self.id, vote: rpc.vote.into(), last, trial: false };
        let answer = self.ask::<VoteAnswer>(opcode::metadata::RAFT_VOTE, &ask, Vec::new(), option.hard_ttl()).await;
        let answer = answer.map_err(|error| failure(&error))?;
        Ok(VoteResponse {
            vote: answer.vote.into(),
            vote_granted: answer.granted,
            last_log_id: answer.last.map(Into::into),
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let send = self.send_snapshot(vote, snapshot, option.hard_ttl());
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => sent,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(100)))
    }
}

impl Target {
    /// Piece by piece; each is answered before the next is sent, so at most one is in memory.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        within: Duration,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let unreadable = |error: io::Error| StreamingError::Unreachable(Unreachable::new(&error));
        let unsent = |error: RpcError| StreamingError::Unreachable(Unreachable::new(&error));
        // Held open: the file may be pruned meanwhile.
        let mut file = tokio::fs::File::open(&snapshot.snapshot.path).await.map_err(unreadable)?;
        let total = file.metadata().await.map_err(unreadable)?.len();
        let mut offset = 0;
        loop {
            let left = total - offset;
            let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(SNAPSHOT_PIECE)];
            file.read_exact(&mut piece).await.map_err(unreadable)?;
            let (len, piece) = (piece.len() as u64, Bytes::from(piece));
            let payload_crc = crc32c(&piece);
            let ask = SnapshotAsk { to: self.id, vote: vote.into(), total, offset, payload_crc };
            let within = if len == left { INSTALL_TIMEOUT } else { within };
            let answer = self.ask::<SnapshotAnswer>(opcode::metadata::RAFT_SNAPSHOT, &ask, vec![piece], within).await;
            let theirs = Vote::from(answer.map_err(unsent)?.vote);
            offset += len;
            if theirs != vote || offset == total {
                return Ok(SnapshotResponse::new(theirs));
            }
        }
    }
}
