//! What comes in through the internal port.

use std::sync::Arc;

use esker_metadata_client::admin::{AdminAnswer, AdminRequest};
use esker_metadata_client::messages::{
    ProposeAnswer, ProposeRequest, ReadAnswer, ReadRequest, RenewAnswer, RenewRequest, WatchAnswer, WatchRequest,
    pack_answer, unpack,
};
use esker_metadata_core::wire::DecodeError;
use esker_metadata_core::{CommandResult, Reply};
use esker_net::{BoxFuture, ConnectionCtx, Service, refusal, unknown_opcode};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Frame, Role, opcode::metadata as opcode};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, not_leader};
use crate::controller::{Lease, Renewals};
use crate::metrics::Metrics;
use crate::proposer::ProposeFault;
use crate::raft::rpc::RaftDoor;
use crate::reads::{ReadFault, Reads};
use crate::watch;

pub struct Door {
    pub raft: RaftDoor,
    pub admin: Admin,
    pub reads: Reads,
    pub lease: Lease,
    pub renewals: Mutex<Renewals>,
    pub metrics: Arc<Metrics>,
    pub cancel: CancellationToken,
}

type Answer = Result<Option<Frame>, ErrorInfo>;

impl Service for Door {
    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            match self.answer(ctx, &frame).await {
                Ok(answer) => answer,
                Err(info) => refusal(&frame, &info),
            }
        })
    }

    fn on_close(&self, ctx: &ConnectionCtx) {
        let silent = self.renewals.lock().closed(ctx.id);
        // Our own stop closes all connections; so may a network that has cut us off from the others.
        if !self.cancel.is_cancelled() && self.admin.leadership.is_established() {
            silent.into_iter().for_each(|session| self.lease.silent(session));
        }
    }
}

/// Who may ask for what.
fn allowed(role: Role, code: u16) -> bool {
    match code {
        opcode::RAFT_VOTE | opcode::RAFT_APPEND | opcode::RAFT_SNAPSHOT => role == Role::Metadata,
        opcode::RENEW_SESSION => matches!(role, Role::Gateway | Role::Bookie),
        opcode::ADMIN => matches!(role, Role::Admin | Role::Metadata | Role::Gateway),
        _ => role != Role::Client,
    }
}

impl Door {
    async fn answer(&self, ctx: &ConnectionCtx, frame: &Frame) -> Answer {
        if !allowed(ctx.peer.role, frame.opcode) {
            let text = format!("a {} may not ask for opcode {}", ctx.peer.role.as_str(), frame.opcode);
            return Err(ErrorInfo::new(ErrorCode::NotAuthorized, text));
        }
        match frame.opcode {
            opcode::PROPOSE => self.propose(ctx, frame).await.map(Some),
            opcode::READ => self.read(frame).await.map(Some),
            opcode::WATCH => self.watch(ctx, frame).await,
            opcode::RENEW_SESSION => self.renew(ctx, frame).map(Some),
            opcode::ADMIN => self.admin(frame).await.map(Some),
            opcode::RAFT_VOTE | opcode::RAFT_APPEND | opcode::RAFT_SNAPSHOT => {
                self.raft.handle(frame, &ctx.peer.name).await.map(Some)
            }
            _ => Ok(unknown_opcode(frame)),
        }
    }

    async fn propose(&self, ctx: &ConnectionCtx, frame: &Frame) -> Result<Frame, ErrorInfo> {
        let request: ProposeRequest = unpack(frame).map_err(|error| malformed(&error))?;
        match self.admin.proposer.propose(request.commands).await {
            Ok(done) => {
                self.note_sessions(&done.results, ctx.id);
                Ok(pack_answer(frame, &ProposeAnswer { revision: done.revision, results: done.results }))
            }
            Err(fault) => Err(match fault {
                ProposeFault::NotLeader => not_leader(&self.admin.leadership),
                ProposeFault::NoQuorum => ErrorInfo::new(ErrorCode::MetadataUnavailable, fault.to_string()),
                ProposeFault::Overloaded => ErrorInfo::new(ErrorCode::Overloaded, fault.to_string()),
                ProposeFault::TooLarge { .. } => ErrorInfo::new(ErrorCode::InvalidRequest, fault.to_string()),
                ProposeFault::Unknown(_) => ErrorInfo::new(ErrorCode::TimedOutUnknown, fault.to_string()),
            }),
        }
    }

