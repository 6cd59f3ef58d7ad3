//! The port for other nodes: moves asked for by the controller or another gateway, and producer state from a
//! partition's former owner.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_gateway_core::partition::Transfer;
use esker_net::{BoxFuture, ConnectionCtx, Service, unknown_opcode};
use esker_types::error::ErrorInfo;
use esker_types::moves::{MoveAnswer, MoveRequest, TransferAnswer, TransferRequest};
use esker_types::{Epoch, ErrorCode, Frame, PartitionId, Role, SessionId, checksum, opcode};

use crate::call::move_here;
use crate::gateway::Gateway;
use crate::shard::Control;
use crate::transfers::READY_WAIT;

pub struct Internal {
    pub gateway: Arc<Gateway>,
}

impl Service for Internal {
    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            let role = ctx.peer.role;
            let answered = match frame.opcode {
                opcode::gateway::MOVE if matches!(role, Role::Metadata | Role::Gateway | Role::Admin) => {
                    self.hand_over(&frame).await.map(|answer| frame.answer(&answer))
                }
                opcode::gateway::STATE_TRANSFER if role == Role::Gateway => {
                    self.take_over(&frame).await.map(|answer| frame.answer(&answer))
                }
                opcode::gateway::MOVE | opcode::gateway::STATE_TRANSFER => {
                    let message = format!("a {} may not ask for this", role.as_str());
                    Err(ErrorInfo::new(ErrorCode::NotAuthorized, message))
                }
                _ => return unknown_opcode(&frame),
            };
            Some(answered.unwrap_or_else(|error| frame.error_answer(&error)))
        })
    }
}

impl Internal {
    async fn hand_over(&self, frame: &Frame) -> Result<MoveAnswer, ErrorInfo> {
        let request: MoveRequest = decode(frame)?;
        let epoch = (request.epoch != 0).then_some(Epoch(request.epoch));
        let moved =
            move_here(&self.gateway, PartitionId(request.partition), epoch, SessionId(request.to_session)).await?;
        let pause_us = u64::try_from(moved.pause.as_micros()).unwrap_or(u64::MAX);
        Ok(MoveAnswer { epoch: moved.epoch.0, pause_us })
    }

    /// Passes the state on, if there is any, and answers when the partition is ready here.
    async fn take_over(&self, frame: &Frame) -> Result<TransferAnswer, ErrorInfo> {
        let request: TransferRequest = decode(frame)?;
        let partition = PartitionId(request.partition);
        let meant_for_us = || self.gateway.standing.borrow().session == Some(SessionId(request.to_session));
        if !meant_for_us() {
            return Err(ErrorInfo::new(ErrorCode::NoSuchSession, "the transfer is for another session"));
        }
        if !request.chunk_lens.is_empty() {
            let transfer = Transfer {
                digest: request.digest,
                end_offset: request.end_offset,
                snapshot: chunks(&request, frame.payload_bytes())?,
            };
            self.gateway.shards.tell(partition, Control::Transfer { partition, transfer }).await;
            return Ok(TransferAnswer { ready: false, epoch: 0 });
        }
        let ready = tokio::time::timeout(READY_WAIT, self.until_ready(partition)).await;
        let epoch = ready.ok().filter(|_| meant_for_us());
        Ok(TransferAnswer { ready: epoch.is_some(), epoch: epoch.map_or(0, |epoch| epoch.0) })
    }

    async fn until_ready(&self, partition: PartitionId) -> Epoch {
        loop {
            // The news that it is ours may still be on its way.
            let Some(handle) = self.gateway.handles.get(partition) else {
                tokio::time::sleep(Duration::from_micros(500)).await;
                continue;
            };
            let mut news = handle.follow();
            let settled = news.wait_for(|news| news.gone || news.is_ready()).await.map(|news| *news);
            if let Ok(news) = settled
                && news.is_ready()
            {
                return news.epoch;
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

fn decode<M: prost::Message + Default>(frame: &Frame) -> Result<M, ErrorInfo> {
    frame
        .decode_control()
        .map_err(|e| ErrorInfo::new(ErrorCode::InvalidRequest, format!("the request does not parse: {e}")))
}

fn chunks(request: &TransferRequest, mut payload: Bytes) -> Result<Vec<Bytes>, ErrorInfo> {
    let broken = || ErrorInfo::new(ErrorCode::InvalidRequest, "the transfer's payload does not fit what it says");
    let total: u64 = request.chunk_lens.iter().map(|len| u64::from(*len)).sum();
    if total != payload.len() as u64 || checksum::crc32c(&payload) != request.payload_crc {
        return Err(broken());
    }
    Ok(request.chunk_lens.iter().map(|len| payload.split_to(*len as usize)).collect())
}
