//! What comes in on the port: ADD, FENCE, READ, STATUS.

use std::sync::Arc;

use esker_bookie_core::bookie::ConnId;
use esker_bookie_core::wire::{Add, BookieMode, FenceRequest, Read, StatusResponseMessage, WireError};
use esker_net::{BoxFuture, ConnectionCtx, Service, TrySendError, refusal, unknown_opcode};
use esker_types::error::ErrorInfo;
use esker_types::opcode::bookie as opcode;
use esker_types::{ErrorCode, Frame, Role};

use super::disk_room::DiskRoom;
use crate::journal::{Journal, Stopped};

pub(super) struct BookieService {
    pub journal: Journal,
    pub room: Arc<DiskRoom>,
    pub read_bytes_max: u32,
}

impl Service for BookieService {
    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            if let Some(error) = self.not_allowed(ctx, &frame) {
                return refusal(&frame, &error);
            }
            match frame.opcode {
                opcode::ADD => self.add(ctx, frame).await,
                opcode::FENCE => self.fence(frame).await,
                opcode::READ => self.read(frame).await,
                opcode::STATUS => Some(frame.answer(&self.status())),
                _ => unknown_opcode(&frame),
            }
        })
    }

    /// An entry that finds the journal's queue full waits, and nothing more is read from its connection: TCP tells the
    /// gateway. The entries of a connection keep their order.
    fn in_order(&self, code: u16) -> bool {
        code == opcode::ADD
    }

    fn on_open(&self, ctx: &ConnectionCtx) {
        let tx = ctx.tx.clone();
        let peer = ctx.peer.clone();
        let sink = move |status: esker_bookie_core::wire::AddStatus| {
            // Called by the journal's thread, which waits for nobody. A gateway that lets thousands of answers pile
            // up is cut off; on its next connection it asks again, and nothing is lost by it.
            if let Err(TrySendError::Full(_)) = tx.try_send(status.to_frame()) {
                tracing::warn!(peer = peer.name, "connection closed: the peer does not take its answers");
                tx.close();
            }
        };
        self.journal.connect(ConnId(ctx.id), Arc::new(sink));
    }

    fn on_close(&self, ctx: &ConnectionCtx) {
        self.journal.disconnect(ConnId(ctx.id));
    }
}

impl BookieService {
    /// Only gateways write and fence (R5); copies are read by gateways and by bookies that repair theirs.
    fn not_allowed(&self, ctx: &ConnectionCtx, frame: &Frame) -> Option<ErrorInfo> {
        let role = ctx.peer.role;
        let allowed = match frame.opcode {
            opcode::ADD | opcode::FENCE => role == Role::Gateway,
            opcode::READ => matches!(role, Role::Gateway | Role::Bookie | Role::Admin),
            _ => role != Role::Client,
        };
        (!allowed).then(|| {
            let text = format!("a {} may not send opcode {} to a bookie", role.as_str(), frame.opcode);
            ErrorInfo::new(ErrorCode::NotAuthorized, text)
        })
    }

    async fn add(&self, ctx: &ConnectionCtx, frame: Frame) -> Option<Frame> {
        let add = match Add::from_frame(&frame) {
            Ok(add) => add,
            Err(error) => return bad_request(&frame, &error),
        };
        match self.journal.add(ConnId(ctx.id), add).await {
            Ok(()) => None,
            Err(Stopped) => stopping(&frame),
        }
    }

    async fn fence(&self, frame: Frame) -> Option<Frame> {
        let request = match FenceRequest::from_frame(&frame) {
            Ok(request) => request,
            Err(error) => return bad_request(&frame, &error),
        };
        match self.journal.fence(request).await {
            Ok(response) => Some(frame.answer(&response.to_message())),
            Err(Stopped) => stopping(&frame),
        }
    }

    async fn read(&self, frame: Frame) -> Option<Frame> {
        let read = match Read::from_frame(&frame) {
            Ok(read) => Read { max_bytes: read.max_bytes.min(self.read_bytes_max), ..read },
            Err(error) => return bad_request(&frame, &error),
        };
        match self.journal.read(read).await {
            Ok(response) => Some(response.to_frame(&frame)),
            Err(Stopped) => stopping(&frame),
        }
    }

    fn status(&self) -> StatusResponseMessage {
        let usage = self.room.usage();
        let mode = match usage.level {
            esker_bookie_core::journal::space::SpaceLevel::All => BookieMode::Writable,
            esker_bookie_core::journal::space::SpaceLevel::NoAdds => BookieMode::RecoveryOnly,
            _ => BookieMode::ReadOnly,
        };
        self.journal.look(|state| StatusResponseMessage {
            instance: bytes::Bytes::copy_from_slice(&state.instance().0),
            mode: if state.is_poisoned() { BookieMode::Poisoned } else { mode } as i32,
            free_bytes: usage.free,
            total_bytes: usage.free + usage.used,
            queued_bytes: self.journal.queued_bytes(),
            segments: state.segment_ids().count() as u64,
            limbo_segments: state.limbo_segments().count() as u64,
            durable_lsn: state.durable_lsn().0,
        })
    }
}

/// The frame's own checksum held, so this is a bug of the peer or damage in its memory: say so, take nothing.
fn bad_request(frame: &Frame, error: &WireError) -> Option<Frame> {
    tracing::warn!(%error, opcode = frame.opcode, "request refused");
    refusal(frame, &ErrorInfo::new(ErrorCode::InvalidRequest, error.to_string()))
}

fn stopping(frame: &Frame) -> Option<Frame> {
    refusal(frame, &ErrorInfo::new(ErrorCode::ShuttingDown, "the bookie is stopping"))
}
