use std::time::Duration;

use esker_metadata_core::GatewayRecord;
use esker_net::RpcError;
use esker_types::error::ErrorInfo;
use esker_types::moves::{MoveAnswer, MoveRequest};
use esker_types::{Epoch, ErrorCode, PartitionId, Role, SessionId, opcode};
use esker_wire::native;
use tokio::sync::oneshot;

use super::allow;
use crate::auth::Action;
use crate::door::{Client, ready};
use crate::gateway::Gateway;
use crate::read::{find_position, outside};
use crate::shard::{Control, Moved};
use crate::transfers::internal_address;

/// Longest time that a move may take before its outcome is called unknown; it goes on by itself.
const MOVE_TIMEOUT: Duration = Duration::from_secs(10);
const READY_WAIT: Duration = Duration::from_secs(5);

pub async fn init_producer(
    client: &Client,
    request: native::InitProducer,
) -> Result<native::InitializedProducer, ErrorInfo> {
    allow(client, Action::InitProducer)?;
    // Partitions learn of a higher epoch from the batches that carry it: raising it needs no one else.
    let raised =
        i16::try_from(request.epoch).ok().and_then(|epoch| epoch.checked_add(1)).filter(|_| request.producer_id != 0);
    if let Some(epoch) = raised {
        return Ok(native::InitializedProducer {
            producer_id: request.producer_id,
            epoch: epoch.unsigned_abs().into(),
        });
    }
    let producer_id = client.gateway.producer_ids.next(&*client.gateway.store).await?;
    Ok(native::InitializedProducer { producer_id, epoch: 0 })
}

pub async fn list_offsets(client: &Client, request: native::ListOffsets) -> Result<native::ListedOffsets, ErrorInfo> {
    let gateway = &client.gateway;
    let action: for<'a> fn(&'a str, PartitionId) -> Action<'a> = |topic, partition| Action::Read { topic, partition };
    let record = gateway.resolve(&client.principal, request.partition.as_ref(), action).await?;
    let at = request.at.ok_or_else(|| ErrorInfo::new(ErrorCode::InvalidRequest, "the request names no position"))?;
    let handle = gateway.owned(record.id).await?;
    let news = ready(gateway, &handle, READY_WAIT).await?;
    let found = find_position(gateway, &handle, news, at).await?;
    Ok(native::ListedOffsets {
        offset: found.offset,
        timestamp_ms: found.timestamp_ms,
        log_start: news.log_start,
        high_watermark: news.high_watermark,
        epoch: news.epoch.0,
    })
}

pub async fn delete_records(
    client: &Client,
    request: native::DeleteRecords,
) -> Result<native::DeletedRecords, ErrorInfo> {
    let gateway = &client.gateway;
    let action: for<'a> fn(&'a str, PartitionId) -> Action<'a> = |topic, _| Action::DeleteRecords { topic };
    let record = gateway.resolve(&client.principal, request.partition.as_ref(), action).await?;
    let handle = gateway.owned(record.id).await?;
    let news = ready(gateway, &handle, READY_WAIT).await?;
    let before = if request.before_offset == -1 { news.high_watermark } else { request.before_offset };
    if before < 0 || before > news.high_watermark {
        return Err(outside(gateway, &handle, before, news).await);
    }
    let (reply, outcome) = oneshot::channel();
    gateway.shards.tell(handle.id, Control::DeleteRecords { partition: handle.id, before, reply }).await;
    match outcome.await {
        Ok(Ok(completed)) => Ok(native::DeletedRecords { log_start: completed.base_offset }),
        Ok(Err(refusal)) => Err(ErrorInfo::new(refusal.code, refusal.reason)),
        Err(_) => Err(gateway.not_owner(handle.id, ErrorCode::Moved)),
    }
}