    /// A process that dies before its first renewal is found as quickly as any other.
    fn note_sessions(&self, results: &[CommandResult], connection: u64) {
        for result in results {
            let session = match result {
                Ok(Reply::Gateway(reply)) => reply.session,
                Ok(Reply::Bookie(reply)) => reply.session,
                Ok(Reply::Session(reply)) => reply.session,
                _ => continue,
            };
            self.renewals.lock().renewed(session, connection);
        }
    }

    async fn read(&self, frame: &Frame) -> Result<Frame, ErrorInfo> {
        let request: ReadRequest = unpack(frame).map_err(|error| malformed(&error))?;
        match self.reads.fresh().await {
            Ok(()) => {
                let answer = self.admin.applied.read(|state| state.answer(&request.query));
                Ok(pack_answer(frame, &ReadAnswer { answer }))
            }
            Err(ReadFault::NotLeader) => Err(not_leader(&self.admin.leadership)),
            Err(fault @ ReadFault::NoQuorum) => Err(ErrorInfo::new(ErrorCode::MetadataUnavailable, fault.to_string())),
            Err(fault @ ReadFault::Overloaded) => Err(ErrorInfo::new(ErrorCode::Overloaded, fault.to_string())),
        }
    }

    async fn watch(&self, ctx: &ConnectionCtx, frame: &Frame) -> Answer {
        let request: WatchRequest = unpack(frame).map_err(|error| malformed(&error))?;
        if ctx.tx.send(pack_answer(frame, &WatchAnswer {})).await.is_err() {
            return Ok(None);
        }
        self.metrics.watcher(1);
        let feed = watch::feed(&self.admin.applied, &ctx.tx, frame.request_id, request.from);
        self.cancel.run_until_cancelled(feed).await;
        self.metrics.watcher(-1);
        Ok(None)
    }

    fn renew(&self, ctx: &ConnectionCtx, frame: &Frame) -> Result<Frame, ErrorInfo> {
        let request: RenewRequest = unpack(frame).map_err(|error| malformed(&error))?;
        if !self.admin.leadership.is_established() {
            return Err(not_leader(&self.admin.leadership));
        }
        let known = |state: &esker_metadata_core::State| {
            state.session(request.session).is_some_and(|session| session.boot == request.boot)
        };
        if !self.admin.applied.read(known) {
            let text = format!("session {} has ended: step down and register again", request.session);
            return Err(ErrorInfo::new(ErrorCode::NoSuchSession, text));
        }
        let ttl = self.lease.renew(request.session);
        self.renewals.lock().renewed(request.session, ctx.id);
        Ok(pack_answer(frame, &RenewAnswer { ttl_ms: u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX) }))
    }

    async fn admin(&self, frame: &Frame) -> Result<Frame, ErrorInfo> {
        let request: AdminRequest = frame.decode_control().map_err(|error| malformed(&error.into()))?;
        let Some(ask) = request.ask else {
            return Err(ErrorInfo::new(ErrorCode::UnsupportedVersion, "this node does not know the request"));
        };
        let reply = Some(self.admin.handle(ask).await?);
        Ok(frame.answer(&AdminAnswer { reply }))
    }
}

fn malformed(error: &DecodeError) -> ErrorInfo {
    let code = match error {
        DecodeError::Newer(_) => ErrorCode::UnsupportedVersion,
        _ => ErrorCode::InvalidRequest,
    };
    ErrorInfo::new(code, format!("the request does not parse: {error}"))
}