pub async fn move_partition(
    client: &Client,
    request: native::MovePartition,
) -> Result<native::MovedPartition, ErrorInfo> {
    allow(client, Action::AdministerCluster)?;
    let gateway = &client.gateway;
    let action: for<'a> fn(&'a str, PartitionId) -> Action<'a> = |_, _| Action::AdministerCluster;
    let record = gateway.resolve(&client.principal, request.partition.as_ref(), action).await?;
    let target = gateway.view.read(|state| state.gateway_by_name(&request.to).cloned());
    let target = target
        .ok_or_else(|| ErrorInfo::new(ErrorCode::UnknownNode, format!("there is no gateway named {:?}", request.to)))?;
    let to_session = session_of(gateway, &target)?;
    let owner = record.owner.clone().ok_or_else(|| gateway.not_owner(record.id, ErrorCode::NotOwner))?;
    let from = gateway.view.read(|state| state.gateway(owner.gateway).map(|g| g.name.clone())).unwrap_or_default();
    if owner.session == to_session {
        return Ok(native::MovedPartition { epoch: record.epoch.0, pause_us: 0, from, to: request.to });
    }
    let moved = match gateway.is_ours(record.id) {
        true => move_here(gateway, record.id, None, to_session).await?,
        false => ask_owner(gateway, record.id, record.epoch, owner.session, to_session).await?,
    };
    let pause_us = u64::try_from(moved.pause.as_micros()).unwrap_or(u64::MAX);
    Ok(native::MovedPartition { epoch: moved.epoch.0, pause_us, from, to: request.to })
}

pub fn session_of(gateway: &Gateway, target: &GatewayRecord) -> Result<SessionId, ErrorInfo> {
    let live = target.session.filter(|session| gateway.view.read(|state| state.session(*session).is_some()));
    let refuse = |why: &str| ErrorInfo::new(ErrorCode::InvalidRequest, format!("gateway {:?} {why}", target.name));
    match live {
        None => Err(refuse("does not live")),
        Some(_) if target.draining => Err(refuse("is draining")),
        Some(session) => Ok(session),
    }
}

/// Hands over a partition that this gateway owns. Returns when the new owner is ready.
pub async fn move_here(
    gateway: &Gateway,
    partition: PartitionId,
    epoch: Option<Epoch>,
    to: SessionId,
) -> Result<Moved, ErrorInfo> {
    let handle = gateway.owned(partition).await?;
    let news = ready(gateway, &handle, READY_WAIT).await?;
    if epoch.is_some_and(|epoch| epoch != news.epoch) {
        return Err(gateway.not_owner(partition, ErrorCode::FencedEpoch));
    }
    let (reply, moved) = oneshot::channel();
    gateway.shards.tell(partition, Control::Move { partition, to, reply }).await;
    match tokio::time::timeout(MOVE_TIMEOUT, moved).await {
        Ok(Ok(moved)) => {
            gateway.metrics.moves.inc();
            gateway.metrics.move_seconds.observe(moved.pause.as_secs_f64());
            Ok(moved)
        }
        _ => {
            let message =
                format!("partition {partition} was not seen ready at its new owner in time; its record will tell");
            Err(ErrorInfo::new(ErrorCode::TimedOutUnknown, message))
        }
    }
}

pub async fn ask_owner(
    gateway: &Gateway,
    partition: PartitionId,
    epoch: Epoch,
    owner: SessionId,
    to: SessionId,
) -> Result<Moved, ErrorInfo> {
    let address =
        internal_address(&gateway.view, owner).ok_or_else(|| gateway.not_owner(partition, ErrorCode::NotOwner))?;
    let request = MoveRequest { partition: partition.0, epoch: epoch.0, to_session: to.0 };
    let opcode = opcode::gateway::MOVE;
    let answer: MoveAnswer = gateway
        .peers
        .ask(&address, Role::Gateway, opcode, &request, MOVE_TIMEOUT + Duration::from_secs(2))
        .await
        .map_err(|error| match error {
            RpcError::Remote(info) => info,
            error if error.may_have_applied() => ErrorInfo::new(ErrorCode::TimedOutUnknown, error.to_string()),
            error => ErrorInfo::new(ErrorCode::NotOwner, format!("the owner does not answer: {error}")),
        })?;
    Ok(Moved { epoch: Epoch(answer.epoch), pause: Duration::from_micros(answer.pause_us) })
}

/// Needs the object of an operator's decision that no code path offers yet.
pub async fn force_close(client: &Client, _: native::ForceClose) -> Result<native::ForceClosed, ErrorInfo> {
    allow(client, Action::AdministerCluster)?;
    Err(ErrorInfo::new(ErrorCode::UnsupportedVersion, "force-close is not available in this version"))
}
